"""The whole walk with the teacher on a server: not one byte of a label changes, and a dead server loses nothing."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import EXAMPLES
from servers import Server, serve
from stored_shards import shards
from weights import base

from k2d.client.embedded import Embedded
from k2d.documents import BatchOptions
from k2d.errors import ModelError
from k2d.filtering.policy import DEFAULT
from k2d.settings import Settings
from services.local.redis_server import free_port
from services.local.stack import Stack

pytestmark = [pytest.mark.integration]

DEADLINE_S = 240


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("cs-clean-1.flac", "cs-clean-4.m4a", "cs-loud-noise.mp3"):
        shutil.copy(EXAMPLES / name, folder)
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> dict[str, bytes]:
    """The shards of a run with the model in the process."""
    calm = tmp_path_factory.mktemp("calm")
    label(Settings(store=str(calm), _env_file=None), clips)
    return shards(calm)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = serve(tmp_path / "teacher.log")
    yield server
    server.stop()


def label(settings: Settings, clips: Path) -> None:
    Embedded(settings).label([str(clips)], BatchOptions(name="talks"), wait=True, on_status=lambda _: None)


def test_a_killed_server_costs_time_and_nothing_else(
    server: Server, clips: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    settings = Settings(
        store=str(tmp_path / "lake"), teacher=server.url, port=free_port(), log_level="warning", _env_file=None
    )
    with Stack(settings, workers=1, log_file=tmp_path / "stack.log") as stack:
        client = stack.client()
        client.label([str(clips)], BatchOptions(name="talks"), wait=False, on_status=lambda _: None)
        wait_for(lambda: server.metric("k2d_batch_size_count") > 1 or server.metric("k2d_waiting") > 0, "work")
        server.kill()
        time.sleep(1)
        server.restart()
        wait_for(lambda: client.status("talks", DEFAULT)["state"] == "done", "the batch")
    assert shards(tmp_path / "lake") == expected


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE_S} s"
        time.sleep(0.2)


def test_teacher_and_validator_must_not_be_the_same_weights(server: Server, clips: Path, tmp_path: Path) -> None:
    settings = Settings(
        store=str(tmp_path / "lake"), teacher=server.url, validator="packaged:whisper-base", _env_file=None
    )
    with pytest.raises(ModelError, match="same weights"):
        label(settings, clips)


@pytest.mark.parametrize(
    ("role", "settings", "why"),
    [
        ("teacher", {"teacher": "/nowhere"}, "no model at '/nowhere'"),
        ("teacher", {"teacher": "http://elsewhere:1"}, "is an address: a server needs a model"),
        ("validator", {}, "perturbed needs no server"),
        ("teacher", {"teecher": "x"}, "unknown setting: K2D_TEECHER"),
    ],
)
def test_a_server_that_cannot_serve_ends_and_says_why(
    role: str, settings: dict[str, str], why: str, tmp_path: Path
) -> None:
    server = Server(tmp_path / "log", role=role, **settings)
    assert server.process.wait(60) not in (0, -signal.SIGKILL)
    log = server.log.read_text()
    assert why in log
    assert "Traceback" not in log


def test_truncated_weights_end_the_server_with_their_name(tmp_path: Path) -> None:

    folder = tmp_path / "model"
    shutil.copytree(base().path, folder)
    with (folder / "model.bin").open("r+b") as file:
        file.truncate(1_000_000)
    server = Server(tmp_path / "log", teacher=folder)
    assert server.process.wait(60) == 1
    log = server.log.read_text()
    assert "model.bin" in log
    assert "Traceback" not in log
