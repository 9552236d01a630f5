"""A report as data: headings, paragraphs, tables and pictures, rendered as Markdown or as one HTML page."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.evaluation.bootstrap import Band
from trainer.evaluation.render import cell

DASH: Final = "–"


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """The first column is the name of each row; `strong` rows stand out."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG beside the Markdown, inside the HTML page."""

    file: str
    alt: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: tuple[Text | Table | Picture, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report; `run` says what was run, `answer` what came out, before anything else."""

    title: str
    run: str
    answer: str
    sections: tuple[Section, ...]


def markdown(document: Document) -> str:
    """The document as Markdown; pictures are files beside it."""
    return _environment().get_template("study.md.j2").render(document=document, pictures={})


def html(document: Document, pictures: Mapping[str, bytes]) -> str:
    """The document as one HTML page that needs nothing beside it."""
    inside = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
    return _environment().get_template("study.html.j2").render(document=document, pictures=inside)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer.study"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "kind": lambda block: type(block).__name__}
    return environment


# ---- figures as text ----------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """0.1234 → 0.123; a dash where there is none."""
    return DASH if value is None or value != value else f"{value:.{digits}f}"


def banded(found: Band, digits: int = 3) -> str:
    """0.123 [0.101–0.150]"""
    value = number(found.value, digits)
    if found.low is None or found.high is None:
        return value
    return f"{value} [{number(found.low, digits)}–{number(found.high, digits)}]"


def signed(found: Band, digits: int = 3) -> str:
    """-0.012 [-0.020 to -0.004]"""
    if found.value is None:
        return DASH
    if found.low is None or found.high is None:
        return f"{found.value:+.{digits}f}"
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f} to {found.high:+.{digits}f}]"


def percent(found: Band) -> str:
    """71 % [65–77]"""
    if found.value is None:
        return DASH
    value = f"{100 * found.value:.0f} %"
    if found.low is None or found.high is None:
        return value
    return f"{value} [{100 * found.low:.0f}–{100 * found.high:.0f}]"


def joined(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
