"""`k2d serve`: its server is started again when it dies, and ends with it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from servers import Server
from weights import base

pytestmark = [pytest.mark.integration]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    base()
    server = Server(tmp_path / "log")
    yield server.wait_ready()
    server.stop()


def test_a_server_that_is_killed_is_started_again_and_stops_when_told_to(server: Server) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV):
        child = server.child
        child.send_signal(number)
        psutil.wait_procs([child])
        server.wait_ready()
        assert server.child.pid != child.pid
    assert "teacher ended with signal SIGKILL" in server.log.read_text()
    child = server.child
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(120) == 0
    assert not child.is_running()
    assert "Traceback" not in server.log.read_text()


def test_a_server_ends_with_its_supervisor(server: Server) -> None:
    child = server.child
    server.process.kill()
    server.process.wait()
    gone, left = psutil.wait_procs([child], timeout=120)
    assert (gone, left) == ([child], [])
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "/healthz")


@pytest.mark.parametrize("command", ["serve", "module"])
def test_a_taken_port_is_one_sentence_before_a_model_is_loaded(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        arguments = {
            "serve": ["-m", "k2d.cli", "serve", "teacher", "--port", str(port)],
            "module": [
                "-c",
                f"import os; os.environ['K2D_PORT'] = '{port}'; from services.inference.serving import serve; "
                "serve('teacher')",
            ],
        }[command]
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"K2D_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken by another program" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "ready" not in ended.stderr
