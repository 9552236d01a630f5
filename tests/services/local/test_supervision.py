"""`k2d up` as a process whose parts are killed: each is started again, and nobody has to do anything."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from places import EXAMPLES

from k2d.client.http import Client
from k2d.documents import BatchOptions, BatchStatus
from k2d.filtering.policy import DEFAULT
from k2d.schema import BatchState
from services.local.redis_server import free_port

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE_S = 400  # whatever is waited for comes well before
CLIPS = ("cs-reverb.flac", "cs-loud-noise.mp3")


class Up:
    """A `k2d up` in a folder, as a shell starts it."""

    def __init__(self, folder: Path, *, port: int, workers: int = 1, log: Path | None = None) -> None:
        self.log = log or folder / f"up-{port}.log"
        command = [sys.executable, "-m", "k2d.cli", "up", "--workers", str(workers), "--port", str(port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
        if "K2D_CACHE" in os.environ:
            environment["K2D_CACHE"] = os.environ["K2D_CACHE"]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        self.client = Client(f"http://127.0.0.1:{port}")

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s:\n{self.text}"
            time.sleep(0.1)

    def wait_started(self) -> "Up":
        self.wait_for(lambda: "to label recordings" in self.text, "the start")
        return self

    def is_ready(self) -> bool:
        return self.client.is_up() and bool(self.client.http.get("/readyz").is_success)

    def child(self, command: str) -> psutil.Process | None:
        """The child with this in its command line."""
        for process in psutil.Process(self.process.pid).children(recursive=False):
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and command in " ".join(process.cmdline()):
                    return process
        return None

    def kill(self, command: str) -> None:
        """Kill a child as the kernel does when memory runs out, and wait until there is another one."""
        child = self.child(command)
        assert child is not None
        child.kill()
        self.wait_for(lambda: (new := self.child(command)) is not None and new.pid != child.pid, f"a new {command}")

    def status(self, batch: str) -> BatchStatus:
        return self.client.status(batch, DEFAULT)

    def wait_done(self, batch: str) -> None:
        self.wait_for(lambda: self.status(batch).state is BatchState.DONE, "the batch")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    ups: list[Up] = []

    def start(*, folder: Path = tmp_path, port: int | None = None, workers: int = 1, log: Path | None = None) -> Up:
        ups.append(Up(folder, port=port or free_port(), workers=workers, log=log))
        return ups[-1]

    yield start
    for up in ups:
        up.end()
    for process in psutil.process_iter():  # nothing is left, whatever a test has shown
        with suppress(psutil.Error, OSError):
            assert str(tmp_path) not in process.cwd(), process.cmdline()


@pytest.fixture
def clips() -> list[str]:
    return [str(EXAMPLES / name) for name in CLIPS]


def test_a_killed_redis_is_started_again_and_the_batch_completes(start: Callable[..., Up], clips: list[str]) -> None:
    up = start().wait_started()
    batch = up.client.label(clips, BatchOptions(name="clips")).id
    up.wait_for(lambda: (jobs := up.status(batch).jobs) is not None and jobs.jobs_running == 1, "labeling")
    up.kill("unixsocket")
    up.wait_for(up.is_ready, "readiness")
    assert not [p for p in psutil.Process(up.process.pid).children() if p.status() == psutil.STATUS_ZOMBIE]
    up.wait_done(batch)
    up.kill("services.filter.app")
    up.wait_for(up.is_ready, "readiness")
    up.kill("services.filter.worker")
    assert up.status(batch).state is BatchState.DONE
    up.end()
    assert "redis ended with signal SIGKILL" in up.text
    assert "Traceback" not in up.text


def test_redis_that_lost_its_content_costs_no_manual_step(start: Callable[..., Up], clips: list[str]) -> None:
    up = start(workers=0).wait_started()
    batch = up.client.label(clips, BatchOptions(name="clips")).id
    store = Path(up.log.parent, "data")
    redis = up.child("unixsocket")
    assert redis is not None
    for file in (store / "redis" / "appendonlydir").iterdir():
        file.write_bytes(b"gone")
    up.kill("unixsocket")
    up.wait_for(lambda: "queued again" in up.text, "resume")
    up.wait_for(lambda: up.status(batch).state is BatchState.QUEUED, "the queued batch")


def test_what_a_killed_one_left_is_named_and_stopped_and_its_work_goes_on(
    start: Callable[..., Up], clips: list[str], tmp_path: Path
) -> None:
    first = start().wait_started()
    batch = first.client.label(clips, BatchOptions(name="clips")).id
    first.wait_for(lambda: (jobs := first.status(batch).jobs) is not None and jobs.jobs_running == 1, "labeling")
    left = psutil.Process(first.process.pid).children(recursive=True)
    assert len(left) >= 5  # Redis, API, worker, its scheduler, its horse
    first.process.kill()
    first.process.wait()
    second = start(port=first.client.http.base_url.port, log=tmp_path / "second").wait_started()
    assert [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert "stopped what an earlier `k2d up` left" in second.text
    for name in ("redis", "api", "worker-0"):
        assert f"{name} (pid " in second.text
    second.wait_done(batch)
    assert list(Path(tmp_path, "data", "up").iterdir()) != []
    second.end()
    assert list(Path(tmp_path, "data", "up").iterdir()) == []


def test_a_second_one_of_a_store_is_refused_while_the_first_runs(start: Callable[..., Up]) -> None:
    first = start(workers=0).wait_started()
    second = start(workers=0)
    assert second.process.wait(PATIENCE_S) == 2
    assert f"(pid {first.process.pid}) runs for the store data already" in second.text
    assert first.is_ready()


def test_a_taken_port_is_one_sentence(start: Callable[..., Up], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        up = start(port=port)
        assert up.process.wait(PATIENCE_S) == 1
    assert f"port {port} of 127.0.0.1 is taken by another program" in up.text
    assert "Traceback" not in up.text
    assert not (tmp_path / "data" / "redis").exists()  # nothing was started


@pytest.mark.parametrize("stop", [signal.SIGINT])
def test_port_is_where_the_api_is(start: Callable[..., Up], stop: signal.Signals) -> None:
    up = start(workers=0).wait_started()
    assert up.is_ready()
    assert f"--api {str(up.client.http.base_url).rstrip('/')}" in " ".join(up.text.split())
    up.process.send_signal(stop)
    assert up.process.wait(PATIENCE_S) == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here (it takes root): {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_told_once_and_work_goes_on_when_there_is_space(
    start: Callable[..., Up], small_disk: Path, clips: list[str]
) -> None:
    """The store is on it, and with it the file of Redis."""
    up = start(folder=small_disk, log=small_disk.parent / "log").wait_started()
    filler = small_disk / "filler"
    with filler.open("wb") as file, suppress(OSError):
        batch = up.client.label(clips, BatchOptions(name="clips")).id
        while True:
            file.write(bytes(65536))
            file.flush()
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x")
    up.wait_for(lambda: "work waits: " in up.text, "the message")
    up.wait_for(lambda: (jobs := up.status(batch).jobs) is not None and jobs.waiting_for is not None, "the reason")
    assert up.status(batch).state in (BatchState.QUEUED, BatchState.STALLED)
    filler.unlink()
    up.wait_for(lambda: "work goes on" in up.text, "the end")
    up.wait_done(batch)
    assert up.status(batch).ledger.recordings.quarantined == 0
    assert "Traceback" not in up.text
    assert len(up.text.splitlines()) < 60


def test_a_store_that_takes_no_writes_is_one_sentence_at_the_start(start: Callable[..., Up], small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    up = start(folder=small_disk, log=small_disk.parent / "log")
    assert up.process.wait(PATIENCE_S) == 1
    assert "the store is read-only: cannot write" in up.text
    assert "Traceback" not in up.text
    assert "K2D_REDIS_URL" not in up.text
