"""`k2d label` over files of every kind, with real weights: what is labeled, when, and what is quarantined for what."""

import asyncio
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_files import packets
from places import AUDIO_CASES, EXAMPLES
from typer.testing import CliRunner
from weights import open_base

from k2d import audio
from k2d.cli import commands  # noqa: F401 - registers them
from k2d.cli.base import app
from k2d.client import Embedded
from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import LongformOptions, Segment
from k2d.settings import Settings
from k2d.text.subtitles import srt, vtt
from services.inference.upload import UploadedRecording

pytestmark = [pytest.mark.integration, pytest.mark.slow]

QUARANTINED = {
    "ch16.m4a": "silent",  # digital silence in all sixteen channels
    "ch16.ogg": "silent",
    "damaged_segv.aac": "damaged",
    "hole4k_segv.m4a": "damaged",
    "indexerror.flv": "damaged",
}


@pytest.fixture
def label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `k2d label` in a folder of its own; returns its JSON. Its status is 1 where nothing could be labeled."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_STORE", str(tmp_path / "lake"))

    def run(*arguments: object) -> dict:
        result = CliRunner().invoke(app, ["label", *map(str, arguments), "--embedded", "--json"])
        ledger = json.loads(result.stdout)
        assert result.exit_code == (not ledger["recordings"]["labeled"]), result.output
        return ledger

    return run


def conserved(ledger: dict) -> None:
    ms = {name: round(1000 * value) for name, value in ledger["seconds"].items()}
    assert ms.pop("in") == sum(ms.values())
    assert min(ms.values()) >= 0


def test_all_cases_in_one_batch(label, tmp_path: Path) -> None:
    ledger = label(AUDIO_CASES, "--batch", "cases", "--language", "en")
    conserved(ledger)
    service = Embedded(Settings(store=str(tmp_path / "lake"), _env_file=None))
    status = service.status("cases")
    assert {Path(row.recording).name: row.reason for row in status.quarantined} == QUARANTINED
    assert ledger["recordings"]["labeled"] == len(list(AUDIO_CASES.glob("*.*"))) - 1 - len(QUARANTINED)  # README.md
    first_s: dict[str, float] = {}
    for row in service.chunks("cases"):
        first_s.setdefault(Path(row.recording).name, row.start_s)
    for name in ("A2_late.webm", "A2_late.ogg"):  # the sentence begins at 2 s of the file
        assert first_s[name] == pytest.approx(2.0, abs=0.1)
    for name in ("A2_fragments_from_live.mp4", "A6_xing_x10.mp3", "A7_id3_then_riff.wav", "A5_phase.wav"):
        assert first_s[name] == pytest.approx(0.0, abs=0.6)
    notes = {Path(row.recording).name: " ".join(row.notes) for row in status.notes}
    assert "begins at 1:00:00" in notes["A2_fragments_from_live.mp4"]
    assert "Track 1 of 2" in notes["A3_two.mka"]


def test_what_is_before_the_damage_is_labeled(label) -> None:
    whole = label(AUDIO_CASES / "hole4k_segv.m4a", "--language", "en")
    kept = label(AUDIO_CASES / "hole4k_segv.m4a", "--language", "en", "--keep-partial")
    conserved(whole)
    conserved(kept)
    assert whole["recordings"]["quarantined"] == 1
    assert (kept["recordings"]["labeled"], kept["recordings"]["quarantined"]) == (1, 0)
    assert kept["seconds"]["in"] == pytest.approx(60.0, abs=0.01)
    assert kept["seconds"]["quarantined"] == pytest.approx(52.2, abs=0.2)


def test_each_channel_is_labeled_as_if_it_were_alone(label, tmp_path: Path) -> None:
    left, right = (np.concatenate(list(audio.blocks(EXAMPLES / name))) for name in ("en-clean.mp3", "cs-clean-1.flac"))
    length = min(len(left), len(right), 7 * 16_000)
    soundfile.write(tmp_path / "call.wav", np.stack([left[:length], right[:length] // 8], axis=1), 16_000)
    soundfile.write(tmp_path / "left.wav", left[:length], 16_000)
    mix = label(tmp_path / "call.wav", "--batch", "mix")
    each = label(tmp_path / "call.wav", "--batch", "each", "--channels", "each")
    label(tmp_path / "left.wav", "--batch", "left")
    for ledger in (mix, each):
        conserved(ledger)
    assert each["seconds"]["in"] == pytest.approx(2 * mix["seconds"]["in"])
    service = Embedded(Settings(store=str(tmp_path / "lake"), _env_file=None))
    names = {row.recording for row in service.chunks("each")}
    assert {Path(name).name for name in names} == {"call.wav#1", "call.wav#2"}
    texts = {
        batch: [row.teacher_text for row in service.chunks(batch) if row.recording.endswith(name)]
        for batch, name in (("each", "call.wav#1"), ("left", "left.wav"))
    }
    assert texts["each"] == texts["left"]
    assert len(list((tmp_path / "lake" / "labels").rglob("*.parquet"))) == 3  # the left channel is labeled once
    assert any("--channels each" in note for row in service.status("mix").notes for note in row.notes)


def test_subtitles_are_in_the_time_of_the_video() -> None:
    """Sound 2 s into a video, and the same sound alone: every cue comes 2 s later."""
    spoken = np.concatenate(list(audio.blocks(AUDIO_CASES / "A7_id3_then_riff.wav")))
    wide = np.repeat(spoken, 3)  # 48 kHz; its images are above what is read again

    def file(late_s: float) -> bytes:
        return packets(tracks=[("aac", wide)], format="mp4", place=lambda _, at_s: at_s + late_s, video_s=9.0)

    async def transcribed(data: bytes) -> list[Segment]:
        batcher = MicroBatcher(open_base(), batch_size=1)
        recording = UploadedRecording(io.BytesIO(data))
        await recording.examine(Settings(_env_file=None))
        options = LongformOptions()
        segments = [
            segment
            async for segment in transcribe(
                recording,
                batcher,
                options,
                total_samples=recording.samples,
                skip_pauses=recording.has_pauses,
            )
        ]
        await recording.close()
        await batcher.close()
        return segments

    at_once, late = (asyncio.run(transcribed(file(late_s))) for late_s in (0.0, 2.0))
    spoken_s = [next(segment for segment in segments if segment.text.strip()).start_s for segments in (at_once, late)]
    assert spoken_s[1] - spoken_s[0] == pytest.approx(2.0, abs=0.1)
    assert late[-1].end_s == pytest.approx(8.0, abs=0.5)
    assert srt(late).splitlines()[1].startswith(f"00:00:0{int(spoken_s[1])},")
    assert vtt(late).splitlines()[2].startswith(f"00:00:0{int(spoken_s[1])}.")
