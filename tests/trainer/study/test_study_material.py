"""What can be studied: clips, parts of files, long recordings with a timeline. All else is skipped, with the reason."""

import json

import numpy as np
import pytest

from k2d import audio
from k2d.errors import BadRequest
from k2d.settings import Settings
from trainer.study.material import Sentence, gather


@pytest.fixture
def gathered(tmp_path):
    """Write tones and a manifest of these rows; gather it."""
    seconds = {"short.flac": 2.0, "long.flac": 31.0}
    for name, length_s in seconds.items():
        samples = (8000 * np.sin(np.arange(round(length_s * 16_000)) / 20)).astype(np.int16)
        (tmp_path / name).write_bytes(audio.encode_flac(samples))

    def gather_rows(*rows, times=1, limit=None):
        path = tmp_path / "set.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        settings = Settings(_env_file=None, store=str(tmp_path / "lake"))
        return gather([str(path)] * times, settings, split="test", limit=limit, folder=tmp_path)

    return gather_rows


def timeline(folder, value):
    (folder / "timeline.json").write_text(json.dumps(value), "utf-8")


def test_clips_are_taken_where_they_are(gathered, tmp_path):
    (one,), skipped = gathered({"audio": "short.flac", "text": "二 apples", "text_spoken": "兩 apples", "base_id": "b"})
    assert skipped == {}
    assert one.path == tmp_path / "short.flac"
    assert (one.reference.texts, one.reference.recording, one.timeline) == (("二 apples", "兩 apples"), "b", None)


def test_a_part_of_a_file_becomes_a_file(gathered):
    (one,), _ = gathered({"audio_filepath": "short.flac", "offset": 0.5, "duration": 1.0, "text": "x"})
    assert one.path.name != "short.flac"
    assert audio.examine(one.path, min_s=0.1, max_s=9, silence_peak=0.0).duration_s == 1.0


def test_long_recordings_need_a_timeline(gathered, tmp_path):
    timeline(
        tmp_path,
        {
            "segments": [
                {"start": 0, "end": 3.5, "text": "", "kind": "music"},
                {"start": 3.5, "end": 9.0, "text": "有 2 個", "text_spoken": "有兩個"},
            ]
        },
    )
    rows = (
        {"id": "timed", "audio": "long.flac", "text": "有 2 個", "timeline": "timeline.json"},
        {"id": "untimed", "audio": "long.flac", "text": "有 2 個"},
        {"id": "music", "audio": "long.flac", "text": ""},
    )
    material, skipped = gathered(*rows)
    assert {one.reference.name: one.timeline for one in material} == {
        "timed": (Sentence(3.5, 9.0, ("有 2 個", "有兩個")),),
        "music": (),
    }
    assert skipped == {"set: untimed": "longer than 30 s, without a timeline of its sentences"}


def test_what_cannot_be_studied_is_skipped(gathered):
    rows = (
        {"audio": "short.flac", "text": "none"},
        {"audio": "gone.flac", "text": "x"},
        {"id": "behind", "audio": "short.flac", "offset": 5.0, "duration": 1.0, "text": "x"},
    )
    material, skipped = gathered(*rows)
    assert material == []
    assert list(skipped.values()) == [
        "no reference",
        "no such file",
        "no samples where the set says the utterance is",
    ]


def test_mistakes_are_named(gathered, tmp_path):
    with pytest.raises(BadRequest, match="two utterances are called"):
        gathered({"audio": "short.flac", "text": "x"}, times=2)
    timeline(tmp_path, {"parts": []})
    with pytest.raises(BadRequest, match=r"timeline\.json is not a timeline"):
        gathered({"audio": "long.flac", "text": "x", "timeline": "timeline.json"})
