"""Shards: every field survives, equal rows give equal bytes, memory does not grow with the recording."""

import dataclasses
import io
import json
import math

import datasets
import pyarrow.parquet as pq
import pytest
from lakes import TEACHER, chunk, fact, flac, recording, samples, segment, unflac

from k2d.filtering.evidence import mean_logprob
from k2d.schema import Chunk, Hypothesis, LongformOptions
from k2d.store import facts_shard as facts
from k2d.store import label_shard as labels
from k2d.store import opinions_shard as hypotheses
from k2d.store.parquet import dumps, meta_of, printable

META = {"recording": recording(1, 60.0), "teacher": TEACHER, "options": LongformOptions(), "version": 1}


def label_shard(chunks: list[Chunk], audio: bytes = b"fLaC\x00") -> bytes:
    file = io.BytesIO()
    shard = labels.LabelShard(file, META, name="key")
    for one in chunks:
        shard.write(one, audio)
    shard.close()
    return file.getvalue()


def facts_shard(rows: list[facts.ChunkFacts]) -> bytes:
    file = io.BytesIO()
    facts.write(file, rows, META)
    return file.getvalue()


def test_label_rows_come_back_as_they_were() -> None:
    heard = flac(samples(1.5))
    chunks = [chunk(0, 0.0, 1.5), chunk(1, 1.5, 3.0, " 第二段 ✓")]
    file = pq.ParquetFile(io.BytesIO(label_shard(chunks, heard)))
    assert list(labels.read(file, audio=True)) == [(chunks[0], heard), (chunks[1], heard)]
    assert list(labels.read(file, audio=False)) == [(chunks[0], None), (chunks[1], None)]


def test_equal_rows_give_equal_bytes() -> None:
    chunks = [chunk(i, i * 2.0, i * 2.0 + 2.0) for i in range(70)]
    assert label_shard(chunks) == label_shard(chunks)
    rows = [fact("key", "rec_1", one) for one in chunks]
    assert facts_shard(rows) == facts_shard(rows)


def test_row_groups_hold_32_chunks_and_audio_is_stored_as_it_is() -> None:
    file = pq.ParquetFile(io.BytesIO(label_shard([chunk(i, i * 2.0, i * 2.0 + 2.0) for i in range(70)])))
    assert [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)] == [32, 32, 6]
    columns = {
        column.path_in_schema: column.compression
        for column in (file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns))
    }
    assert columns.pop("audio.bytes") == "UNCOMPRESSED"
    assert set(columns.values()) == {"ZSTD"}


def test_only_the_row_groups_that_are_needed_are_read() -> None:
    data = bytearray(label_shard([chunk(i, i * 2.0, i * 2.0 + 2.0) for i in range(70)]))
    file = pq.ParquetFile(io.BytesIO(bytes(data)))
    first, last = (file.metadata.row_group(i).column(0).data_page_offset for i in (0, 2))
    data[first : first + 400] = b"\xff" * 400  # the first row group is no longer readable
    assert last > first + 400
    damaged = pq.ParquetFile(io.BytesIO(bytes(data)))
    assert [one.index for one, _ in labels.read(damaged, audio=True, only=frozenset({66, 69}))] == [66, 69]
    with pytest.raises((OSError, ValueError)):
        list(labels.read(damaged, audio=True, only=frozenset({3})))


def test_chunks_out_of_order_are_refused() -> None:
    shard = labels.LabelShard(io.BytesIO(), META, name="key")
    shard.write(chunk(1, 0.0, 1.0), b"")
    with pytest.raises(ValueError, match="in order"):
        shard.write(chunk(1, 1.0, 2.0), b"")


def test_metadata_tells_where_labels_come_from() -> None:
    schema = pq.ParquetFile(io.BytesIO(label_shard([]))).schema_arrow
    meta = meta_of(schema)
    assert meta["recording"] == dataclasses.asdict(META["recording"])
    assert meta["teacher"]["digest"] == TEACHER.digest
    assert meta["options"]["decode"]["language"] == "zh-en"


def test_datasets_sees_audio(tmp_path) -> None:
    heard = samples(1.5, seed=7)
    (tmp_path / "labels.parquet").write_bytes(label_shard([chunk(0, 0.0, 1.5)], flac(heard)))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "labels.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded.features["audio"], datasets.Audio)
    assert loaded.features["audio"].sampling_rate == 16_000
    row = loaded.cast_column("audio", datasets.Audio(decode=False))[0]
    assert (unflac(row["audio"]["bytes"]) == heard).all()
    assert row["segments"][0]["tokens"] == [50364, 100, 200]


def test_facts_come_back_as_they_were() -> None:
    rows = [fact("key", "rec_1", chunk(i, i * 2.0, i * 2.0 + 1.999), (3, 2, 1, i)) for i in range(3)]
    phrase = dataclasses.replace(rows[0].evidence, is_phrase=True)
    distances = dataclasses.replace(rows[0].distances, phrase="字幕由amara.org社区提供")
    rows.append(dataclasses.replace(rows[0], id="key-00009", index=9, distances=distances, evidence=phrase))
    table = pq.read_table(io.BytesIO(facts_shard(rows)))
    assert facts.facts(table) == rows
    assert table["is_phrase"].to_pylist() == [False, False, False, True]
    assert table["duration_s"].to_pylist()[:3] == [1.999] * 3
    assert table["mer_insertions"].to_pylist()[:3] == [0, 1, 2]


def test_opinions_come_back_as_they_were_in_equal_bytes() -> None:
    said = {
        0: (Hypothesis("model:a", "as is", "我們 ✓", -0.123456, (-0.1, -2.5)), Hypothesis("model:a", "again", "", 0.0)),
        7: (Hypothesis("probe:0123456789abcdef", "as is", "w o m en", -0.5, (-1.0,), True),),
        8: (),
    }
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        hypotheses.write(file, said.items(), META)
    assert files[0].getvalue() == files[1].getvalue()
    table = pq.read_table(files[0])
    assert hypotheses.hypotheses(table) == said
    assert meta_of(table.schema)["version"] == 1


def test_a_recording_of_silence_has_a_shard_too() -> None:
    assert facts.facts(pq.read_table(io.BytesIO(facts_shard([])))) == []
    assert list(labels.read(pq.ParquetFile(io.BytesIO(label_shard([]))), audio=True)) == []


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
