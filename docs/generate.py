"""Write docs/cli.md, settings.md, recipe.md and openapi.json from the code, and the recipe's keys into the chart's
schema. A test fails when they are out of date."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import typer

from k2d.cli import commands  # noqa: F401 — registers them with `app`
from k2d.cli.base import app
from k2d.settings import PREFIX, Settings
from trainer.options import PRESETS, Recipe
from trainer.run.runs import MAY_CHANGE

HERE = Path(__file__).parent
CHART = HERE.parent / "deploy" / "helm" / "k2d"
GENERATED = "<!-- written by docs/generate.py (`make docs`) -->\n\n"


def cli() -> str:
    """Every command's arguments and options, as `--help` shows them."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# The `k2d` command\n",
        "Results go to standard output, progress and errors to standard error. Exit status: 0 done, 1 failed,\n"
        "2 the request makes no sense.\n",
    ]
    for name, command in sorted(root.commands.items()):
        parts.append(f"## k2d {name}\n\n{_paragraphs(command.help)}\n")
        if inner := getattr(command, "commands", None):  # a group
            for verb, subcommand in inner.items():
                parts += [f"### k2d {name} {verb}\n\n{_paragraphs(subcommand.help)}\n", _parameters(subcommand, verb)]
            continue
        parts.append(_parameters(command, name))
    return GENERATED + "\n".join(parts)


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(map(_wrapped, (text or "").split("\n\n")))


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False)


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
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return secret() if secret else ("" if value is None else value)


def recipe() -> str:
    """Every key of a recipe: what it may be, its value in each preset, whether a resumed run may change it."""
    columns = ["key", "takes", *PRESETS, "resume", "meaning"]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    schema = Recipe.model_json_schema()["properties"]
    for name, field in Recipe.model_fields.items():
        values = [_value(getattr(preset, name)) for preset in PRESETS.values()]
        values[1:] = ["" if value == values[0] else value for value in values[1:]]
        may = "may change" if name in MAY_CHANGE else ""
        rows.append(f"| `{name}` | {_takes(schema[name])} | {' | '.join(values)} | {may} | {field.description or ''} |")
    head = _paragraphs(
        "# Recipe keys\n\n`k2d train … --recipe PRESET-OR-FILE --set KEY=VALUE`. A file is YAML, `key: value`, with "
        "the defaults for what it leaves out. An unknown key is refused. A preset's column is empty where it has the "
        "default. *May change*: a run may go on (`--resume`) with another value; any other key makes another run. "
        "How to train: [training.md](training.md)."
    )
    return GENERATED + head + "\n\n" + "\n".join(rows) + "\n"


def _value(value: object) -> str:
    """A value as a recipe file spells it."""
    return "" if value is None else f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _takes(field: dict[str, Any]) -> str:
    """What a key may be: its kind and its bounds, from the JSON schema."""
    forms = [form for form in field.get("anyOf", [field]) if form.get("type") != "null"]
    form = forms[0]
    kind = {"integer": "whole number", "boolean": "true, false", "string": "text"}.get(form["type"], form["type"])
    if form["type"] == "array":
        kind, form = "list", form["items"]
    if "enum" in form:
        kind = ("list of " if kind == "list" else "") + ", ".join(form["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {form[key]}" for key, sign in signs.items() if key in form]
    return " ".join([kind, ", ".join(bounds)]).strip() + (", or none" if "anyOf" in field else "")


def chart_schema() -> str:
    """The Helm chart's schema of values, with the recipe's keys as they are now."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    left_out = ("title", "description", "default")
    keys = {
        name: {key: value for key, value in field.items() if key not in left_out}
        for name, field in Recipe.model_json_schema()["properties"].items()
    }
    schema["$defs"]["recipe"]["properties"] = keys
    schema["properties"]["trainer"]["properties"]["preset"]["enum"] = list(PRESETS)
    return json.dumps(schema, ensure_ascii=False, indent=2) + "\n"


def openapi() -> str:
    """The labeling API's description."""
    from services.filter.app import create_app

    return json.dumps(create_app(Settings(_env_file=None)).openapi(), ensure_ascii=False, indent=1) + "\n"


PAGES = {
    "cli.md": cli,
    "settings.md": settings,
    "recipe.md": recipe,
    "openapi.json": openapi,
    "../deploy/helm/k2d/values.schema.json": chart_schema,
}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (HERE / page).write_text(write(), "utf-8")
        print(f"docs/{page}", file=sys.stderr)
