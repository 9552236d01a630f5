"""Every bench starts: what it imports of the project is still there, under that name."""

import subprocess
import sys

from places import ROOT

# in a process of its own, since benches and tests have modules of the same names
IMPORT_ALL = """
import importlib, sys, traceback
from pathlib import Path
sys.path.insert(0, "bench")
for path in sorted(Path("bench").glob("*.py")):
    try:
        importlib.import_module(path.stem)
    except Exception:
        traceback.print_exc()
        sys.exit(path.name + " cannot be imported")
"""


def test_every_bench_can_be_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
