"""`k2d doctor` in broken surroundings: every check says what is wrong and what to do, and none crashes."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from k2d.client.http import Client
from k2d.settings import load
from services.commands.doctor import Finding, FindingState, _checks, _run_check

# a folder in which nobody can make a file, not even root
UNWRITABLE = Path("/proc")
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with a file in it, and no API."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", None)  # found once a process
    monkeypatch.setattr(Client, "is_up", lambda _: False)  # whatever else runs on this machine


def findings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Finding]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load()
    return {name: _run_check(name, needed, check, settings) for name, needed, check in _checks(settings)}


@pytest.mark.parametrize(
    ("environment", "broken"),
    [
        ({"K2D_STORE": "file"}, {"store": "file is a file, not a folder"}),
        ({"K2D_STORE": "file/lake"}, {"store": "file is a file, not a folder, so "}),
        pytest.param(
            {"K2D_STORE": f"{UNWRITABLE}/lake"},
            {"store": f"cannot be made: {UNWRITABLE} cannot be written"},
            marks=ON_LINUX,
        ),
        pytest.param({"K2D_STORE": str(UNWRITABLE)}, {"store": "cannot be written"}, marks=ON_LINUX),
        ({"K2D_STORE": "nowhere://bucket"}, {"store": "Protocol not known"}),
        (
            {"K2D_CACHE": "file"},
            {"cache": "file is a file", "teacher": "not fetched yet, and the cache cannot take it"},
        ),
        (
            {"K2D_TEACHER": "openai/whisper-tiny", "K2D_CACHE": "empty", "K2D_ALLOW_DOWNLOADS": "false"},
            {"teacher": "openai/whisper-tiny"},
        ),
        ({"K2D_TEACHER": "./file"}, {"teacher": "no model at"}),
        ({"K2D_VALIDATOR": "sherpa:none"}, {"validator": "no such folder"}),
        ({"K2D_REDIS_URL": "redis://127.0.0.1:1/0"}, {"Redis": "does not answer"}),
        ({"K2D_REDIS_URL": "nonsense"}, {"Redis": "is no address of a Redis"}),
        ({"TMPDIR": "gone"}, {"temporary files": "TMPDIR is gone, which cannot be written"}),
        ({"TMPDIR": "file"}, {"temporary files": "TMPDIR is file, which cannot be written"}),
    ],
)
def test_every_check_says_what_is_wrong_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], broken: dict[str, str]
) -> None:
    expected = {name for name, finding in findings(monkeypatch).items() if not finding.ok} | set(broken)
    monkeypatch.setattr(tempfile, "tempdir", None)
    found = findings(monkeypatch, **environment)
    assert {name for name, finding in found.items() if not finding.ok} == expected
    for name, text in broken.items():
        assert text in found[name].seen
    for finding in found.values():
        assert "was not foreseen" not in finding.advice
        assert finding.ok or finding.advice, finding


def test_a_disk_that_is_full_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.commands.doctor.LOW_DISK_BYTES", 1 << 60)
    found = findings(monkeypatch)
    assert "free at" in found["disk"].seen
    assert found["disk"].advice
    assert found["disk"].state is FindingState.BROKEN
    assert found["temporary files"].seen.endswith("is on the disk of the store")  # one fault, said once
    monkeypatch.setattr(tempfile, "tempdir", None)
    if sys.platform == "linux" and os.access("/dev/shm", os.W_OK):
        elsewhere = findings(monkeypatch, TMPDIR="/dev/shm")["temporary files"]
        assert "free at /dev/shm" in elsewhere.seen


def test_a_file_in_place_of_the_cache_is_broken_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(monkeypatch, K2D_CACHE="file")["cache"].state is FindingState.BROKEN


def test_looking_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("K2D_STORE", raising=False)
    findings(monkeypatch, K2D_CACHE=str(tmp_path / "cache"), K2D_TEACHER="openai/whisper-tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
