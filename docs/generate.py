"""Write docs/cli.md, docs/settings.md and docs/openapi.json from the code. A test fails when they are out of date."""

import json
import sys
from pathlib import Path
from typing import Any

import typer

from k2d.cli import commands  # noqa: F401 — registers them with `app`
from k2d.cli.app import app
from k2d.settings import PREFIX, Settings

HERE = Path(__file__).parent
GENERATED = "<!-- written by docs/generate.py (`make docs`) -->\n\n"


def cli() -> str:
    """Every command's arguments and options, as `--help` tells them."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# The `k2d` command\n",
        "Results go to standard output, progress and errors to standard error. Exit status: "
        "0 done, 1 failed, 2 the request makes no sense.\n",
    ]
    for name, command in sorted(root.commands.items()):
        parts.append(f"## k2d {name}\n\n{_paragraphs(command.help)}\n")
        parts.append(_parameters(command, name))
    return GENERATED + "\n".join(parts)


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _parameters(command: Any, name: str) -> str:
    rows = ["| | |", "|---|---|"]
    with command.make_context(name, [], resilient_parsing=True) as context:
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is None:  # an argument
                record = (parameter.make_metavar(context), getattr(parameter, "help", None) or "")
            if "--help" not in record[0]:
                rows.append(f"| `{record[0].replace('|', chr(92) + '|')}` | {record[1].replace('|', '/').strip()} |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else "No options.\n"


def settings() -> str:
    """Every setting with its default and meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "the user's cache folder, `k2d`" if name == "cache" else f"`{_default(field.default)}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    head = "# Settings\n\nEnvironment variables, or lines of a `.env` file. An unknown `K2D_` variable is refused.\n\n"
    return GENERATED + head + "\n".join(rows) + "\n"


def _default(value: object) -> object:
    secret = getattr(value, "get_secret_value", None)
    return secret() if secret else ("" if value in (None, ()) else value)


def openapi() -> str:
    """The labeling API's description."""
    from services.filter.app import create_app

    return json.dumps(create_app(Settings(_env_file=None)).openapi(), ensure_ascii=False, indent=1) + "\n"


PAGES = {"cli.md": cli, "settings.md": settings, "openapi.json": openapi}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (HERE / page).write_text(write(), "utf-8")
        print(f"docs/{page}", file=sys.stderr)
