"""Everything running: Redis, API, workers as processes; and what happens when parts of it die."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from places import EXAMPLES
from redis import Redis
from stored_shards import shards

from k2d.client.embedded import Embedded
from k2d.client.http import Client
from k2d.documents import BatchOptions
from k2d.filtering.policy import DEFAULT
from k2d.settings import Settings
from services.local.redis_server import free_port
from services.local.stack import Stack

pytestmark = [pytest.mark.integration]

PATIENCE_S = 200  # a killed worker's job must be taken up again well before


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Several short files of speech, and the broken one."""
    folder = tmp_path_factory.mktemp("clips")
    for path in sorted(EXAMPLES.glob("c*.flac")) + sorted(EXAMPLES.glob("*.m4a")):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory, clips):
    """The shards an undisturbed, embedded run writes."""
    calm = tmp_path_factory.mktemp("calm")
    settings = Settings(store=str(calm), _env_file=None)
    Embedded(settings).label([str(clips)], BatchOptions(), wait=True, on_status=lambda _: None)
    return shards(calm)


@pytest.fixture
def settings(tmp_path):
    # few at once, so that a kill finds some done, some in hand, some untouched
    return Settings(store=str(tmp_path / "lake"), port=free_port(), concurrency=2, log_level="warning", _env_file=None)


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.2)


def progress(stack):
    def some_done():
        book = stack.client().status("clips", DEFAULT)["ledger"]["recordings"]
        return book["labeled"] >= 1 and book["pending"] >= 2

    return some_done


def post(stack, clips):
    return stack.client().label([str(clips)], BatchOptions(name="clips"), wait=False, on_status=lambda _: None)


def finish(stack, clips):
    return stack.client().label([str(clips)], BatchOptions(name="clips"), wait=True, on_status=lambda _: None)


def undisturbed(settings, expected, status):
    """Shards are byte for byte those of a calm run. Uploads and paths differ in their source keys, samples do not."""
    assert status["state"] == "done"
    assert status["ledger"]["recordings"]["pending"] == 0
    assert shards(Path(settings.store)) == expected


@pytest.mark.timeout(600)
def test_a_batch_over_http_gives_the_same_shards_as_an_embedded_run(settings, clips, expected):
    with Stack(settings) as stack:
        status = finish(stack, clips)
        undisturbed(settings, expected, status)
        manifest = stack.client().freeze("v1", ["clips"], DEFAULT)
        assert manifest["counts"]["rows"] > 0
        assert stack.client().freeze("v1", ["clips"], DEFAULT) == manifest


@pytest.mark.timeout(600)
def test_kill_9_of_a_worker_mid_batch_loses_nothing_and_does_nothing_twice(settings, clips, expected):
    with Stack(settings) as stack:
        post(stack, clips)
        wait_for(progress(stack), "progress")
        worker = next(child for child in stack.children if child.name == "worker-0")
        done = {path: path.stat().st_mtime_ns for path in Path(settings.store, "facts").rglob("*.parquet")}
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        stack._spawn(worker)  # what `k2d up` does when it sees a child die
        undisturbed(settings, expected, finish(stack, clips))
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())


@pytest.mark.timeout(600)
def test_sigterm_puts_the_group_back_and_another_worker_finishes_it(settings, clips, expected):
    with Stack(settings) as stack:
        post(stack, clips)
        wait_for(progress(stack), "progress")
        worker = next(child for child in stack.children if child.name == "worker-0")
        worker.process.terminate()
        assert worker.process.wait(30) == 0
        assert stack.client().status("clips", DEFAULT)["jobs"]["jobs_queued"] == 1
        stack._spawn(worker)
        undisturbed(settings, expected, finish(stack, clips))


@pytest.mark.timeout(600)
def test_redis_flushed_mid_batch_then_resume(settings, clips, expected):
    with Stack(settings) as stack:
        post(stack, clips)
        wait_for(progress(stack), "progress")
        Redis.from_url(stack.redis.url).flushall()
        assert sum(stack.client().resume().values()) >= 1
        undisturbed(settings, expected, finish(stack, clips))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_k2d_up_starts_everything_and_stops_it_in_order(tmp_path, settings, stop):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    up = subprocess.Popen(
        [sys.executable, "-m", "k2d.cli", "up"],
        cwd=tmp_path,
        env=environment | {"K2D_PORT": str(settings.port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = Client(f"http://127.0.0.1:{settings.port}")
    wait_for(client.is_up, "k2d up")
    wait_for(lambda: client.http.get("/readyz").status_code == 200, "readiness")
    up.send_signal(stop)
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 0, said
    assert "Traceback" not in said
    assert not client.is_up()


def test_a_body_that_lies_about_its_length_stores_nothing_and_harms_nobody(settings):
    with Stack(settings, workers=0) as stack:
        head = (
            "POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            "Content-Length: {length}\r\n\r\n"
        )
        part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + b"RIFF" * 500
        whole = part + b"\r\n--b--\r\n"
        for length, body in ((len(whole) + 1000, whole), (len(part) // 2, whole), (3 * 1024**3, part)):
            with socket.create_connection((settings.host, settings.port), timeout=20) as connection:
                connection.sendall(head.format(length=length).encode() + body)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536).decode()
            assert not answer or answer.split()[1] in ("400", "413"), answer
        assert stack.client().batches() == []
        assert stack.client().is_up()
    assert not list(Path(settings.store).rglob("uploads/*/*"))


@pytest.mark.timeout(300)
def test_cancel_stops_and_retry_goes_on(settings, clips, expected):
    with Stack(settings) as stack:
        post(stack, clips)
        wait_for(progress(stack), "progress")
        assert stack.client().cancel("clips")["state"] in ("cancelled", "done")
        time.sleep(4)
        left = stack.client().status("clips", DEFAULT)["ledger"]["recordings"]["pending"]
        time.sleep(3)
        assert stack.client().status("clips", DEFAULT)["ledger"]["recordings"]["pending"] == left > 0
        stack.client().retry("clips")
        undisturbed(settings, expected, finish(stack, clips))
