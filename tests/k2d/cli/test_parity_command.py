"""`k2d parity` with real weights: the same model is the same, another precision is measured, drift ends with 1."""

import json
import sys
from collections.abc import Callable, Iterator

import pytest
from places import EXAMPLES
from servers import Server, serve
from weights import BASE, base

from k2d.cli import main

pytestmark = [pytest.mark.integration]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    base()

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["k2d", "parity", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = serve(tmp_path_factory.mktemp("parity") / "log")
    yield server
    assert server.stop() == 0


def test_a_model_and_its_server_give_the_same_labels(parity: Run, server: Server) -> None:
    code, out, _ = parity(f"local:{BASE}", server.url, str(EXAMPLES / "en-clean.mp3"), "--json")
    report = json.loads(out)
    assert code == 0
    assert report["passed"]
    assert [row["name"] for row in report["recordings"]][3:] == ["en-clean.mp3"]
    assert all(row["identical"] for row in report["recordings"])
    assert report["a"]["fingerprint"] == report["b"]["fingerprint"]
    assert report["recordings"][3]["mer_a"] < 0.1  # what is said stands in the manifest beside the file
    assert report["mer_a"] == report["mer_b"] < 0.2


def test_the_table_tells_it_to_people(parity: Run, server: Server) -> None:
    code, out, err = parity(server.url, server.url)
    assert code == 0
    assert "3 of 3 identical" in out
    assert "one fingerprint" in out
    assert "mixed.flac" in out
    assert server.url in err


def test_drift_beyond_the_limit_ends_with_one(parity: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another precision: about the same on clear speech, and not in noise."""
    monkeypatch.setenv("K2D_COMPUTE_TYPE", "float32")
    noisy = [str(EXAMPLES / name) for name in ("cs-babble.mp3", "cs-loud-noise.mp3")]
    code, out, err = parity(server.url, f"local:{BASE}", *noisy, "--json")
    report = json.loads(out)
    assert code == 1
    assert "B drifts from A by" in err
    assert "--max-drift" in err
    assert not report["passed"]
    assert report["a"]["fingerprint"] != report["b"]["fingerprint"]
    assert report["drift"] > 0
    assert not any(row["identical"] for row in report["recordings"])  # signals at least differ
    code, out, _ = parity(server.url, f"local:{BASE}", "--max-drift", "0.1")
    assert code == 0
    assert "different fingerprints" in out


def test_what_cannot_be_compared_is_named(parity: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2D_SERVER_PATIENCE_S", "0")
    code, _, err = parity(server.url, server.url, str(EXAMPLES / "cut-off.flac"))
    assert code == 2
    assert "cut-off.flac" in err
    code, _, err = parity(server.url, "http://127.0.0.1:9")
    assert code == 1
    assert "127.0.0.1:9" in err
