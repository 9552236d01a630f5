"""Shards: every field survives, equal rows give equal bytes, memory does not grow with the recording."""

import dataclasses
import json
import math
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakes import TEACHER, audio_path, chunk, fact, flac, recording, samples, segment, unflac

from k2d.errors import DamagedFile, NotFound, StoreError
from k2d.filtering.evidence import mean_logprob
from k2d.schema import Chunk, ChunkFacts, Hypothesis, LongformOptions, NoLabel, Versions
from k2d.store import Lake, facts
from k2d.store.parquet import dumps, printable

META = {"recording": recording(1, 60.0), "teacher": TEACHER, "options": LongformOptions(), "version": 1}
KEY = "ab12"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def put_labels(lake: Lake, chunks: list[Chunk], audio: bytes = b"fLaC\x00", key: str = KEY) -> Path:
    with lake.labels.writer(key, META) as writer:
        for each in chunks:
            writer.write(each, audio)
        writer.add_meta({"no_label": NoLabel(1, 2, 3)})
    return audio_path(lake, f"labels/{key[:2]}/{key}.parquet")


def put_facts(lake: Lake, rows: list[ChunkFacts], key: str = KEY) -> Path:
    lake.facts.write(key, rows, META)
    return audio_path(lake, f"facts/{key[:2]}/{key}.parquet")


def chunks_of(count: int) -> list[Chunk]:
    return [chunk(i, i * 2.0, i * 2.0 + 2.0) for i in range(count)]


# ---- labels -------------------------------------------------------------------------------------------------------


def test_label_rows_come_back_as_they_were(lake: Lake) -> None:
    audio = flac(samples(1.5))
    chunks = [chunk(0, 0.0, 1.5), chunk(1, 1.5, 3.0, " 第二段 ✓")]
    put_labels(lake, chunks, audio)
    assert list(lake.labels.read(KEY, audio=True)) == [(chunks[0], audio), (chunks[1], audio)]
    assert list(lake.labels.read(KEY)) == [(chunks[0], None), (chunks[1], None)]


def test_equal_rows_give_equal_bytes(lake: Lake) -> None:
    chunks = chunks_of(70)
    first = put_labels(lake, chunks).read_bytes()
    assert put_labels(lake, chunks).read_bytes() == first
    rows = [fact("key", "rec_1", each) for each in chunks]
    first = put_facts(lake, rows).read_bytes()
    assert put_facts(lake, rows).read_bytes() == first


def test_row_groups_hold_32_chunks_and_audio_is_stored_as_it_is(lake: Lake) -> None:
    with pq.ParquetFile(put_labels(lake, chunks_of(70))) as file:
        metadata = file.metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [32, 32, 6]
    columns = {
        column.path_in_schema: column.compression
        for column in (metadata.row_group(0).column(i) for i in range(metadata.num_columns))
    }
    assert columns.pop("audio.bytes") == "UNCOMPRESSED"
    assert set(columns.values()) == {"ZSTD"}


def test_only_the_row_groups_that_are_needed_are_read(lake: Lake) -> None:
    path = put_labels(lake, chunks_of(70))
    with pq.ParquetFile(path) as file:
        first, last = (file.metadata.row_group(i).column(0).data_page_offset for i in (0, 2))
    data = bytearray(path.read_bytes())
    data[first : first + 400] = b"\xff" * 400  # the first row group is no longer readable
    assert last > first + 400
    path.write_bytes(data)
    wanted = lake.labels.read(KEY, audio=True, only=frozenset({66, 69}))
    assert [each.index for each, _ in wanted] == [66, 69]
    with pytest.raises(StoreError, match="damaged"):
        list(lake.labels.read(KEY, audio=True, only=frozenset({3})))


@pytest.mark.parametrize("flipped", [0x01, 0x80, 0xFF])
def test_a_changed_byte_is_noticed_or_changes_nothing_that_is_read(lake: Lake, flipped: int) -> None:
    path = put_labels(lake, chunks_of(3), flac(samples(0.2)))

    def read() -> object:
        return list(lake.labels.read(KEY, audio=True)), lake.labels.meta(KEY)

    data, written, noticed = path.read_bytes(), read(), 0
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ flipped]) + data[at + 1 :])
        try:
            assert read() == written, f"byte {at} of {len(data)}"
        except DamagedFile:
            noticed += 1
    assert noticed > len(data) / 11 / 2


def test_chunks_out_of_order_are_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="in order"):
        put_labels(lake, [chunk(1, 0.0, 1.0), chunk(1, 1.0, 2.0)])
    assert not lake.labels.has(KEY)


def test_metadata_tells_where_labels_come_from(lake: Lake) -> None:
    put_labels(lake, [])
    assert lake.provenance(KEY, "gone") == (Versions(label=1), NoLabel(1, 2, 3))
    meta = lake.labels.meta(KEY)
    assert meta["recording"] == json.loads(json.dumps(dataclasses.asdict(META["recording"])))
    assert meta["teacher"]["digest"] == TEACHER.digest
    assert meta["options"]["decode"]["language"] == "zh-en"
    assert meta["label_key"] == KEY


def test_datasets_sees_audio(lake: Lake, tmp_path: Path) -> None:
    noise = samples(1.5, seed=7)
    path = put_labels(lake, [chunk(0, 0.0, 1.5)], flac(noise))
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["audio"], datasets.Audio)
    assert loaded.features["audio"].sampling_rate == 16_000
    row = loaded.cast_column("audio", datasets.Audio(decode=False))[0]
    assert (unflac(row["audio"]["bytes"]) == noise).all()
    assert row["segments"][0]["tokens"] == [50364, 100, 200]


def test_a_recording_of_silence_has_shards_too(lake: Lake) -> None:
    put_facts(lake, [])
    put_labels(lake, [])
    assert lake.facts.read(KEY) == []
    assert list(lake.labels.read(KEY, audio=True)) == []


# ---- facts and hypotheses -----------------------------------------------------------------------------------------


def some_facts() -> list[ChunkFacts]:
    rows = [fact("key", "rec_1", chunk(i, i * 2.0, i * 2.0 + 1.999), (3, 2, 1, i)) for i in range(3)]
    phrase = dataclasses.replace(rows[0].evidence, is_phrase=True, probe_nll=0.5, hypothesis_repetition=7)
    distances = dataclasses.replace(rows[0].distances, phrase="字幕由amara.org社区提供")
    return [*rows, dataclasses.replace(rows[0], id="key-00009", index=9, distances=distances, evidence=phrase)]


def test_facts_come_back_as_they_were(lake: Lake) -> None:
    rows = some_facts()
    put_facts(lake, rows)
    assert lake.facts.read(KEY) == rows
    table, meta = lake.facts.shard(KEY)
    assert table.schema.names == facts.SCHEMA.names
    assert table["is_phrase"].to_pylist() == [False, False, False, True]
    assert table["duration_s"].to_pylist()[:3] == [1.999] * 3
    assert table["mer_insertions"].to_pylist()[:3] == [0, 1, 2]
    assert meta["teacher"]["digest"] == TEACHER.digest
    assert lake.facts.is_current(KEY)


def test_hypotheses_come_back_as_they_were_in_equal_bytes(lake: Lake) -> None:
    written = {
        0: (Hypothesis("model:a", "as is", "我們 ✓", -0.123456, (-0.1, -2.5)), Hypothesis("model:a", "again", "", 0.0)),
        7: (Hypothesis("probe:0123456789abcdef", "as is", "w o m en", -0.5, (-1.0,), True, (0.25,)),),
        8: (),
    }
    contents = []
    for _ in range(2):
        lake.hypotheses.write(KEY, written.items(), META)
        contents.append(audio_path(lake, f"hypotheses/ab/{KEY}.parquet").read_bytes())
    assert contents[0] == contents[1]
    assert lake.hypotheses.read(KEY) == written
    assert lake.hypotheses.meta(KEY)["version"] == 1


# ---- shards of version 0.1 ----------------------------------------------------------------------------------------

EARLIER_EVIDENCE = {
    "phonemes": "units",
    "forced_logprob": "score",
    "expected_token_error": "doubt",
    "probe_nll": "unsounded",
    "hypothesis_repetition": "opinion_repetition",
}
EARLIER_COLUMNS = {"validators": "validator", "perturbations": "views", "hypotheses": "opinions", **EARLIER_EVIDENCE}
EARLIER_HYPOTHESIS = {
    "validator": "listener",
    "perturbation": "view",
    "forced_logprobs": "scores",
    "expected_token_errors": "doubts",
}


def renamed(table: pa.Table, names: dict[str, str], members: dict[str, dict[str, str]]) -> pa.Table:
    """A table with other names of its columns, and of the members of its lists of structs."""
    fields = []
    for field in table.schema:
        kind = field.type
        if field.name in members:
            kind = pa.list_(
                pa.struct([(members[field.name].get(one.name, one.name), one.type) for one in kind.value_type])
            )
        fields.append((names.get(field.name, field.name), kind))
    rows = [
        {
            names.get(name, name): (
                [{members[name].get(key, key): value for key, value in one.items()} for one in column]
                if name in members
                else column
            )
            for name, column in row.items()
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields, metadata=table.schema.metadata))


def as_version_0_1(path: Path) -> None:
    """Give a facts shard the names that version 0.1 gave the same columns."""
    members = {"segment_evidence": EARLIER_EVIDENCE, "hypotheses": EARLIER_HYPOTHESIS}
    pq.write_table(renamed(pq.ParquetFile(path).read(), EARLIER_COLUMNS, members), path)


def test_facts_under_the_names_of_version_0_1_are_read(lake: Lake) -> None:
    rows = some_facts()
    path = put_facts(lake, rows)
    expected, _ = lake.facts.shard(KEY)
    as_version_0_1(path)
    assert "units" in pq.read_schema(path).names
    assert lake.facts.is_current(KEY)
    assert lake.facts.read(KEY) == rows
    table, meta = lake.facts.shard(KEY)
    assert table.drop_columns(["hypotheses"]).equals(expected.drop_columns(["hypotheses"]))
    assert meta["teacher"]["digest"] == TEACHER.digest
    some, _ = lake.facts.shard(KEY, ["phonemes", "id", "segment_evidence"])
    assert some.equals(expected.select(["phonemes", "id", "segment_evidence"]))


def test_hypotheses_under_the_names_and_in_the_folder_of_version_0_1_are_read(lake: Lake) -> None:
    written = {3: (Hypothesis("model:a", "as is", "我們", -0.5, (-0.1, -2.5), False, (0.1, 0.9)),)}
    lake.hypotheses.write(KEY, written.items(), META)
    path = audio_path(lake, f"hypotheses/ab/{KEY}.parquet")
    table = renamed(pq.ParquetFile(path).read(), {"hypotheses": "opinions"}, {"hypotheses": EARLIER_HYPOTHESIS})
    earlier = audio_path(lake, f"opinions/ab/{KEY}.parquet")
    earlier.parent.mkdir(parents=True)
    pq.write_table(table, earlier)
    path.unlink()
    fresh = Lake(lake.files.root)
    assert fresh.hypotheses.has(KEY)
    assert fresh.hypotheses.read(KEY) == written
    assert fresh.hypotheses.meta(KEY)["version"] == 1


@pytest.mark.parametrize("column", ["other_tokens", "phonemes", "validators", "segment_evidence"])
def test_facts_without_a_column_of_this_version_count_as_missing(lake: Lake, column: str) -> None:
    path = put_facts(lake, some_facts())
    pq.write_table(pq.ParquetFile(path).read().drop_columns([column]), path)
    assert lake.facts.has(KEY)
    assert not lake.facts.is_current(KEY)
    with pytest.raises(NotFound, match=f"no column {column}") as caught:
        lake.facts.read(KEY)
    assert "resume" in (caught.value.hint or "")
    assert lake.facts.shard(KEY, ["id"])[0].num_rows == 4  # what is there can be read


# ---- what every shard rests on ------------------------------------------------------------------------------------


def test_signals_are_weighted_by_what_is_said() -> None:
    long = dataclasses.replace(segment(0.0, 1.0), tokens=(1,) * 30, avg_logprob=-0.1)
    short = dataclasses.replace(segment(1.0, 9.0), tokens=(1,) * 10, avg_logprob=-0.9)
    assert mean_logprob([long, short]) == pytest.approx(-0.3)
    # without tokens: 3 bytes of UTF-8 count as one
    assert mean_logprob(
        [
            dataclasses.replace(long, tokens=(), text="我" * 30),
            dataclasses.replace(short, tokens=(), text="我" * 10),
        ]
    ) == pytest.approx(-0.3)
    spoken = [dataclasses.replace(long, language="en"), dataclasses.replace(short, language="zh")]
    assert facts.main_language(spoken) == "zh"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_never_holds_what_json_cannot_say(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps({"value": value})


def test_names_that_are_not_utf8_are_spelled_out() -> None:
    name = b"talk-\xff.wav".decode("utf-8", "surrogateescape")
    assert json.loads(dumps({"name": name})) == {"name": "talk-\\udcff.wav"}
    assert printable(name) == "talk-\\udcff.wav"
    printable("我們 🎙").encode()
