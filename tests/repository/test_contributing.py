"""CONTRIBUTING.md's list is true: what it names exists, and what it says is enough is enough."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

LIST = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## To add")[1].split("\n## ")[0]
ROWS = [
    (what.strip(), change)
    for what, change in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", LIST, re.MULTILINE)
    if what.strip() not in ("to add", "---")
]
NAMED = [
    (what, path, re.findall(r"`(\w+)`", symbols or ""))
    for what, change in ROWS
    for path, symbols in re.findall(r"`([\w/.*]+\.py)`(?: \(([^)]*)\))?", change)
]


def test_the_list_has_the_kinds_of_change_people_make():
    kinds = " ".join(what for what, _ in ROWS)
    for kind in ("metric", "validator", "engine", "evidence feature", "rule", "setting", "command", "export"):
        assert kind in kinds


@pytest.mark.parametrize(("what", "path", "symbols"), NAMED, ids=[f"{what}: {path}" for what, path, _ in NAMED])
def test_what_a_row_names_exists(what, path, symbols):
    files = sorted(ROOT.glob(path))
    assert files, f"{what}: {path} is not there"
    for symbol in symbols:
        assert any(symbol in _defined(file) for file in files), f"{what}: {path} defines no {symbol}"


def _defined(file: Path) -> set[str]:
    """Names a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


# ---- adding one of a kind to a copy of the kernel, by the files of its row alone ------------------------------------


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "k2d", copy / "k2d", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


class Change:
    """Edits of a copied kernel; knows which files of it were touched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.touched: set[str] = set()

    def insert(self, path: str, before: str, text: str) -> None:
        file = self.root / path
        source = file.read_text("utf-8")
        assert source.count(before) == 1, f"{path} has {before!r} {source.count(before)} times"
        file.write_text(source.replace(before, text + before), "utf-8")
        self.touched.add(path)

    def create(self, path: str, text: str) -> None:
        (self.root / path).write_text(text, "utf-8")
        self.touched.add(path)

    def allowed_by(self, row: str) -> bool:
        """Whether the row of CONTRIBUTING.md names every file that was touched."""
        patterns = [path for what, path, _ in NAMED if row in what]
        return all(any(Path(path).match(pattern) for pattern in patterns) for path in self.touched)

    def run(self, code: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=self.root, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


def test_a_metric_is_added_by_its_row(kernel):
    change = Change(kernel)
    change.insert("k2d/schema.py", '    COMPOSITE = "composite"', '    HALF_MER = "half_mer"\n')
    change.insert(
        "k2d/filtering/policy/metrics.py",
        "    Metric.PER: DistanceMetric(",
        '    Metric.HALF_MER: DistanceMetric(_MER, lambda c, _: _rate("mer", c) / 2, "half MER", "half of MER"),\n',
    )
    assert change.allowed_by("metric")
    assert len(change.touched) <= 3
    said = change.run(
        "from k2d.filtering.policy import Policy, explain, verdict\n"
        "from k2d.filtering.distance import compare\n"
        "policy = Policy(name='half', metric='half_mer', alpha=0.3)\n"
        "far = compare('今天天氣很好', ['今天天氣真好'])\n"
        "print(verdict(policy, far).status, verdict(policy.model_copy(update={'alpha': 0.01}), far).status)\n"
        "print(explain(policy))"
    )
    assert said.splitlines()[0] == "accepted rejected"
    assert "half of MER" in said


def test_a_validator_is_added_by_its_row(kernel):
    change = Change(kernel)
    change.create(
        "k2d/validators/silent.py",
        "async def open_validator(name, opening):\n    return ('opened', name)\n",
    )
    change.insert(
        "k2d/validators/names.py",
        '    ValidatorKind(re.compile(".+", re.DOTALL)',
        '    ValidatorKind(re.compile("silent"), "k2d.validators.silent"),\n',
    )
    assert change.allowed_by("validator")
    assert len(change.touched) <= 3
    said = change.run(
        "import asyncio, importlib\n"
        "from k2d.validators.names import kind_of, validators_of, models_of\n"
        "print(validators_of('perturbed+silent'), models_of('perturbed+silent'))\n"
        "print(asyncio.run(importlib.import_module(kind_of('silent').module).open_validator('silent', None)))"
    )
    assert said.splitlines() == ["('perturbed', 'silent') ()", "('opened', 'silent')"]


def test_an_engine_is_added_by_its_row(kernel, tmp_path):
    change = Change(kernel)
    change.create(
        "k2d/whisper/echo_engine.py",
        "class EchoEngine:\n"
        "    def __init__(self, resolved, *, device, compute_type, threads):\n"
        "        self.resolved = resolved\n",
    )
    change.insert("k2d/schema.py", '    TRANSFORMERS = "transformers"', '    ECHO = "echo"\n')
    change.insert(
        "k2d/whisper/engines.py",
        "    EngineName.TRANSFORMERS: EngineKind(",
        "    EngineName.ECHO: EngineKind(\n"
        '        "k2d.whisper.echo_engine", "EchoEngine", (), extra="ct2", format="transformers"\n'
        "    ),\n",
    )
    assert change.allowed_by("engine")
    assert len(change.touched) <= 3
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}", "utf-8")
    said = change.run(
        "from pathlib import Path\n"
        "from k2d.settings import Settings\n"
        "from k2d.inference.open import engine_of\n"
        f"settings = Settings(engine='echo', cache=Path({str(tmp_path / 'cache')!r}), _env_file=None)\n"
        f"print(engine_of({str(model)!r}, settings).resolved.path.name)"
    )
    assert said == "model"
