"""Everything running: Redis, API and workers as processes, with real weights; and what happens when parts of it die."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import EXAMPLES
from redis import Redis
from servers import TOKEN, Server
from stored_shards import shards

from k2d.client.embedded import Embedded
from k2d.client.http import Client
from k2d.documents import BatchOptions, BatchStatus
from k2d.filtering.policy import DEFAULT
from k2d.schema import BatchState
from k2d.settings import Settings
from services.local.child import Child
from services.local.redis_server import free_port
from services.local.stack import Stack

pytestmark = [pytest.mark.integration]

PATIENCE_S = 200  # whatever is waited for comes well before
# a worker that was killed is missed after seconds, not after half a minute
WORKER_OPTIONS = ("--heartbeat-s", "1", "--grace-s", "2", "--maintenance-s", "1", "--idle-ttl-s", "16")
SHORT = ("cs-reverb.flac", "cs-loud-noise.mp3")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short files of speech, and one that is cut off."""
    folder = tmp_path_factory.mktemp("clips")
    for path in (*EXAMPLES.glob("cs-clean-*"), *(EXAMPLES / name for name in (*SHORT, "cut-off.flac"))):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> dict[str, str]:
    """The shards that a run in this process writes, which nothing disturbs."""
    calm = tmp_path_factory.mktemp("calm")
    Embedded(Settings(store=str(calm), _env_file=None)).label([str(clips)], BatchOptions(), wait=True)
    return shards(calm)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    store = tmp_path_factory.mktemp("stack") / "lake"
    # one at a time, so that a kill finds some done, one in flight, some untouched
    settings = Settings(store=str(store), port=free_port(), concurrency=1, log_level="warning", _env_file=None)
    with Stack(settings, log_file=store.parent / "log", worker_options=WORKER_OPTIONS) as stack:
        yield stack


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.1)


def status(stack: Stack) -> BatchStatus:
    return stack.client().status("clips", DEFAULT)


def wait_for_labels(stack: Stack, more_than: int) -> int:
    """Wait until more recordings are labeled, and the job goes on; return how many are labeled."""

    def labeled() -> bool:
        now = status(stack)
        return now.ledger.recordings.labeled > more_than and now.jobs is not None and now.jobs.jobs_running == 1

    wait_for(labeled, "labeling")
    counts = status(stack).ledger.recordings
    assert counts.pending >= 2, "too quick: nothing is left to be disturbed"
    return counts.labeled


def worker(stack: Stack) -> Child:
    return next(child for child in stack.children if child.name == "worker-0")


def facts_written(stack: Stack) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(stack.settings.store, "facts").rglob("*.parquet")}


def test_a_body_that_lies_about_its_length_stores_nothing_and_harms_nobody(stack: Stack) -> None:
    before = stack.client().batches(), list(Path(stack.settings.store).rglob("uploads/*/*"))
    head = (
        "POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        "Content-Length: {length}\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + b"RIFF" * 500
    whole = part + b"\r\n--b--\r\n"
    for length, body in ((len(whole) + 1000, whole), (len(part) // 2, whole), (3 * 1024**3, part)):
        with socket.create_connection((stack.settings.host, stack.settings.port), timeout=20) as connection:
            connection.sendall(head.format(length=length).encode() + body)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536).decode()
        assert not answer or answer.split()[1] in ("400", "413"), answer
    assert (stack.client().batches(), list(Path(stack.settings.store).rglob("uploads/*/*"))) == before
    assert stack.client().is_up()


@pytest.mark.timeout(600)
def test_a_batch_survives_all_that_can_happen_to_its_workers(
    stack: Stack, clips: Path, expected: dict[str, str]
) -> None:
    """One batch over HTTP: its worker is killed, then stopped, Redis is flushed, the batch cancelled and retried.

    Nothing is lost or done twice, and the shards are byte for byte those of a calm run in one process.
    """
    client, options = stack.client(), BatchOptions(name="clips")
    client.label([str(clips)], options)

    # kill -9: another worker takes the job up when it is missed
    labeled = wait_for_labels(stack, more_than=0)
    finished = facts_written(stack)
    process = worker(stack).process
    assert process is not None
    process.kill()
    process.wait()
    worker(stack).spawn()  # what `k2d up` does when it sees a child die
    labeled = wait_for_labels(stack, more_than=labeled)

    # SIGTERM: the worker ends with what is in flight done, and puts the group back
    process = worker(stack).process
    assert process is not None
    process.terminate()
    assert process.wait(30) == 0
    jobs = status(stack).jobs
    assert jobs is not None
    assert (jobs.jobs_queued, jobs.jobs_running) == (1, 0)
    labeled = status(stack).ledger.recordings.labeled

    # Redis forgets everything
    assert stack.redis is not None
    Redis.from_url(stack.redis.url).flushall()
    assert status(stack).state is BatchState.STALLED
    assert sum(client.resume().values()) == status(stack).ledger.recordings.pending
    worker(stack).spawn()
    wait_for(lambda: status(stack).state is BatchState.RUNNING, "a job after resume")

    # cancel: what is in flight is given up, and nothing else is begun
    assert client.cancel("clips").state is BatchState.CANCELLED
    wait_for(lambda: (jobs := status(stack).jobs) is not None and jobs.jobs_running == 0, "the end of the job")
    pending = status(stack).ledger.recordings.pending
    assert 0 < pending <= len(list(clips.iterdir())) - labeled

    # retry: to the end
    assert client.retry("clips").state in (BatchState.QUEUED, BatchState.RUNNING)
    done = client.label([str(clips)], options, wait=True)
    assert (done.state, done.ledger.recordings.pending) == (BatchState.DONE, 0)
    assert shards(Path(stack.settings.store)) == expected
    assert {path: path.stat().st_mtime_ns for path in finished} == finished

    manifest = client.freeze("v1", ["clips"], DEFAULT)
    assert manifest.counts.rows > 0
    assert client.freeze("v1", ["clips"], DEFAULT) == manifest


def test_a_killed_inference_server_costs_time_and_nothing_else(
    killable: Server, clips: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    """The teacher on a server, which is killed in the middle of the batch: not one byte of a label changes."""
    settings = Settings(
        store=str(tmp_path / "lake"),
        teacher=killable.url,
        api_token=TOKEN,
        port=free_port(),
        log_level="warning",
        _env_file=None,
    )
    paths = [str(clips / name) for name in SHORT]
    with Stack(settings, log_file=tmp_path / "log") as stack:
        client, before = stack.client(), killable.metric("k2d_batch_size_count")
        client.label(paths, BatchOptions(name="clips"))
        killable.wait_for(lambda: killable.metric("k2d_batch_size_count") > before, "work")
        killable.kill()
        killable.restart()
        wait_for(lambda: status(stack).state is BatchState.DONE, "the batch")
    made = shards(tmp_path / "lake")
    assert made.items() <= expected.items()
    assert len(made) == 3 * len(SHORT)  # labels, hypotheses, facts of each


@pytest.mark.parametrize("restarted", [True, False])
def test_nothing_is_left_of_a_worker_that_was_killed(tmp_path: Path, restarted: bool) -> None:
    """RQ's scheduler is a process of the worker's group; an orphaned one would write to a Redis that is gone."""
    settings = Settings(store=str(tmp_path / "lake"), port=free_port(), log_level="warning", _env_file=None)
    with Stack(settings, log_file=tmp_path / "log") as stack:
        assert stack.redis is not None
        redis = Redis.from_url(stack.redis.url)
        wait_for(lambda: bool(redis.keys("rq:scheduler-lock:*")), "a scheduler")
        process = worker(stack).process
        assert process is not None
        process.kill()
        process.wait()
        os.killpg(process.pid, 0)  # the scheduler lives on
        if restarted:
            worker(stack).spawn()
            assert group_is_gone(process.pid)
            wait_for(lambda: bool(redis.keys("rq:scheduler-lock:*")), "the next worker's scheduler")
    assert group_is_gone(process.pid)
    assert "Traceback" not in (tmp_path / "log").read_text()


def group_is_gone(leader: int) -> bool:
    """Whether no process of a group is left, except zombies that nobody has waited for."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == leader and state != "Z":
                return False
    return True


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_k2d_up_starts_everything_and_stops_it_in_order(tmp_path: Path, stop: signal.Signals) -> None:
    """Even while somebody follows a batch's events, which end then."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    up = subprocess.Popen(
        [sys.executable, "-m", "k2d.cli", "up", "--workers", "0"],
        cwd=tmp_path,
        env=environment | {"K2D_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = Client(f"http://127.0.0.1:{port}")
    wait_for(client.is_up, "k2d up")
    assert client.http.get("/readyz").status_code == 200
    batch = client.label([str(EXAMPLES / SHORT[0])], BatchOptions()).id
    for command, code in (("batches", 0), ("resume", 2)):  # which find no API where the settings say
        run = subprocess.run(
            [sys.executable, "-m", "k2d.cli", command],
            cwd=tmp_path,
            env=environment | {"K2D_STORE": "data"},
            capture_output=True,
            text=True,
        )
        assert (run.returncode, f"(pid {up.pid}) runs for this store at {client.http.base_url}" in run.stderr) == (
            code,
            True,
        ), run.stderr
        assert f"`--api {client.http.base_url}`" in run.stderr
    with client.http.stream("GET", f"/v1/batches/{batch}/events") as events:
        lines = events.iter_lines()
        assert next(lines) == "event: status"
        up.send_signal(stop)
        assert "event: end" not in list(lines)
    output, _ = up.communicate(timeout=60)
    assert up.returncode == 0, output
    assert "Traceback" not in output
    assert "without completing response" not in output  # uvicorn, of a response that was cut off
    assert not client.is_up()
