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
class Paragraph:
    """A paragraph of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """The first column is the name of each row; `strong` rows are highlighted."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG: a file beside the Markdown, embedded in the HTML page."""

    file: str
    alt: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: tuple[Paragraph | Table | Picture, ...]


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """A whole report: what was run, the answer, then sections."""

    title: str
    run: str
    answer: str
    sections: tuple[Section, ...]


def markdown(document: ReportDocument) -> str:
    """The document as Markdown; pictures are files beside it."""
    return _environment().get_template("study.md.j2").render(document=document, pictures={})


def html(document: ReportDocument, pictures: Mapping[str, bytes]) -> str:
    """The document as one self-contained HTML page."""
    embedded = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
    return _environment().get_template("study.html.j2").render(document=document, pictures=embedded)


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


def format_number(value: float | None, digits: int = 3) -> str:
    """0.1234 → 0.123; a dash for None and NaN."""
    return DASH if value is None or value != value else f"{value:.{digits}f}"


def format_band(figure: Band, digits: int = 3) -> str:
    """0.123 [0.101–0.150]"""
    value = format_number(figure.value, digits)
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{format_number(figure.low, digits)}–{format_number(figure.high, digits)}]"


def format_difference(figure: Band, digits: int = 3) -> str:
    """-0.012 [-0.020 to -0.004]"""
    if figure.value is None:
        return DASH
    if figure.low is None or figure.high is None:
        return f"{figure.value:+.{digits}f}"
    return f"{figure.value:+.{digits}f} [{figure.low:+.{digits}f} to {figure.high:+.{digits}f}]"


def format_percent(figure: Band) -> str:
    """71 % [65–77]"""
    if figure.value is None:
        return DASH
    value = f"{100 * figure.value:.0f} %"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{100 * figure.low:.0f}–{100 * figure.high:.0f}]"


def join_words(words: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
