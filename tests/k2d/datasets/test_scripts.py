"""Datasets in one script: converted texts, the teacher's beside them, ids that tell them apart, counts as heard."""

import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import lhotse
import pyarrow.parquet as pq
import pytest
from lakes import batch, put_recording

from k2d.datasets import scripts
from k2d.datasets.formats import export
from k2d.datasets.freeze import freeze
from k2d.datasets.pull import export_pulled
from k2d.datasets.read import FrozenDataset
from k2d.errors import Conflict
from k2d.filtering.policy import PAPER
from k2d.schema import Script
from k2d.store import Lake
from k2d.store.manifest import Manifest

BATCH = "b_0123456789abcdef"
TEXTS = [" 他的头", "发很长 GPT-4，", "我們在裡面", "搭火车去公里", "三點搭火车", "ok 3.5"]
TRADITIONAL = ["他的頭他的頭", "髮很長 GPT-4，", "我們在裡面", "搭火車去公里", "三點搭火車", "ok 3.5"]
# every chunk is a row of its own, since pauses are long; its two segments have the same text
SPANS = [(4.0 * number, 4.0 * number + 1) for number in range(len(TEXTS))]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.batches.put(batch(1))
    lake.batches.put_result(BATCH, put_recording(lake, 0, SPANS, texts=TEXTS))
    return lake


def frozen(lake: Lake, name: str, script: Script = Script.AS_HEARD, **options: Any) -> Manifest:
    return freeze(lake, name=name, batches=["lectures"], policy=PAPER, script=script, **options)


def rows(lake: Lake, name: str) -> list[dict[str, Any]]:
    shards = lake.datasets.manifest(name).shards
    return [row for s in shards for row in pq.read_table(lake.datasets.shard_path(name, s.number)).to_pylist()]


def test_as_heard_is_the_default_and_has_the_ids_of_before(lake: Lake) -> None:
    default, explicit = frozen(lake, "a"), frozen(lake, "b", Script.AS_HEARD)
    assert default.digest == explicit.digest
    assert default.script is None
    assert "raw_text" not in rows(lake, "a")[0]


def test_another_script_is_another_dataset_of_the_same_audio(lake: Lake) -> None:
    manifests = [frozen(lake, script.value, script) for script in Script]
    assert len({manifest.digest for manifest in manifests}) == 3
    with pytest.raises(Conflict, match="other content"):
        frozen(lake, "traditional", Script.SIMPLIFIED)
    assert frozen(lake, "traditional", Script.TRADITIONAL) == manifests[0]
    heard, converted = rows(lake, "as-heard"), rows(lake, "traditional")
    texts = ("text", "raw_text", "segments", "previous_text")
    for before, after in zip(heard, converted, strict=True):
        assert {k: v for k, v in before.items() if k not in texts} == {k: v for k, v in after.items() if k not in texts}
        assert after["raw_text"] == before["text"]
        times = [[(s["start_s"], s["end_s"]) for s in row["segments"]] for row in (before, after)]
        assert times[0] == times[1]


def test_texts_segments_and_previous_text_are_converted_alike(lake: Lake) -> None:
    manifest = frozen(lake, "v1", Script.TRADITIONAL, max_gap_s=0.5)
    assert manifest.script is not None
    assert (manifest.script.name, manifest.script.standard) == ("traditional", "s2tw")
    assert manifest.script.converter.startswith("OpenCC 1.")
    table = rows(lake, "v1")
    assert [row["text"] for row in table][2:] == [2 * text for text in TRADITIONAL[2:-1]] + ["ok 3.5ok 3.5"]
    for before, row in zip([None, *table], table, strict=False):
        assert "".join(segment["text"] for segment in row["segments"]).strip() == row["text"]
        assert row["previous_text"] == (before["text"] if before else "")
        assert len(row["text"]) == len(row["raw_text"])


def test_a_word_over_two_segments_is_one_word(lake: Lake) -> None:
    frozen(lake, "v1", Script.TRADITIONAL, max_gap_s=4.0)
    row = rows(lake, "v1")[0]
    assert row["text"].startswith("他的頭 他的頭髮很長")
    assert [segment["text"] for segment in row["segments"][:3]] == [" 他的頭", " 他的頭", "髮很長 GPT-4，"]


def test_the_manifest_counts_scripts_as_heard(lake: Lake) -> None:
    expected = {"traditional": 1, "simplified": 3, "mixed": 1, "neither": 1}
    for script in Script:
        counted = frozen(lake, script.value, script).scripts_as_heard
        assert counted is not None
        assert counted.model_dump() == expected


def test_the_converters_version_is_part_of_the_digest(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {frozen(lake, "a", Script.TRADITIONAL).digest, frozen(lake, "b").digest}
    monkeypatch.setattr(scripts, "CONVERTER", "OpenCC 9.9")
    digests |= {frozen(lake, "c", Script.TRADITIONAL).digest, frozen(lake, "d").digest}
    assert len(digests) == 3  # that of a dataset as heard does not depend on it


# ---- exports ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["huggingface", "nemo", "webdataset", "lhotse", "kaldi"])
@pytest.mark.parametrize("when", ["frozen", "exported"])
def test_exports_in_one_script_have_both_texts(lake: Lake, tmp_path: Path, format_: str, when: str) -> None:
    frozen(lake, "heard")
    frozen(lake, "v1", Script.TRADITIONAL if when == "frozen" else Script.AS_HEARD)
    script = None if when == "frozen" else Script.TRADITIONAL
    folder = Path(export(lake, "v1", format_, tmp_path / "out", script=script))
    heard = {row["id"]: row["text"] for row in rows(lake, "heard")}
    texts, raw = read_export(folder, format_, tmp_path)
    normal = {key: " ".join(text.split()) for key, text in heard.items()} if format_ == "kaldi" else heard
    assert raw == normal
    assert texts[min(texts)] == texts[min(texts)].replace("头", "頭")
    assert all("车" not in text and "头" not in text for text in texts.values())


def read_export(folder: Path, format_: str, tmp_path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Texts and raw texts of an export, by the row's id."""
    if format_ == "huggingface":
        loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        table = loaded.remove_columns("audio").to_list()
    elif format_ == "nemo":
        table = [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]
    elif format_ == "lhotse":
        cuts = list(lhotse.CutSet.from_shar(in_dir=str(folder)))
        table = [{"id": cut.id, "text": cut.supervisions[0].text, "raw_text": cut.custom["raw_text"]} for cut in cuts]
    elif format_ == "kaldi":
        return tuple(
            dict(line.split(" ", 1) for line in (folder / name).read_text("utf-8").splitlines())
            for name in ("text", "raw_text")
        )
    else:
        with tarfile.open(folder / "shard-000000.tar") as tar:
            files = [file for member in tar if member.name.endswith(".json") and (file := tar.extractfile(member))]
            table = [json.load(file) for file in files]
    return {row["id"]: row["text"] for row in table}, {row["id"]: row["raw_text"] for row in table}


def test_an_export_equals_a_freeze_in_that_script(lake: Lake) -> None:
    frozen(lake, "heard")
    frozen(lake, "v1", Script.SIMPLIFIED)
    converted = FrozenDataset(lake, "heard", script=Script.SIMPLIFIED)
    stored = FrozenDataset(lake, "v1", script=Script.SIMPLIFIED)
    assert [row.fields for row in converted.rows(0)] == [row.fields for row in stored.rows(0)]
    assert converted.manifest.script == stored.manifest.script


def test_a_dataset_in_one_script_is_not_exported_in_another(lake: Lake, tmp_path: Path) -> None:
    frozen(lake, "v1", Script.TRADITIONAL)
    for script in (Script.SIMPLIFIED, Script.AS_HEARD):
        with pytest.raises(Conflict, match="in traditional characters"):
            export(lake, "v1", "nemo", tmp_path / "out", script=script)


def test_the_card_tells_the_script_and_the_cache_is_not_shared(lake: Lake, tmp_path: Path) -> None:
    frozen(lake, "v1")
    cards = {}
    for script in Script:
        folder = Path(export(lake, "v1", "huggingface", tmp_path / script / "v1", script=script))
        cards[script] = (folder / "README.md").read_text("utf-8")
        provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
        data = (folder / "data" / "train-00000-of-00001.parquet").read_bytes()
        assert provenance["shards"][0]["bytes"] == len(data)
        loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        text = loaded.remove_columns("audio")[3]["text"]
        assert ("車" in text) == (script is Script.TRADITIONAL)
    heard = "1 row Traditional, 3 Simplified, 1 mixed, 1 neither"
    assert all(heard in card for card in cards.values())
    assert "traditional, converted with OpenCC" in cards[Script.TRADITIONAL]
    assert "raw_text" not in cards[Script.AS_HEARD]
    assert len({card.split("config_name: ")[1].split("\n")[0] for card in cards.values()}) == 3


def test_a_pulled_dataset_is_exported_in_one_script(lake: Lake, tmp_path: Path) -> None:
    frozen(lake, "v1")

    class Remote:
        def manifest(self, name: str) -> Manifest:
            return lake.datasets.manifest(name)

        def shard(self, name: str, number: int) -> Any:
            yield lake.datasets.open_shard(name, number).read()

    export_pulled(Remote(), "v1", "nemo", tmp_path / "out", script=Script.TRADITIONAL)
    texts, _ = read_export(tmp_path / "out", "nemo", tmp_path)
    assert all("车" not in text for text in texts.values())


def test_manifests_of_before_are_read(lake: Lake, tmp_path: Path) -> None:
    document = frozen(lake, "v1").model_dump(mode="json")
    del document["script"], document["scripts_as_heard"]
    path = tmp_path / "lake" / "datasets" / "v1" / "manifest.json"
    path.write_text(json.dumps(document), "utf-8")
    folder = Path(export(lake, "v1", "huggingface", tmp_path / "out"))
    assert "| script | as heard |" in (folder / "README.md").read_text("utf-8")
