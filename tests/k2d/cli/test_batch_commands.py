"""Commands about batches: what one prints works in the next, and nothing is left unsaid."""

import csv
import io
import json

import pytest
from factories import TEACHER, VALIDATOR, finished_batch

from k2d.documents import BatchOptions
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings


@pytest.fixture
def folders(lake):
    """A batch whose recordings lie in folders; two have the same base name."""
    names = ("in/monday/talk.wav", "in/tuesday/talk.wav", "in/tuesday/a very long name of a recording, part 12.wav")
    return finished_batch(lake, name="week", recordings=3, names=names)


@pytest.mark.parametrize(
    ("asked", "recording"),
    [
        ("in/monday/talk.wav", "in/monday/talk.wav"),
        ("monday/talk.wav", "in/monday/talk.wav"),
        ("./in/tuesday/talk.wav", "in/tuesday/talk.wav"),
        ("/home/somebody/in/tuesday/talk.wav", "in/tuesday/talk.wav"),
        ("a very long name of a recording, part 12.wav", "in/tuesday/a very long name of a recording, part 12.wav"),
    ],
)
def test_a_recording_is_named_by_the_end_of_its_path(k2d, folders, asked, recording):
    code, out, _ = k2d("chunks", "week", "--recording", asked, "--jsonl")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 4
    assert {row["recording"] for row in rows} == {recording}


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ("talk.wav", ("2 recordings", "in/monday/talk.wav, in/tuesday/talk.wav", "more of the path")),
        ("alk.wav", ("no recording", "alk.wav", "in/monday/talk.wav")),
        ("friday/talk.wav", ("no recording", "in/monday/talk.wav")),
        ("", ("no recording",)),
    ],
)
def test_a_recording_that_is_ambiguous_or_unknown_is_an_error(k2d, folders, asked, parts):
    code, out, err = k2d("chunks", "week", "--recording", asked)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err


def test_the_table_tells_recordings_apart_and_a_chunk_says_where_it_is_from(k2d, folders):
    code, out, _ = k2d("chunks", "week")
    assert code == 0
    for source in folders.sources:
        if source.name != "z-broken.mp3":
            assert source.name in out.replace("\n", " ")
    row = json.loads(k2d("chunks", "week", "--jsonl")[1].splitlines()[0])
    out = k2d("chunks", "--id", row["id"])[1]
    assert f"recording {row['recording']}, batch week" in out


def test_no_chunk_is_a_sentence(k2d, lake, batch):
    assert "has no such chunks" in k2d("chunks", "lectures", "--text", "nobody says this")[1]
    assert "has no such chunks" in k2d("chunks", "lectures", "--recording", "z-broken.mp3")[1]
    stalled(lake)
    assert "has no chunks" in k2d("chunks", "stalled")[1]


def stalled(lake):
    """A batch of which nothing is done."""
    options = BatchOptions(name="stalled", teacher=TEACHER.reference, validator=VALIDATOR.reference)
    batch = make_batch(
        [Source("a.wav", "lake://uploads/a", "a"), Source("b.wav", "lake://uploads/b", "b")],
        options,
        Settings(_env_file=None),
    )
    lake.batches.put(batch)
    return batch


def test_a_stalled_batch_says_how_far_it_is_and_what_to_do(k2d, lake, batch):
    assert "done, 3 of 3 recordings" in k2d("status", "lectures")[1]
    stalled(lake)
    out = k2d("status", "stalled")[1]
    assert "stalled, 0 of 2 recordings" in out
    assert "k2d resume" in out
    assert "100%" not in out  # of nothing
    assert "not done" in out
    lake.batches.delete_result(batch.id, 0)
    assert "stalled, 2 of 3 recordings" in k2d("status", "lectures")[1]
    code, _, err = k2d("freeze", "v1", "--batch", "lectures")
    assert code == 2
    assert "1 unfinished recording" in err
    assert "k2d resume" in err
    assert "k2d cancel" in err


def test_cancel_needs_no_api(k2d, lake, batch):
    lake.batches.delete_result(batch.id, 0)
    code, out, _ = k2d("cancel", "lectures")
    assert (code, out.split(";")[0]) == (0, "state: cancelled")
    assert "k2d retry lectures" in out  # what goes on with it
    assert "k2d retry lectures" in k2d("status", "lectures")[1]
    assert "nothing is missing" in k2d("resume")[1]
    assert k2d("freeze", "v1", "--batch", "lectures")[0] == 0


def test_duplicates_are_counted_in_status_and_freeze(k2d, lake):
    batch = finished_batch(lake)
    assert "duplicate" not in k2d("status", "lectures")[1]
    first = lake.batches.result(batch.id, 0)
    second = lake.batches.result(batch.id, 1)
    from dataclasses import replace

    lake.batches.put_result(batch.id, replace(first, position=1, name=second.name))
    assert "1 duplicate counted here" in k2d("status", "lectures")[1]
    code, out, _ = k2d("freeze", "v1", "--batch", "lectures")
    assert code == 0
    assert "1 duplicate left out" in out


def test_chunks_and_subtitles_are_files(k2d, batch, lake, tmp_path):
    code, out, _ = k2d("chunks", "lectures", "--verdict", "rejected", "--csv", "--audio", tmp_path / "clips")
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert code == 0
    assert {row["verdict"] for row in rows} == {"rejected"}
    assert {path.name for path in (tmp_path / "clips").iterdir()} == {f"{row['chunk']}.flac" for row in rows}
    assert (tmp_path / "clips" / f"{rows[0]['chunk']}.flac").read_bytes() == lake.chunk_audio(rows[0]["chunk"])
    assert "2 files" in k2d("subtitles", "lectures", tmp_path / "texts", "--format", "vtt")[1]
    assert all(path.read_text().startswith("WEBVTT") for path in (tmp_path / "texts").rglob("*.vtt"))
    code, _, err = k2d("subtitles", "lectures", tmp_path / "texts", "--format", "exe")
    assert (code, "srt, vtt" in err) == (2, True)


def test_a_status_shows_every_option_the_batch_is_labeled_with(k2d, lake):
    options = BatchOptions(
        name="calls", teacher="openai/whisper-large-v2", validator="openai/whisper-base", language="zh", beam_size=3,
        rescore=False, vad=True, condition_on_previous_text=True, channels="each", keep_partial=True,
        terms=", ".join(f"term {n}" for n in range(12)),
    )  # fmt: skip
    lake.batches.put(make_batch([Source("a.wav", "lake://uploads/a", "a")], options, Settings(_env_file=None)))
    code, out, _ = k2d("status", "calls")
    assert code == 0
    assert "teacher openai/whisper-large-v2, validator openai/whisper-base, language zh\n" in out
    assert (
        "beam_size 3, rescore no, vad yes, condition_on_previous_text yes, channels each, keep_partial yes; "
        "terms term 0, term 1, term 2, term 3, term 4, term 5, term 6, term 7, term 8, term 9 and 2 more\n"
    ) in out
    document = json.loads(k2d("status", "calls", "--json")[1])
    shown = {"name", "teacher", "validator", "language", "terms"} | set(document["options"])
    assert shown == set(BatchOptions.model_fields)  # an option that is added is shown
