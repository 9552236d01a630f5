"""A recording that crashes its decoder, or is beyond the batch's quota, is quarantined, and the others go on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import crashing_decoder
import pytest
from factories import TEACHER
from media_files import encoded

from k2d import sources
from k2d.audio import isolated
from k2d.corpus import views
from k2d.documents import BatchOptions
from k2d.errors import AudioError
from k2d.keys import digest
from k2d.labeling.group import AttemptsInMemory, RecordingGroup
from k2d.labeling.quota import HoursQuota
from k2d.labeling.recording import EXAMINE_VERSION, Labeler, Limits
from k2d.labeling.request import make_batch
from k2d.schema import Batch, Outcome, QuarantineReason, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake


@pytest.fixture(autouse=True)
def _crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    isolated.stop_server()
    monkeypatch.setattr(isolated, "SERVER_MODULE", "crashing_decoder")
    yield
    isolated.stop_server()


def wav(seconds: float) -> bytes:
    return encoded("pcm_s16le", "wav", seconds=seconds)


def examined(
    folder: Path, files: dict[str, bytes], **options: object
) -> tuple[Lake, Batch, list[RecordingResult], AttemptsInMemory]:
    """Run a group over files; the stages behind the examination are left out, as they need models."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    lake = Lake(str(folder / "lake"))
    options = {"decode_timeout_s": 60.0} | options
    settings = Settings(store=str(folder / "lake"), _env_file=None, **options)
    batch = make_batch([sources.from_path(folder / name) for name in files], BatchOptions(), settings, trusted=True)
    lake.batches.put(batch)

    class Teacher:
        model = TEACHER

    class Validators:
        key = ()

    labeler = Labeler(lake, teacher=Teacher(), validators=Validators(), batch=batch, settings=settings)  # type: ignore[arg-type]

    async def read(source, position, recording, label_key, teacher):
        with labeler._open(source) as file, isolated.IsolatedReader(file, recording=recording, name=source.name) as it:
            assert len(it.read(0, recording.samples)) == recording.samples

    async def run(*_: object, **__: object) -> None:
        pass

    labeler._label = read  # type: ignore[method-assign]
    labeler._validation.run = run  # type: ignore[method-assign]
    attempts, results = AttemptsInMemory(), []

    def on_result(result: RecordingResult) -> None:
        lake.batches.put_result(batch.id, result)
        results.append(result)

    group = RecordingGroup(labeler=labeler, attempts=attempts, on_result=on_result, concurrency=4)
    asyncio.run(group.run(range(len(batch.sources))))
    return lake, batch, sorted(results, key=lambda result: result.position), attempts


def test_a_crash_costs_one_recording_and_no_attempt(tmp_path: Path) -> None:
    files = {f"{number}.wav": wav(2.0 + number) for number in range(6)}
    for number, (stage, action) in {1: ("examine", "segv"), 2: ("blocks", "segv"), 4: ("examine", "kill")}.items():
        files[f"{number}.wav"] = crashing_decoder.marked(files[f"{number}.wav"], stage, action)
    lake, batch, results, attempts = examined(tmp_path, files)
    assert attempts.starts == attempts.errors == {}
    reasons = {Path(result.name).name: result.reason for result in results if result.outcome is Outcome.QUARANTINED}
    assert reasons == dict.fromkeys(("1.wav", "2.wav", "4.wav"), QuarantineReason.CRASHES_WORKER)
    assert all(Path(result.name).name in str(result.detail) for result in results if result.reason)
    # their headers, or the examination, tell their lengths
    assert [round(result.duration_s, 1) for result in results] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    # a limit may be raised: they are examined anew when they are tried again
    defaults = Settings(_env_file=None)
    limits = Limits(defaults.min_recording_s, defaults.max_recording_s, defaults.silence_peak)
    keys = [digest("examine", EXAMINE_VERSION, source.key, limits) for source in batch.sources]
    stored = [lake.examinations.get(key) for key in keys]
    assert [bool(examination) for examination in stored] == [True, False, True, True, False, True]


def test_the_ledger_counts_what_has_a_length_and_says_how_many_have_none(tmp_path: Path) -> None:
    files = {
        "crash.wav": crashing_decoder.marked(wav(3.0), "examine", "segv"),
        "text.txt": b"no audio at all" * 100,
        "short.wav": encoded("pcm_s16le", "wav", seconds=0.05),
    }
    lake, batch, _, _ = examined(tmp_path, files)
    ledger = views.ledger(lake, batch)
    assert ledger.seconds.quarantined == pytest.approx(3.05, abs=0.01)
    assert ledger.recordings.unknown_length == 1
    assert ledger.recordings.quarantined == 3
    seconds = ledger.seconds
    parts = (seconds.accepted, seconds.salvaged, seconds.rejected, seconds.quarantined, seconds.silence)
    assert round(1000 * seconds.input) == sum(round(1000 * part) for part in parts)


def test_hours_beyond_the_quota_are_quarantined(tmp_path: Path) -> None:
    files = {f"{number}.wav": encoded("pcm_s16le", "wav", seconds=10.0 + number / 10) for number in range(4)}
    _, _, results, _ = examined(tmp_path, files, max_batch_hours=25 / 3600)
    beyond = [result for result in results if result.outcome is Outcome.QUARANTINED]
    assert [result.reason for result in beyond] == [QuarantineReason.OVER_QUOTA] * 2
    assert all(result.duration_s >= 10.0 for result in beyond)
    assert "more than" in str(beyond[0].detail)


def test_the_quota_counts_what_was_labeled_before(tmp_path: Path) -> None:
    lake, batch, _, _ = examined(tmp_path, {"a.wav": wav(10.0)})
    quota = HoursQuota(lake, batch, 15 / 3600)
    quota.take(4.0)
    with pytest.raises(AudioError, match="The batch has more than"):
        quota.take(4.0)
    quota.take(1.0)
    HoursQuota(lake, batch, 0.0).take(1e9)
