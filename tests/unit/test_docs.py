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
    from k2d.cli.app import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"^\$ (?:K2D_\S+ )?k2d (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert named
    assert named <= known


def test_relative_links_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
