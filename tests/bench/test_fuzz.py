"""A short form of bench/fuzz.py: a few of each kind of input, with a seed of its own; `make test` has no more time."""

import random
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from places import ROOT

pytest.importorskip("schemathesis")
sys.path.insert(0, str(ROOT / "bench"))

import fuzz
import fuzz_audio
import fuzz_requests
from fuzz_outcomes import Outcomes
from fuzz_servers import Api, serving

pytestmark = pytest.mark.integration


def test_generated_requests_and_hostile_bodies_find_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--files", "0", "--requests", "100", "--bodies", "60", "--model", "none"]
    code = fuzz.main([*arguments, "--out", str(tmp_path / "failures")])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "labeling: requests" in printed
    assert "inference: hostile" in printed


def test_mutated_files_crash_nothing_but_the_decoding_child(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = fuzz.main(["--files", "30", "--requests", "0", "--bodies", "0", "--out", str(tmp_path / "failures")])
    assert code == 0, capsys.readouterr().out


def test_faults_of_an_api_are_seen_and_saved(tmp_path: Path) -> None:
    app = FastAPI()

    @app.get("/halves")
    def halves(number: int) -> dict[str, int]:
        return {"half": 100 // (number % 2)}

    @app.get("/teapot")
    def teapot() -> JSONResponse:
        return JSONResponse({}, status_code=418)

    @app.get("/count", response_model=int)
    def count() -> JSONResponse:
        return JSONResponse("many")

    with serving(app) as url:
        outcomes = fuzz_requests.run(Api("faulty", url, app, {}), requests_wanted=60, seed=0, folder=tmp_path)
    faults = "\n".join(outcomes.faults)
    assert "GET /halves: 500" in faults
    assert "GET /teapot: Undocumented status code" in faults
    assert "GET /count: Response violates schema" in faults
    assert len(list(tmp_path.iterdir())) == len(outcomes.faults)


def test_an_exception_of_the_decoder_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(fuzz_audio.isolated, "examine", broken)
    outcomes = Outcomes("audio", tmp_path)
    fuzz_audio._decode("x", b"RIFF", outcomes, as_upload=True)
    assert list(outcomes.faults) == ["IndexError: list index out of range"]


def test_the_same_seed_damages_the_same() -> None:
    damaged = {fuzz_audio._mutated(b"0123456789" * 100, b"abc" * 100, random.Random("7/1")) for _ in range(3)}
    assert len(damaged) == 1
