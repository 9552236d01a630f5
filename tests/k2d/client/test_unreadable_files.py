"""Files that cannot be read: the others are labeled, or nothing is sent and every such file is named."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
from factories import TEACHER, finished_batch, tone
from lakes import flac
from weights import BASE, base, cache

from k2d import sources
from k2d.client import Client, Embedded
from k2d.documents import BatchOptions, Forecast, PartialResult
from k2d.errors import BadRequest
from k2d.labeling.forecast import Header, forecast
from k2d.labeling.request import make_batch
from k2d.schema import BatchState
from k2d.settings import Settings
from k2d.store import Lake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording, three files that cannot be read, and one that is not audio."""
    folder = tmp_path / "audio"
    (folder / "folder.d").mkdir(parents=True)
    (folder / "good.flac").write_bytes(flac(tone(2.0)))
    (folder / "gone.wav").symlink_to("nowhere.wav")
    (folder / "loop.mp3").symlink_to("loop.mp3")
    os.mkfifo(folder / "folder.d" / "pipe.ogg")
    (folder / "text.m4a").write_text("not audio")
    return folder


UNREADABLE = {"gone.wav": "unreadable", "loop.mp3": "unreadable", "pipe.ogg": "refused", "text.m4a": "not_audio"}


def test_a_dry_run_names_what_is_not_audio_and_knows_no_time_of_unmeasured_models(folder: Path, tmp_path: Path) -> None:
    embedded = Embedded(Settings(store=str(tmp_path / "lake"), _env_file=None))
    forecast = embedded.forecast([str(folder)], BatchOptions(teacher=BASE))
    assert (forecast.recordings, forecast.unknown) == (5, 4)
    assert {Path(name).name for name in forecast.not_audio} == set(UNREADABLE)
    assert forecast.hours == pytest.approx(2 / 3600, abs=1e-4)
    assert forecast.estimated_s is None
    assert f"has not measured teacher {BASE}" in forecast.basis
    good = str(folder / "good.flac")
    lacking = embedded.forecast([good], BatchOptions(teacher=BASE, channels="7"))
    assert list(lacking.no_channel.values()) == ["The file has 1 channel; channel 7 was asked for."]
    assert (lacking.windows, lacking.hours) == (0, 0.0)
    assert not (tmp_path / "lake").exists()


def test_audio_of_unknown_length_has_a_window_at_least(folder: Path, tmp_path: Path) -> None:
    lake, settings = Lake(str(tmp_path / "lake")), Settings(_env_file=None)
    asked = make_batch([sources.from_path(folder / "good.flac")], BatchOptions(), settings)
    estimate = forecast(asked.sources, lake, asked, header_of=lambda source: Header(source.name, True))
    assert (estimate.unknown, estimate.windows) == (1, 1)


def test_a_measured_speed_is_that_of_the_same_models(folder: Path, tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "lake"), _env_file=None)
    lake = Lake(settings.store)
    batch = finished_batch(lake)
    for result in list(lake.batches.results(batch.id)):
        lake.batches.put_result(batch.id, replace(result, wall_s=5.0))
    same = BatchOptions(teacher=batch.teacher, validator=batch.validator)

    def estimate(options: BatchOptions) -> Forecast:  # without asking whether the models are there
        asked = make_batch([sources.from_path(folder / "good.flac")], options, settings)
        return forecast(asked.sources, lake, asked, header_of=lambda source: Header(source.name, True, 2.0))

    measured = estimate(same)
    speed, teacher = 50.0 / 15.0, f"{TEACHER.engine} {TEACHER.compute_type} on {TEACHER.device}"  # of 3 × 5 s of work
    assert measured.estimated_s == pytest.approx(2.0 / speed, abs=0.1)
    assert measured.basis == (
        f"3.3 × real time with 1 worker: measured on 3 recordings of batch lectures, teacher "
        f"{batch.teacher} ({teacher}), validator {batch.validator}"
    )
    beams = estimate(same.model_copy(update={"beam_size": 3}))
    assert beams.basis.endswith(f"it was labeled with beam_size {batch.options.decode.beam_size}")
    for other in (BatchOptions(teacher=batch.teacher), BatchOptions(validator=batch.validator)):
        assert estimate(other).estimated_s is None
    known, reused = lake.batches.result(batch.id, 0), lake.batches.result(batch.id, 1)
    assert known is not None
    assert reused is not None
    lake.batches.put_result(batch.id, replace(known, worked_s=40.0))
    lake.batches.put_result(batch.id, replace(reused, worked_s=0.0))  # all of it was there already: no measure
    assert estimate(same).basis.startswith("4.0 × real time with 1 worker: measured on 2 recordings")
    lake.files.write(f"batches/{batch.id}/results/000000/000000001.json", b"{}")
    estimate(same)


def test_an_upload_names_them_all_and_sends_nothing(folder: Path) -> None:
    (folder / "folder.d" / "pipe.ogg").unlink()
    for ask in (Client.label, Client.forecast):
        with pytest.raises(BadRequest, match="2 files cannot be read, so nothing was sent") as caught:
            ask(Client("http://127.0.0.1:1"), [str(folder)], BatchOptions())
        assert "gone.wav" in caught.value.message
        assert "loop.mp3" in caught.value.message
        assert "--embedded" in (caught.value.hint or "")


@pytest.mark.parametrize("client", ["api", "embedded"])
def test_options_are_checked_before_files(client: str, tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "lake"), _env_file=None)
    backend = Client("http://127.0.0.1:1") if client == "api" else Embedded(settings)
    with pytest.raises(BadRequest, match="not a valid name"):
        backend.label(["no-such-file.wav"], BatchOptions(name="a/b"))
    assert not (tmp_path / "lake").exists()


@pytest.mark.integration
def test_they_are_quarantined_and_the_others_labeled(folder: Path, tmp_path: Path) -> None:
    base()
    settings = Settings(
        store=str(tmp_path / "lake"), teacher=BASE, cache=cache(), allow_downloads=False, _env_file=None
    )
    status = Embedded(settings).label([str(folder)], BatchOptions(name="mixed"))
    assert status.state is BatchState.DONE
    assert status.ledger.recordings.labeled == 1
    assert {Path(row.recording).name: row.reason for row in status.quarantined} == UNREADABLE


@pytest.mark.integration
def test_retry_needs_no_api_and_tries_quarantined_recordings_again(folder: Path, tmp_path: Path) -> None:
    base()
    settings = Settings(
        store=str(tmp_path / "lake"), teacher=BASE, cache=cache(), allow_downloads=False, _env_file=None
    )
    embedded = Embedded(settings)
    embedded.label([str(folder)], BatchOptions(name="mixed"))
    (folder / "nowhere.wav").write_bytes((folder / "good.flac").read_bytes())  # what the link refers to is there now
    embedded.cancel("mixed")
    status = embedded.retry("mixed")
    assert status.state is BatchState.DONE
    assert status.ledger.recordings.labeled == 2
    assert status.ledger.recordings.duplicates == 1
    assert "gone.wav" not in {Path(row.recording).name for row in status.quarantined}


@pytest.mark.integration
def test_progress_ends_where_everything_is_labeled_and_validated(folder: Path, tmp_path: Path) -> None:
    base()
    (folder / "cut.flac").write_bytes(flac(tone(4.0))[:-2000])  # its header says 4 s
    settings = Settings(store=str(tmp_path / "lake"), teacher=BASE, cache=cache(), _env_file=None)
    seen: list[PartialResult] = []
    status = Embedded(settings).label([str(folder)], BatchOptions(), on_status=seen.append)
    assert seen[0].audio_s == pytest.approx(6.0, abs=0.1)
    for earlier, later in itertools.pairwise(seen):
        assert (later.recordings, later.validated_s) >= (earlier.recordings, earlier.validated_s)
    last = seen[-1]
    assert (last.recordings, last.total) == (6, 6)
    assert last.seconds == last.validated_s == last.audio_s == pytest.approx(status.ledger.seconds.input, abs=0.01)
