"""A batch's labels as files."""

import csv
import io

import pytest
from factories import finished_batch

from k2d.corpus.transcripts import chunk_table, file_name, subtitle_files
from k2d.documents import ChunkFilter
from k2d.errors import BadRequest
from k2d.filtering.policy import PAPER
from k2d.schema import Status
from k2d.store import Lake


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path / "lake"))


def rows_of(lake, batch, **where):
    table = b"".join(chunk_table(lake, batch, PAPER, ChunkFilter(**where))).decode()
    return list(csv.DictReader(io.StringIO(table, newline="")))


def test_every_recording_has_its_subtitles(lake):
    batch = finished_batch(lake, names=["a/talk.wav", "a/talk.wav"])
    files = dict(subtitle_files(lake, batch, "srt"))
    assert len(files) == 2
    assert {"a/talk.wav.srt"} < set(files)
    assert all("今天這堂課我們先來 review 一下" in content.decode() for content in files.values())
    assert next(iter(dict(subtitle_files(lake, batch, "vtt")).values())).startswith(b"WEBVTT")
    with pytest.raises(BadRequest):
        subtitle_files(lake, batch, "exe")


def test_rejected_chunks_are_a_table(lake):
    batch = finished_batch(lake)
    rejected = rows_of(lake, batch, verdict=Status.REJECTED)
    assert 0 < len(rejected) < len(rows_of(lake, batch))
    assert {row["verdict"] for row in rejected} == {"rejected"}


def test_a_text_is_no_formula_of_a_spreadsheet(lake):
    batch = finished_batch(lake, texts=[("=HYPERLINK(1)", "@x"), ('a, "b"\nc', "a")])
    assert [(row["text"], row["hypothesis"]) for row in rows_of(lake, batch)][:2] == [
        ("'=HYPERLINK(1)", "'@x"),
        ('a, "b"\nc', "a"),
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/a//b.wav", "a/b.wav"),
        ("..\\b.wav", "b.wav"),
        ("a\nb", "a_b"),
        ("..", "unnamed"),
    ],
)
def test_names_stay_in_the_archive(name, path):
    assert file_name(name) == path
