"""bench/gpu_labeling.py at a small shape, on whatever device is here: each engine's fixed number of tokens."""

import json
import subprocess
import sys

import pytest
from places import ROOT
from weights import base

TOKENS = 6


@pytest.mark.slow
@pytest.mark.torch
def test_the_bench_runs_at_a_small_shape() -> None:
    base("transformers")
    small = ["--shape", "tiny", "--recordings", "2", "--minutes", "1", "--tokens", str(TOKENS), "--validate"]
    ran = subprocess.run(
        [sys.executable, "bench/gpu_labeling.py", *small, "--beams", "1", "2", "--batch-sizes", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    rows = report["rows"]
    assert len(rows) == 2 * 2 * 2  # engines, acts, beams
    assert all(row["real_time"] > 0 for row in rows)
    assert {row["tokens"] for row in rows if row["act"] == "label"} == {4 * TOKENS}  # of four windows
