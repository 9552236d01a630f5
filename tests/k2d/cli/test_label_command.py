"""`k2d label` as a whole, with real weights: how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from factories import tone
from lakes import flac
from weights import BASE, base, cache

pytestmark = pytest.mark.integration

PATIENCE_S = 200


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    base()
    keep = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    return keep | {"K2D_STORE": str(tmp_path / "lake"), "K2D_TEACHER": BASE, "K2D_CACHE": str(cache())}


def test_the_status_says_whether_anything_was_labeled(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken.flac").write_bytes(b"not audio")
    (tmp_path / "good.flac").write_bytes(flac(tone(2.0)))
    for files, code in ((["broken.flac"], 1), (["broken.flac", "good.flac"], 0)):
        command = [sys.executable, "-m", "k2d.cli", "label", "--embedded", *files]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert ended.returncode == code, ended.stderr
        assert "broken.flac" in ended.stdout
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on(
    environment: dict[str, str], tmp_path: Path, examples: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "k2d.cli", "label", "--embedded", str(examples)]
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE_S
    while not list((tmp_path / "lake").glob("batches/*/batch.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(number)
    _, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 128 + number, err
    assert "run the same command again" in err
    assert "Traceback" not in err


def test_a_dry_run_ends_as_the_real_run_would(environment: dict[str, str], tmp_path: Path) -> None:
    class NoSuchModel(BaseHTTPRequestHandler):
        """A hub that has nothing."""

        def do_GET(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "k2d.cli", "label", "--embedded", "--dry-run", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    (tmp_path / "broken.flac").write_bytes(b"not audio")
    ended = dry_run("broken.flac")
    assert (ended.returncode, "unreadable: broken.flac" in ended.stdout) == (1, True)
    assert "nothing can be labeled: none of 1 file is audio" in ended.stderr
    (tmp_path / "good.flac").write_bytes(flac(tone(2.0)))
    with ThreadingHTTPServer(("127.0.0.1", 0), NoSuchModel) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
        ended = dry_run("good.flac", "--teacher", "openai/whisper-larg")
        assert (ended.returncode, "the hub refuses openai/whisper-larg" in ended.stderr) == (1, True), ended.stderr
        hub.shutdown()
    assert not (tmp_path / "lake").exists()
