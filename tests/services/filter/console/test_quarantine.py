"""Reasons and details of quarantined recordings in the reader's language; details are those of real files."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from factories import finished_batch
from lakes import samples
from local_client import LocalClient
from media_files import encoded, speechlike

from k2d.audio import examine
from k2d.errors import AudioError
from k2d.schema import Outcome, QuarantineReason, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app
from services.filter.console.quarantine import DETAILS, REASONS, translated
from services.filter.console.words import Words, table

CHINESE = Words("zh-Hant")
FLAC = encoded("flac", "flac", seconds=6.0)
MP3 = encoded("libmp3lame", "mp3", rate_hz=44_100, seconds=6.0)
UNITS = {"dB", "NaN", "MB"}


def wav(*channels: np.ndarray, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack(channels, axis=1), 16_000, format="WAV", subtype=subtype)
    return file.getvalue()


def flipped(data: bytes, share: float) -> bytes:
    changed = bytearray(data)
    changed[int(len(data) * share)] ^= 0x10
    return bytes(changed)


def not_finite() -> bytes:
    broken = speechlike(4.0) / 32768
    broken[40_000] = np.nan
    return wav(broken, subtype="FLOAT")


SPEECH, NOTHING = speechlike(2.0), np.zeros(32_000, np.int16)
BROKEN: dict[str, tuple[bytes | str, dict[str, Any]]] = {
    "empty": (b"", {}),
    "text": (b"hello, this is text\n" * 500, {}),
    "missing": ("/nowhere/a.wav", {}),
    "cut off, flac": (FLAC[: len(FLAC) // 2], {}),
    "cut off, wav": (wav(SPEECH)[:30_000], {}),
    "cut off, mp4": (encoded("aac", "ipod", seconds=6.0)[:9_000], {}),
    "cut off, mp3": (MP3[: len(MP3) // 2 + 100], {}),
    "a flipped bit": (flipped(FLAC, 0.5), {}),
    "a hole": (MP3[: len(MP3) // 2] + bytes(4000) + MP3[len(MP3) // 2 + 4000 :], {}),
    "not finite": (not_finite(), {}),
    "short": (wav(SPEECH[:800]), {}),
    "long": (wav(SPEECH), {"max_s": 1.0}),
    "digital silence": (wav(NOTHING), {}),
    "quiet": (wav(samples(2.0) // 1500), {}),
    "a constant level": (wav(np.full(31 * 16_000, 9000, np.int16)), {}),
    "no such channel": (wav(SPEECH), {"channel": 3}),
    "no such channel of two": (wav(SPEECH, SPEECH), {"channel": 3}),
    "a silent channel": (wav(SPEECH, NOTHING), {"channel": 2}),
}


def error_of(file: bytes | str, options: dict[str, Any]) -> AudioError:
    """Why a recording is quarantined."""
    limits = {"min_s": 0.1, "max_s": 3600.0, "silence_peak": 0.001} | options
    with pytest.raises(AudioError) as caught:
        examine(file if isinstance(file, str) else io.BytesIO(file), **limits)
    return caught.value


@pytest.mark.parametrize("kind", BROKEN)
def test_details_of_real_files_are_translated_with_their_numbers(kind: str) -> None:
    detail = error_of(*BROKEN[kind]).message
    shown = translated(detail, CHINESE)
    assert shown is not None, detail
    assert not set(re.findall(r"[A-Za-z]{2,}", shown)) - UNITS
    numbers = r"-?\d+(?:\.\d+)?"
    assert sorted(re.findall(numbers, shown)) == sorted(re.findall(numbers, detail))
    assert translated(detail, Words("en")) == detail


@pytest.mark.parametrize("detail", ["", "SourceError: 404", "The file cannot be read: I/O error.", "A talk lasts 3 s."])
def test_other_details_stay_as_they_are(detail: str) -> None:
    assert translated(detail, CHINESE) is None


def test_every_reason_has_a_sentence_and_every_sentence_a_translation() -> None:
    assert list(REASONS) == list(QuarantineReason)
    assert not {*REASONS.values(), *DETAILS} - table("zh-Hant").keys()


@pytest.fixture
def console(tmp_path: Path) -> Iterator[LocalClient]:
    lake = Lake(str(tmp_path / "lake"))
    names = ["short.wav", "odd.wav"]
    batch = finished_batch(lake, recordings=2, names=names)
    short = error_of(*BROKEN["short"])
    for place, (reason, detail) in enumerate(
        [(QuarantineReason(short.reason), short.message), (QuarantineReason.FAILED, "ValueError: <b>odd</b>")]
    ):
        result = RecordingResult(place, names[place], Outcome.QUARANTINED, 0.05, reason=reason, detail=detail)
        lake.batches.put_result(batch.id, result)
    with LocalClient(create_app(Settings(store=str(lake.files.root), _env_file=None))) as client:
        yield client


def test_a_screen_reader_is_told_what_is_english(console: LocalClient) -> None:
    console.cookies.set("k2d_language", "zh-Hant")
    page = console.get("/batches/lectures").text
    assert "<td>錄音長 0.050 秒，下限為 0.1 秒。</td>" in page
    assert '<td lang="en">ValueError: &lt;b&gt;odd&lt;/b&gt;</td>' in page
    assert "每次嘗試都發生未預期的錯誤。" in page
    console.cookies.set("k2d_language", "en")
    page = console.get("/batches/lectures").text
    assert "<td>The recording lasts 0.050 s; the minimum is 0.1 s.</td>" in page
    assert "<td>ValueError: &lt;b&gt;odd&lt;/b&gt;</td>" in page
