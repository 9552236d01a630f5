"""Work of another process on the same store: it is seen, nothing is done twice, and a killed one is in nobody's way."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from weights import BASE, base, cache

from k2d import filehash
from k2d.cli.show import going_on, processes_lines
from k2d.client import Embedded
from k2d.client.backend import ResumeIncomplete
from k2d.documents import BatchOptions, PartialResult
from k2d.errors import Conflict
from k2d.labeling.forecast import measured_speed
from k2d.settings import Settings

pytestmark = pytest.mark.integration

PATIENCE_S = 200


def test_a_batch_that_another_process_is_at_work_on(
    tmp_path: Path, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base()
    monkeypatch.setattr(filehash, "SETTLED_S", 0.0)  # hashes of files that were just made are remembered
    audio = tmp_path / "cs-clean-1.flac"
    shutil.copyfile(examples / audio.name, audio)
    settings = Settings(store=str(tmp_path / "lake"), teacher=BASE, cache=cache(), _env_file=None)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    environment |= {"K2D_STORE": settings.store, "K2D_TEACHER": BASE, "K2D_CACHE": str(cache())}
    command = [sys.executable, "-m", "k2d.cli", "label", "--embedded", "--batch", "talks", str(audio)]
    other = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not list(tmp_path.glob("lake/heartbeats/*.json")):
            assert time.monotonic() < deadline
            assert other.poll() is None
            time.sleep(0.05)
        here = Embedded(settings)
        assert [item.state for item in here.batches()] == ["running"]
        status = here.status("talks")
        (line,) = processes_lines(status)
        assert line.startswith(f"running in another process: pid {other.pid} on host ")
        assert "(k2d.cli label), since " in line
        assert "--watch" in str(going_on(status))
        with pytest.raises(Conflict, match=f"another process is at work on batch talks: pid {other.pid}") as refused:
            here.label([str(audio)], BatchOptions(name="talks"))
        assert "--anyway" in str(refused.value.hint)
        with pytest.raises(Conflict):
            here.label([str(audio)], BatchOptions(name="talks"), add=True)
        with pytest.raises(Conflict):
            here.retry("talks")
        with pytest.raises(ResumeIncomplete, match=f"pid {other.pid}") as left_out:
            here.resume()
        assert (left_out.value.failed, list(left_out.value.at_work)) == ({}, [status.id])
        resume = subprocess.run(
            [sys.executable, "-m", "k2d.cli", "resume", "--embedded"], env=environment, capture_output=True, text=True
        )
        assert (resume.returncode, resume.stdout) == (0, ""), resume.stderr  # what runs is no error
        assert resume.stderr.startswith(f"note: {status.id} left out, as another process is at work on it: pid ")
        assert other.poll() is None
    finally:
        other.kill()
    other.wait()
    assert [item.state for item in here.batches()] == ["stalled"]
    reports: list[PartialResult] = []
    assert here.resume(reports.append) == {status.id: 1}
    assert here.status("talks").state == "done"
    (result,) = here.lake.batches.results(status.id)
    assert result.worked_s == pytest.approx(result.duration_s)
    assert (reports[0].recordings_before, reports[-1].recordings_before) == (0, 0)

    # what is there already is no speed of this machine: neither now, nor for the next estimate
    speed = (reports[-1].times_real_time, measured_speed(here.lake, here.lake.batches.get("talks")))
    assert speed[0] is not None
    audio.rename(tmp_path / "renamed.flac")
    reports.clear()
    again = here.label([str(tmp_path / "renamed.flac")], BatchOptions(name="again"), on_status=reports.append)
    (known,) = here.lake.batches.results(again.id)
    assert (known.label_key, known.worked_s) == (result.label_key, 0.0)
    assert {report.times_real_time for report in reports} == {None}
    assert measured_speed(here.lake, here.lake.batches.get("again")) == speed[1]
    # and an estimate says what is there, by the options and the content, but reads no file
    renamed, seconds = str(tmp_path / "renamed.flac"), result.duration_s
    estimate = here.forecast([renamed], BatchOptions())
    assert (estimate.done, estimate.windows, estimate.at_most) == (1, 0, False)
    assert estimate.done_hours == estimate.hours == pytest.approx(seconds / 3600, abs=1e-5)
    other_file = tmp_path / "copy.flac"
    shutil.copyfile(renamed, other_file)
    estimate = here.forecast([renamed, str(other_file)], BatchOptions(name="talks"), add=True)
    assert (estimate.recordings, estimate.done, estimate.at_most) == (2, 1, True)  # the copy was never read
    assert estimate.windows > 0
    estimate = here.forecast([renamed], BatchOptions(language="en"))
    assert (estimate.done, estimate.labeled) == (0, 0)
    estimate = here.forecast([renamed], BatchOptions(validator="perturbed+second-decode"))
    assert (estimate.done, estimate.labeled, estimate.windows) == (0, 1, 0)
    second = here.label([renamed], BatchOptions(name="second", validator="perturbed+second-decode"))
    (decoded,) = here.lake.batches.results(second.id)
    rows = here.lake.facts.read(str(decoded.facts_key))
    share = sum(len(row.hypotheses) > 2 for row in rows) / len(rows)  # of the chunks, those that were decoded again
    assert decoded.worked_s == pytest.approx(share * seconds / 4, abs=0.01)
    assert measured_speed(here.lake, here.lake.batches.get("second")) is None
    with pytest.raises(Conflict, match="language"):
        here.forecast([renamed], BatchOptions(name="talks", language="en"), add=True)
    reports.clear()
    here.label([str(tmp_path / "renamed.flac")], BatchOptions(name="again"), on_status=reports.append)
    assert (reports[0].recordings_before, reports[0].total) == (1, 1)
    assert reports[0].before_s == pytest.approx(result.duration_s)
