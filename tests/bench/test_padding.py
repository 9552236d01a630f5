"""A short form of bench/padding.py: sorting never adds padding, and a step that is one micro-batch has the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

from frozen_sets import NAME, frozen
from places import ROOT
from weights import base


def test_sorted_rows_have_less_padding(tmp_path: Path) -> None:
    base()
    frozen(tmp_path / "lake")
    ended = subprocess.run(
        [sys.executable, "bench/padding.py", NAME, "--batch", "16", "--micro-batch", "2", "16", "--steps", "5"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "K2D_STORE": str(tmp_path / "lake")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    two, sixteen = re.findall(r"^\| 16 \| \d+ \|.*", ended.stdout, re.MULTILINE)
    unsorted, in_order = (int(cell) for cell in re.findall(r"(\d+)%", two)[:2])
    assert in_order < unsorted
    assert sixteen.endswith("| 0% |")
