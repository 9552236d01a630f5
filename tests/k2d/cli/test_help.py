"""`k2d --help`: groups, short form, and widths."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from k2d.cli import commands  # noqa: F401 - registers them with `app`
from k2d.cli.base import GROUPS, app

WIDEST = 26  # characters of a metavar that an 80-column help still shows on one line, beside the longest option


def _commands(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, Any, Any]]:
    with command.make_context(name, [], parent=parent, resilient_parsing=True) as context:
        yield name, command, context
        for verb, subcommand in getattr(command, "commands", {}).items():
            yield from _commands(subcommand, verb, context)


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_is_in_groups(k2d, asked):
    code, out, _ = k2d(asked)
    assert code == 0
    places = [out.index(group) for group in GROUPS]
    assert places == sorted(places)
    assert "Commands ─" not in out  # none is outside of the groups


def test_short_help_works_for_every_command(k2d):
    for arguments in (["label"], ["datasets", "list"]):
        assert k2d(*arguments, "-h")[0] == 0


def test_no_choice_is_broken_at_80_columns():
    for name, command, context in _commands(typer.main.get_command(app), "k2d"):
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            metavar = record[0].rpartition(" ")[2] if record else ""
            assert "|" not in metavar or len(metavar) <= WIDEST, f"{name}: {metavar}"
