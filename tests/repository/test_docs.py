"""The documentation says what the code does: generated pages are up to date, the README's commands exist."""

import re
import runpy

import pytest
from places import ROOT

DOCS = ROOT / "docs"


GENERATED = ["cli.md", "settings.md", "recipe.md", "openapi.json", "../deploy/helm/k2d/values.schema.json"]


@pytest.mark.parametrize("page", GENERATED)
def test_generated_pages_are_up_to_date(page, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    pages = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
    assert set(pages) == set(GENERATED)
    assert (DOCS / page).read_text("utf-8") == pages[page](), "run `make docs`"


def test_every_command_in_the_readme_exists():
    from k2d.cli.base import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"^\$ (?:K2D_\S+ )?k2d (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert named
    assert named <= known


TRAINING = re.compile(
    r"^(?:\w+=\S+ )*(?:docker compose run .*?(?=k2d|torchrun)|.*?\$ )?((?:k2d|torchrun|accelerate) .+?)(?: {2,}#.*)?$"
)


def test_the_trainer_s_commands_in_the_guides_are_taken():
    """Parsed by the launchers' own parsers and by the CLI; nothing runs."""
    pytest.importorskip("torch")
    import shlex

    import typer
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    from k2d.cli import commands# noqa: F401 — registers them
    from k2d.cli.base import app

    launchers = {"torchrun": get_args_parser(), "accelerate": launch_command_parser()}
    known = typer.main.get_command(app).commands
    checked = []
    for page in ("training.md", "compose.md"):
        blocks = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
        for line in filter(None, map(TRAINING.match, "".join(blocks).splitlines())):
            program, *words = shlex.split(line[1])
            if program in launchers:
                words = words[1:] if program == "accelerate" else words
                launched = launchers[program].parse_args(words)
                assert (launched.module, launched.training_script) == (True, "trainer")
                words = ["train", *launched.training_script_args]
            known[words[0]].make_context(words[0], words[1:])
            checked.append((page, program, words[0]))
    assert set(checked) >= {("training.md", "torchrun", "train"), ("training.md", "accelerate", "train")}
    assert set(checked) >= {(page, "k2d", name) for page in ("training.md", "compose.md") for name in ("train", "eval")}


def test_relative_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
