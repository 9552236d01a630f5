"""Commands that messages name can be run: command, sub-command and options exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from places import ROOT

from k2d.cli import commands  # noqa: F401 - registers them
from k2d.cli.base import app

COMMAND = re.compile(r"`k2d ([^`]*)`|(?::|run|with) k2d ([a-z][^\n()]*)")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module but its docstring, by line; what an f-string fills in becomes X."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {id(node.value) for node in tree.body[:1] if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            inside |= {id(part) for part in node.values}
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def named_commands() -> Iterator[tuple[str, str]]:
    """Where a message names a command, and its words."""
    for folder in ("k2d", "services", "trainer"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in texts(path):
                for match in COMMAND.finditer(text):
                    yield f"{path.relative_to(ROOT)}:{line}", (match[1] or match[2]).strip()


def problem(words: str) -> str | None:
    """Why these words are not a command of k2d."""
    command: Any = typer.main.get_command(app)
    for word in words.split():
        word = word.rstrip(".,;:…")
        if hasattr(command, "commands"):  # a group
            if word not in command.commands:
                return f"no command {word!r}"
            command = command.commands[word]
        elif word.startswith("--"):
            options = {option for parameter in command.params for option in parameter.opts}
            if word not in options | {"--help"}:
                return f"no option {word}"
    if hasattr(command, "commands") and words:
        return f"it needs one of {', '.join(command.commands)}"
    return None


def test_every_command_that_a_message_names_can_be_run() -> None:
    named = list(named_commands())
    assert len(named) > 60
    wrong = [f"{place}: k2d {words}: {why}" for place, words in named if (why := problem(words))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("words", ["datasets", "listeners X", "chunks --bach X", "policy explian", "nothing"])
def test_mistakes_are_seen(words: str) -> None:
    assert problem(words)
