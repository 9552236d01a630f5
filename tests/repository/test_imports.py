"""What importing costs: the kernel and the API pull in no engine, the kernel no web framework and no queue."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "ctranslate2", "fastapi", "starlette", "uvicorn", "rq"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("k2d", set()),
        ("k2d.labeling.recording", set()),
        ("k2d.client.embedded", set()),
        ("k2d.client.http", set()),
        ("k2d.cli.base", set()),
        ("k2d.whisper.engine", set()),
        ("services.filter.app", {"fastapi", "starlette", "uvicorn", "rq"}),
    ],
)
def test_importing_pulls_in_nothing_heavy(module, allowed):
    code = f"import sys, {module}; print(*(m for m in {sorted(HEAVY)} if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(found.stdout.split()) <= allowed
