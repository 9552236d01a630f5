"""What importing costs: the kernel and the API pull in no engine, the kernel no web framework and no queue."""

import ast
import re
import subprocess
import sys

import pytest
from places import ROOT

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
        ("services.filter.app", {"fastapi", "starlette", "rq", "uvicorn"}),  # sse_starlette watches for uvicorn's exit
    ],
)
def test_importing_pulls_in_nothing_heavy(module, allowed):
    code = f"import sys, {module}; print(*(m for m in {sorted(HEAVY)} if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(found.stdout.split()) <= allowed


def test_the_kernel_names_neither_services_nor_trainer():
    """Not even in a string: what registers with it is found by entry point (pyproject.toml, group k2d.commands)."""
    named = []
    for path in sorted((ROOT / "k2d").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named += [
                    (str(path.relative_to(ROOT)), node.lineno)
                    for package in ("services", "trainer")
                    if re.search(rf"\b{package}\.[a-z_]", node.value)
                ]
    assert named == []
