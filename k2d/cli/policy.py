"""`k2d policy`: list, show, explain, check and compare policies."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import REVIEWING, Json, app
from k2d.filtering.policy import PRESETS, Policy, explain, load, to_yaml

policies = typer.Typer(
    name="policy",
    help="List, show, explain, check and compare policies: presets by name, files by path.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(policies, rich_help_panel=REVIEWING)

Which = Annotated[str, typer.Argument(metavar="NAME-OR-FILE", help="A preset, or a policy file (YAML).")]


@policies.command("list")
def list_(as_json: Json = False) -> None:
    """List the presets."""
    if as_json:
        show.dump([_described(policy) for policy in PRESETS.values()])
        return
    table = Table()
    for column in ("name", "metric", "α", "salvages", "claim", "key"):
        table.add_column(column)
    for policy in PRESETS.values():
        salvages = "yes" if policy.salvage else "no"
        claim = escape(policy.claim or "none")
        table.add_row(policy.name, policy.metric, f"{policy.alpha:g}", salvages, claim, policy.key[:12])
    show.out.print(table)


@policies.command("show")
def show_(which: Which, as_json: Json = False) -> None:
    """Print a policy as a policy file (YAML), to start a new one from."""
    policy = load(which)
    if as_json:
        show.dump(_described(policy))
    else:
        print(to_yaml(policy), end="")


@policies.command("explain")
def explain_(which: Which) -> None:
    """Explain a policy in plain language."""
    show.out.print(escape(explain(load(which))), soft_wrap=True)


@policies.command()
def check(file: Annotated[Path, typer.Argument(help="A policy file (YAML).")], as_json: Json = False) -> None:
    """Check a policy file. The exit status is 0 if it is valid; else 2, and the reason is printed."""
    policy = load(str(file) if any(sign in str(file) for sign in "./\\") else f"./{file}")
    if as_json:
        show.dump(_described(policy))
    else:
        show.out.print(f"policy {escape(repr(policy.name))} is valid; key {policy.key}", soft_wrap=True)


@policies.command()
def diff(first: Which, second: Which, as_json: Json = False) -> None:
    """Show the fields in which two policies differ."""
    a, b = (_flat(load(which)) for which in (first, second))
    changed = {name: (a.get(name), b.get(name)) for name in a | b if a.get(name) != b.get(name)}
    if as_json:
        show.dump({name: list(values) for name, values in changed.items()})
        return
    table = Table()
    for column in ("", first, second):
        table.add_column(escape(column))
    for name, values in changed.items():
        table.add_row(name, *("–" if value is None else escape(str(value)) for value in values))
    show.out.print(table if changed else "no difference")


def _described(policy: Policy) -> dict[str, Any]:
    fields = policy.model_dump(mode="json", exclude_none=True)
    return {"key": policy.key, "policy": fields, "explanation": explain(policy)}


def _flat(policy: Policy) -> dict[str, Any]:
    fields = policy.model_dump(mode="json")
    weights = fields.pop("weights") or {}
    return fields | {f"weights.{name}": value for name, value in weights.items()}
