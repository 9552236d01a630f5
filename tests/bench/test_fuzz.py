"""A short form of bench/fuzz.py: a few of each kind of input, with a seed of its own; `make test` has no more time."""

import sys
from pathlib import Path

import pytest
from places import ROOT

pytest.importorskip("schemathesis")
sys.path.insert(0, str(ROOT / "bench"))

import fuzz

pytestmark = pytest.mark.integration


def test_generated_requests_and_hostile_bodies_find_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--files", "0", "--requests", "160", "--bodies", "160", "--model", "none"]
    code = fuzz.main([*arguments, "--out", str(tmp_path / "failures")])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "labeling: requests" in printed
    assert "inference: hostile" in printed


def test_mutated_files_crash_nothing_but_the_decoding_child(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = fuzz.main(["--files", "60", "--requests", "0", "--bodies", "0", "--out", str(tmp_path / "failures")])
    assert code == 0, capsys.readouterr().out
