"""The documentation says what the code does: generated pages are up to date; links, paths, commands, options, settings
and Python names that the pages mention exist."""

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import lakes
import pytest
import typer
from places import ROOT

import k2d
from k2d.cli import commands  # noqa: F401 — registers them
from k2d.cli.base import app
from k2d.settings import PREFIX, Settings
from k2d.store import Lake

DOCS = ROOT / "docs"
GENERATED = ["cli.md", "settings.md", "recipe.md", "openapi.json", "../deploy/helm/k2d/values.schema.json"]
# What was measured and decided when: these pages keep the names of their time.
RECORDS = [ROOT / "CHANGELOG.md", DOCS / "LOG.md", *DOCS.glob("adr/*.md"), *DOCS.glob("study/*.md")]
PAGES = sorted(
    {*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"), *ROOT.glob("deploy/**/*.md")}
)
CURRENT = [page for page in PAGES if page not in RECORDS]  # must be true today
GUIDES = [page for page in CURRENT if page.parent != ROOT and page not in [DOCS / name for name in GENERATED]]
LONGEST = 160  # characters in a line of prose; about 120 is usual
FOLDERS = "k2d|services|trainer|deploy|docs|tests|bench|examples|requirements"


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", CURRENT, ids=named)


# ---- generated pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", GENERATED)
def test_generated_pages_are_up_to_date(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    writers = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
    assert set(writers) == set(GENERATED)
    assert (DOCS / page).read_text("utf-8") == writers[page](), "run `make docs`"


# ---- links, paths, names ------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives a page's headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text("utf-8")):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"a link to {link}"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{path or page.name} has no heading #{fragment}"


@pages
def test_paths_of_the_repository_exist(page: Path) -> None:
    for path in re.findall(rf"(?<![\w/.:<-])((?:{FOLDERS})/[\w./-]*\w)", page.read_text("utf-8")):
        assert (ROOT / path).exists(), f"{path} is not in the repository"


@pages
def test_python_names_exist(page: Path) -> None:
    """`k2d.module.name` in code spans, and the imports of code blocks. (`trainer.…` may be a value of the chart.)"""
    text = page.read_text("utf-8")
    for name in re.findall(r"`((?:k2d|services)\.[a-z_]+(?:\.\w+)*)`", text):
        resolve(name)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in FOLDERS.split("|"):
                if node.module == "k2d" and not hasattr(k2d, "__all__"):
                    continue  # its public names are not exported yet
                for alias in node.names:
                    resolve(f"{node.module}.{alias.name}")


def resolve(name: str) -> Any:
    """What a dotted name names: a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            assert hasattr(found, attribute), f"{name}: no {attribute}"
            found = getattr(found, attribute)
        return found
    raise AssertionError(f"{name} does not exist")


@pytest.mark.skipif(not hasattr(k2d, "__all__"), reason="the public names are not exported yet")
def test_the_examples_of_the_python_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path / "data"))
    lake.batches.put(lakes.batch(2))
    for number in range(2):
        result = lakes.put_recording(lake, number, [(0.0, 4.0), (4.0, 9.0)], rejected=frozenset({number}))
        lake.batches.put_result(lakes.batch(2).id, result)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["manifest"].counts.rows == 2
    assert names["flac"].startswith(b"fLaC")


@pages
def test_variables_are_settings(page: Path) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"\bK2D_[A-Z][A-Z0-9_]*", page.read_text("utf-8"))) <= known


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_lines_are_not_too_long(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL).splitlines()
    lines = [line for line in prose if len(line) > LONGEST and not line.startswith(("|", "    "))]
    assert not lines, f"{len(lines)} lines of more than {LONGEST} characters, the first: {lines[0][:80]}…"


# ---- commands -----------------------------------------------------------------------------------------------------

CLI: Any = typer.main.get_command(app)
# where a command stands: at the start of a line or span, after a prompt, variables, `&&`, or a container's name
CALL = re.compile(r"(?:^|[$&|;{] |\b[A-Z]\w*=\S+ |\b(?:trainer|trainer-gpu|api|teacher-cpu) )k2d ([a-z]+)(.*)")


def calls(text: str) -> Iterator[tuple[str, str, bool]]:
    """Every call of `k2d` in a page: the command, the rest of the line, and whether the line is in a code block."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        yield from ((found[1], found[2], True) for found in CALL.finditer(line))
    for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines():
        for span in re.findall(r"`([^`]*)`", line):
            yield from ((found[1], found[2], False) for found in CALL.finditer(span))


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    for name, rest, in_block in calls(page.read_text("utf-8")):
        assert name in CLI.commands, f"k2d {name}"
        command = CLI.commands[name]
        rest = re.split(r" #| [&|] |;|\)", rest)[0]
        if inner := getattr(command, "commands", None):
            verb, _, rest = rest.strip().partition(" ")
            assert verb in inner, f"k2d {name} {verb}"
            command = inner[verb]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", rest))
        assert used <= known | {"--help"}, f"k2d {name}: {used - known}"
        if in_block and "…" not in rest and "DIR" not in rest:
            try:
                command.make_context(name, shlex.split(rest.removesuffix(" &")))
            except click.UsageError as error:
                raise AssertionError(f"k2d {name}{rest}: {error.message}") from error


def test_the_launchers_in_the_training_guides_are_taken() -> None:
    """`torchrun` and `accelerate launch` lines, by the launchers' own parsers and by the CLI; nothing runs."""
    pytest.importorskip("torch")
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    launchers = {"torchrun": get_args_parser(), "accelerate launch": launch_command_parser()}
    checked = set()
    for page in ("training.md", "compose.md"):
        text = (DOCS / page).read_text("utf-8")
        for launcher, words in re.findall(r"\b(torchrun|accelerate launch) (--.*-m trainer [^#`\n]+)", text):
            launched = launchers[launcher].parse_args(shlex.split(words))
            assert (launched.module, launched.training_script) == (True, "trainer")
            CLI.commands["train"].make_context("train", launched.training_script_args)
            checked.add((page, launcher))
    assert checked == {("training.md", "torchrun"), ("training.md", "accelerate launch"), ("compose.md", "torchrun")}
