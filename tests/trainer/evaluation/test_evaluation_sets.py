"""Evaluation sets in their published schemas: small files of each kind, real audio; what is damaged is named."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from frozen_sets import NAME, frozen
from places import EXAMPLES

from k2d.audio import SampleReader
from k2d.errors import AudioError, BadRequest, NotFound
from k2d.schema import SAMPLE_RATE_HZ
from k2d.settings import load
from trainer.evaluation.sets import open_set
from trainer.evaluation.utterances import EvaluationSet

CLIP, TEXT, SECONDS = EXAMPLES / "cs-clean-1.flac", "今天這堂課我們先來 review 一下上禮拜的內容", 7.288
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
HELD = {"bytes": CLIP.read_bytes(), "path": "clip.flac"}


def opened(reference: object, **options: str) -> EvaluationSet:
    return open_set(str(reference), load(store="/nowhere", allow_downloads=False), **options)


def seconds(found: EvaluationSet) -> list[float]:
    """The length of each utterance's audio, read to its end."""
    lengths = []
    for utterance in found.utterances():
        with utterance.open() as reader:
            lengths.append(len(reader.read(0, 60 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)
    return lengths


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def parquet(path: Path, rows: list[dict], **types: pa.DataType) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.array([row[name] for row in rows], type=types.get(name)) for name in rows[0]}
    pq.write_table(pa.table(columns), path)
    return path


def test_the_sample_folder() -> None:
    found = opened(EXAMPLES)
    assert found.name == "examples/audio"
    references = {reference.name: reference for reference in found.references()}
    assert list(references) == [utterance.reference.name for utterance in found.utterances()]
    assert references["no-speech.flac"].texts == ("",)
    assert references["no-speech.flac"].language == "none"
    assert len(references["cs-clean-2.flac"].texts) == 2  # as written and as spoken
    assert len(references["cs-clean-1.flac"].texts) == 1  # both are the same


def test_a_nemo_manifest_with_offsets(tmp_path: Path) -> None:
    shutil.copy(CLIP, tmp_path / "a.flac")
    rows = [
        {"audio_filepath": "a.flac", "duration": SECONDS, "text": TEXT, "lang": "zh-en"},
        {"audio_filepath": "a.flac", "offset": 1.5, "duration": 2.0, "text": "我們"},
        {"audio_filepath": str(CLIP), "offset": 6.0, "duration": 9.0, "text": "the rest", "id": "tail"},
        {"audio_filepath": str(CLIP), "text": None, "id": "unknown"},
        {"audio_filepath": str(CLIP), "text": "none", "id": "untrusted"},
        "",
    ]
    found = opened(jsonl(tmp_path / "test.jsonl", *rows))
    references = list(found.references())
    assert [reference.name for reference in references] == ["a.flac", "a.flac@1.500", "tail", "unknown", "untrusted"]
    assert [reference.language for reference in references] == ["zh-en", "zh", "en", "none", "none"]
    assert [reference.recording for reference in references[:2]] == ["a.flac", "a.flac"]  # bands keep them together
    assert [len(reference.texts) for reference in references] == [1, 1, 1, 0, 0]
    assert seconds(found) == pytest.approx([SECONDS, 2.0, SECONDS - 6.0, SECONDS, SECONDS], abs=0.01)
    with SampleReader(CLIP) as whole, list(found.utterances())[1].open() as part:
        assert (whole.read(24_000, 56_000) == part.read(0, 99_999)).all()


def test_ntuml2021(tmp_path: Path) -> None:
    rows = [{"audio": HELD, "transcription": TEXT, "translation": "today", "file": "ML2021"} for _ in range(3)]
    parquet(tmp_path / "data" / "test-00000-of-00002-77b9.parquet", rows[:2], audio=AUDIO)
    parquet(tmp_path / "data" / "test-00001-of-00002-77b9.parquet", rows[2:], audio=AUDIO)
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows, audio=AUDIO)
    found = opened(tmp_path)
    assert found.kind == "NTUML2021"
    references = list(found.references())
    assert len({reference.name for reference in references}) == 3  # `file` is no name: rows are numbered
    assert references[0].texts == (TEXT,)
    assert references[0].language == "zh-en"
    assert seconds(found) == pytest.approx([SECONDS] * 3, abs=0.01)
    with pytest.raises(BadRequest, match="only test, train"):
        opened(tmp_path, split="dev")


def test_ascend(tmp_path: Path) -> None:
    row = {"path": "x.wav", "audio": HELD, "duration": 5.49, "original_speaker_id": 3, "session_id": 2, "topic": "arts"}
    rows = [
        {"id": "00644", **row, "transcription": TEXT, "language": "mixed"},
        {"id": "00645", **row, "transcription": "好", "language": "zh"},
    ]
    found = opened(parquet(tmp_path / "main" / "test-00000-of-00001.parquet", rows, audio=AUDIO).parents[1])
    assert found.kind == "ASCEND"
    assert [(reference.name, reference.language) for reference in found.references()] == [
        ("00644", "zh-en"),
        ("00645", "zh"),
    ]


def test_cszs(tmp_path: Path) -> None:
    row = {"correct_audio": HELD, "correct_transcription": TEXT, "correct_file": "a"}
    row |= {"wrong_audio": {"bytes": b"not read", "path": ""}, "wrong_transcription": "x", "wrong_file": "b"}
    found = opened(
        parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row], correct_audio=AUDIO, wrong_audio=AUDIO).parent
    )
    assert found.kind == "CSZS"
    assert [reference.texts for reference in found.references()] == [(TEXT,)]
    assert seconds(found) == pytest.approx([SECONDS], abs=0.01)


def test_common_voice_as_released(tmp_path: Path) -> None:
    folder = tmp_path / "zh-TW"
    (folder / "clips").mkdir(parents=True)
    shutil.copy(EXAMPLES / "cs-clean-3.mp3", folder / "clips" / "common_voice_zh-TW_1.mp3")
    header = [
        "client_id",
        "path",
        "sentence",
        "up_votes",
        "down_votes",
        "age",
        "gender",
        "accents",
        "variant",
        "locale",
        "segment",
    ]
    row = ["c1", "common_voice_zh-TW_1.mp3", '他說"好"', "2", "0", "", "", "", "", "zh-TW", ""]
    lines = "\n".join("\t".join(line) for line in (header, row)) + "\n"
    (folder / "test.tsv").write_text(lines, "utf-8")
    for reference in (folder, folder / "test.tsv"):
        found = opened(reference)
        assert found.kind == "Common Voice"
        assert [(reference.name, reference.language, reference.texts) for reference in found.references()] == [
            ("common_voice_zh-TW_1.mp3", "zh", ('他說"好"',))  # quotes are text, not syntax
        ]
        assert seconds(found) == pytest.approx([5.621], abs=0.1)
    (folder / "dev.tsv").write_text("path\ttext\n", "utf-8")
    with pytest.raises(BadRequest, match="no column sentence"):
        list(opened(folder, split="dev").references())


def test_what_an_editor_does_to_a_list_changes_nothing(tmp_path: Path) -> None:
    said = "今天\u2028好\u0085的"
    text = json.dumps({"audio": str(CLIP), "text": said}, ensure_ascii=False)
    (tmp_path / "mine.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{text}\r\n{text}\r\n".encode())
    assert [reference.texts for reference in opened(tmp_path / "mine.jsonl").references()] == [(said,)] * 2
    columns, row = "path\tsentence\tlocale", f"clip.flac\t{said}\tzh-TW"
    (tmp_path / "clips").mkdir()
    (tmp_path / "test.tsv").write_bytes(b"\xef\xbb\xbf" + f"{columns}\r\n{row}\r\n".encode())
    assert [reference.texts for reference in opened(tmp_path / "test.tsv").references()] == [(said,)]


def test_common_voice_as_parquet_with_paths(tmp_path: Path) -> None:
    shutil.copy(CLIP, tmp_path / "a.flac")
    row = {"client_id": "c", "path": "a.mp3", "sentence": "你好", "locale": "zh-TW"}
    row["audio"] = {"bytes": None, "path": "a.flac"}
    found = opened(parquet(tmp_path / "test.parquet", [row], audio=AUDIO))
    assert found.kind == "Common Voice"
    assert next(iter(found.references())).language == "zh"
    assert seconds(found) == pytest.approx([SECONDS], abs=0.01)


@pytest.mark.parametrize("remote", [False, True])
def test_a_frozen_dataset_by_name_and_exported(remote: bool, tmp_path: Path) -> None:
    """Its references are pseudo-labels, and its rows come from few recordings."""
    from k2d.datasets.formats import export
    from k2d.store import Lake

    root = f"memory://evaluation{tmp_path}" if remote else str(tmp_path / "lake")
    lake = Lake(root)
    frozen(lake, recordings=2, rows=3)
    by_name = open_set(NAME, load(store=root))
    export(lake, NAME, "huggingface", tmp_path / "exported")
    for found in (by_name, opened(tmp_path / "exported", split="train")):
        references = list(found.references())
        assert found.kind == "k2d dataset"
        assert found.pseudo_labels
        assert len(references) == 6
        assert len({reference.recording for reference in references}) == 2
    assert seconds(by_name) == pytest.approx([0.2] * 6, abs=0.001)


@pytest.mark.parametrize("reference", ["no-such.jsonl", "./gone", "/gone/test", "no-such-dataset", "ky552/no_such_set"])
def test_what_is_not_there(reference: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_set(reference, load(store=str(tmp_path), cache=tmp_path, allow_downloads=False))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 1"),
        ("[1]", "line 1 names no audio"),
        ({"text": "x"}, "line 1 names no audio"),
        ({"audio": "a.wav", "offset": -1, "text": ""}, "offset"),
        ({"audio": "a.wav", "duration": "long", "text": ""}, "duration"),
    ],
)
def test_damaged_manifests(row: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=message):
        list(opened(jsonl(tmp_path / "bad.jsonl", row)).references())


def test_unknown_schemas(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="its columns are sound, words"):
        opened(parquet(tmp_path / "test.parquet", [{"sound": b"", "words": ""}]))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(BadRequest, match="is not a Parquet file"):
        opened(tmp_path / "broken.parquet")
    (tmp_path / "list.txt").touch()
    with pytest.raises(BadRequest, match="is not known"):
        opened(tmp_path / "list.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRequest, match=r"no manifest\.jsonl"):
        opened(tmp_path / "empty")


def test_a_parquet_file_that_breaks_off(tmp_path: Path) -> None:
    rows = [{"audio": HELD, "text": str(number)} for number in range(3)]
    path = parquet(tmp_path / "test.parquet", rows, audio=AUDIO)
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(2000) + data[2004:])  # the footer stays
    with pytest.raises(BadRequest, match="cannot be read after row 0"):
        list(opened(path).utterances())


@pytest.mark.parametrize("value", [{"bytes": b"no audio", "path": None}, {"bytes": None, "path": "gone.flac"}])
def test_audio_that_is_none_is_found_when_it_is_read(value: dict, tmp_path: Path) -> None:
    found = opened(parquet(tmp_path / "test.parquet", [{"audio": value, "text": "x"}], audio=AUDIO))
    with pytest.raises(AudioError):
        seconds(found)
