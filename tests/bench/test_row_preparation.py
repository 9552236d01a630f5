"""A short form of bench/row_preparation.py: every measurement comes out, and parts are shares of a whole."""

import os
import re
import subprocess
import sys

import pytest
from places import ROOT
from weights import base

pytest.importorskip("torch", reason="needs the torch extra")


@pytest.mark.slow
def test_the_bench_prints_its_tables() -> None:
    base()
    # in a process of its own, since benches and tests have modules of the same names
    workers = ["--workers", "1", "--launch-workers", "1"]
    arguments = ["--rows", "8", "--batch", "2", "--steps", "2", "--rounds", "1", "--launch-s", "0.1"]
    ended = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "row_preparation.py"), *arguments, *workers],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    (shares,) = re.findall(r"^\| share \|(.*)", ended.stdout, re.MULTILINE)
    assert sum(map(int, re.findall(r"(\d+)%", shares))) == pytest.approx(100, abs=2)  # rounded
    streams = re.findall(r"^\| 1 (\w+) \| ([\d.]+) \| ([\d.]+) \|", ended.stdout, re.MULTILINE)
    assert [kind for kind, _, _ in streams] == ["threads", "processes"]
    assert all(float(rows_s) > 0 for _, *speeds in streams for rows_s in speeds)
    assert len(re.findall(r"^\| 1 (?:threads|processes) \| \d+% \|", ended.stdout, re.MULTILINE)) == 2
