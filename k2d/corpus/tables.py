"""Chunks as a table for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from k2d.documents import ChunkRow
from k2d.filtering.policy import Policy

COLUMNS: Final = (
    "chunk", "recording", "start_s", "end_s", "verdict", "reason", "distance", "text", "hypothesis",
)  # fmt: skip
AT_ONCE: Final = 1000  # rows of a block
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")  # with which spreadsheets take a cell for a formula


def csv_table(rows: Iterable[ChunkRow], policy: Policy) -> Iterator[bytes]:
    """Chunks as CSV, a block at a time; texts that a spreadsheet would compute get an apostrophe.

    b"".join(csv_table(Client("http://127.0.0.1:8080").chunks("lectures"), DEFAULT))
    """
    yield _csv([COLUMNS])
    remaining = iter(rows)
    while block := list(islice(remaining, AT_ONCE)):
        yield _csv(_cells(row, policy) for row in block)


def cell(text: str) -> str:
    """A text for a cell of a spreadsheet, which must not take it for a formula."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


def _cells(row: ChunkRow, policy: Policy) -> list[str]:
    distance = row.distances.get(policy.metric)
    texts = (row.recording, row.teacher_text, row.validator_texts[0] if row.validator_texts else "")
    recording, text, hypothesis = map(cell, texts)
    numbers = (f"{row.start_s:.3f}", f"{row.end_s:.3f}")
    shown = "" if distance is None else f"{distance:.4f}"
    return [row.id, recording, *numbers, str(row.verdict), str(row.reason), shown, text, hypothesis]


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
