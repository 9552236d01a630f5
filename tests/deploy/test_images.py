"""What images and packages are made of: the modules they start exist, and the wheel has the files the code reads."""

import importlib.util
import re
import zipfile
from pathlib import Path

import pytest
from places import ROOT

import k2d

DEPLOYED = [
    ROOT / "docker-compose.yml",
    *(ROOT / "deploy").rglob("Dockerfile"),
    *(ROOT / "deploy").rglob("*.sh"),
    *(ROOT / "deploy" / "helm").rglob("templates/*"),
]
OURS = r"(?:k2d|services|trainer)(?:\.\w+)*"


def modules(text: str) -> set[str]:
    """Modules of ours that a file starts with `-m`, imports, or gives to uvicorn."""
    started = re.findall(rf"""-m["',\s]+({OURS})\b""", text) + re.findall(rf"\b({OURS}):create_app", text)
    imported = [part.strip() for line in re.findall(r"\bimport ([\w., ]+)", text) for part in line.split(",")]
    return set(started) | {name for name in imported if re.fullmatch(OURS, name)}


def test_modules_that_are_started_exist() -> None:
    named = set().union(*(modules(path.read_text("utf-8")) for path in DEPLOYED))
    assert named >= {"services.filter.app", "services.filter.worker", "services.tritonserver", "k2d.whisper.ct2_engine"}
    for name in named:
        assert importlib.util.find_spec(name) is not None, name
        if (package := importlib.util.find_spec(name)) is not None and package.submodule_search_locations:
            assert importlib.util.find_spec(f"{name}.__main__") is not None, f"{name} cannot be started"


def test_the_wheel_has_every_file_of_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        packed = set(wheel.namelist())
    files = {
        str(path.relative_to(ROOT))
        for package in ("k2d", "services", "trainer")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "services/tritonserver/requirements.txt" in files
    assert files <= packed
    assert {name.partition("/")[0] for name in packed - files} == {f"k2d-{k2d.__version__}.dist-info"}
