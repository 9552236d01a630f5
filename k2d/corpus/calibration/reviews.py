"""The review file: JSON lines, first how it was drawn, then one line for each segment, which a person completes.

For each segment the reviewer sets either `reference` (what is said there, "" for nothing) or `correct` (whether the
label is correct; false without a reference counts as entirely wrong). A line with neither is not reviewed yet.

    head, rows = load(Path("review.jsonl"))
    error_of(rows[0]).edits
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from k2d.corpus.calibration.bound import ReviewedDraws
from k2d.errors import BadRequest, NotFound
from k2d.filtering.distance import counts
from k2d.filtering.policy import Policy
from k2d.keys import segment_id
from k2d.store.reviews import ReviewOrder
from k2d.text.reading import read
from k2d.textfiles import read_lines

VERSION: Final = 2


class ReviewHead(BaseModel):
    """The first line: what was drawn, from which batches, under which policy."""

    model_config = ConfigDict(extra="forbid")

    review: int = Field(default=VERSION, ge=1, le=VERSION, description="Version of this format.")
    created_at: str
    batches: list[str]
    draws: int
    seed: int
    segments: int  # distinct segments, one line each
    population: dict[str, Any]
    policy: Policy  # its rules determine which segments can be drawn, its risk the strata of the draws
    order: ReviewOrder = ReviewOrder.RANDOM


class ReviewRow(BaseModel):
    """One segment to review. Members that other tools add are ignored."""

    model_config = ConfigDict(extra="ignore")

    id: str  # k2d.keys.segment_id; version 1 of the format wrote "{chunk id}/{segment}"
    recording: str
    start_s: float
    end_s: float
    label: str  # the teacher's text
    around: str  # the label of the whole chunk
    hypotheses: list[dict[str, str]]  # for the whole chunk: validator, perturbation, text
    risk: float  # the next members are those of `k2d.corpus.calibration.draw.Draw`
    size: float = Field(gt=0)
    weight: float = Field(gt=0)
    draws: list[int] = Field(min_length=1)
    label_key: str | None = None  # of the label that the segment is part of; files of version 0.2 do not name it
    audio: str | None = None  # the segment's FLAC, relative to this file
    reference: str | None = None
    correct: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, fields: Any) -> Any:
        """Convert a row of version 1 (k2d 0.1) to version 2."""
        if not isinstance(fields, dict) or "heard" not in fields:
            return fields
        hypotheses = [
            {"validator": text.get("listener"), "perturbation": text.get("view"), "text": text.get("text")}
            for text in fields["heard"]
        ]
        chunk, _, number = str(fields.get("id")).partition("/")
        named = {"id": segment_id(chunk, int(number)) if number.isdecimal() else fields.get("id")}
        return {**fields, **named, "hypotheses": hypotheses}

    @property
    def reviewed(self) -> bool:
        """Whether a person has set `reference` or `correct`."""
        return self.reference is not None or self.correct is not None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.correct and self.reference is not None and read(self.reference).tokens != read(self.label).tokens:
            raise ValueError("correct is true, but the reference differs from the label")
        return self


@dataclass(frozen=True, slots=True)
class LabelEdits:
    """The errors of a label in mixed tokens; edits and tokens are at most the segment's size."""

    edits: float
    tokens: float  # of the reference
    share: float  # edits over the longer side, 0…1


def write(path: Path, head: ReviewHead, rows: Iterable[ReviewRow]) -> None:
    """Write a review file. An existing file is never overwritten, since it may contain reviews.

    Raises:
        BadRequest: the file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(lines(head, rows))
    except FileExistsError as error:
        raise BadRequest(f"{path} exists", hint="review files are not overwritten: choose another name") from error
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error}") from error


def lines(head: ReviewHead, rows: Iterable[ReviewRow]) -> Iterator[str]:
    """Iterate over the lines of a review file."""
    yield head.model_dump_json(exclude_none=True) + "\n"
    for row in rows:
        yield json.dumps(row.model_dump(), ensure_ascii=False) + "\n"


def load(path: Path) -> tuple[ReviewHead, list[ReviewRow]]:
    """Read a review file, complete or not.

    Raises:
        NotFound: no such file.
        BadRequest: it is not a review file, or a line is not valid.
    """
    try:
        stored = [line for line in read_lines(path) if line.strip()]
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}", hint="`k2d review BATCH --out FILE` draws one") from error
    except (OSError, UnicodeError) as error:
        raise BadRequest(f"cannot read {path}: {error}") from error
    rows = []
    number = 1
    try:
        head = ReviewHead.model_validate_json(stored[0] if stored else "")
        for number, line in enumerate(stored[1:], start=2):  # noqa: B007 - the error message has the number
            rows.append(ReviewRow.model_validate_json(line))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        first_line = "keep the first line as `k2d review` wrote it: it says how the segments were drawn"
        hint = first_line if number == 1 else None
        raise BadRequest(f"{path}, line {number}: {place or 'not JSON'}: {problem['msg']}", hint=hint) from error
    rows.sort(key=lambda row: row.draws[0])
    return head, rows


def error_of(row: ReviewRow) -> LabelEdits:
    """Count the errors of a segment's label as for MER: in mixed tokens, both sides normalised.

    If the longer side exceeds the segment's size, both numbers are scaled down, so that the segment keeps its error
    rate and counts for its size. A segment that was skipped, or marked as wrong without a reference, counts as the most
    errors it can have, so that the bound holds in any case.
    """
    if row.correct and row.reference is None:
        tokens = min(float(len(read(row.label).tokens)), row.size)
        return LabelEdits(0.0, tokens, 0.0)
    if row.reference is None:
        return LabelEdits(row.size, 0.0, 1.0)
    alignment = counts(read(row.reference).tokens, read(row.label).tokens)
    longer = max(alignment.reference_length, alignment.hypothesis_length)
    shrink = min(1.0, row.size / max(1, longer))
    return LabelEdits(alignment.edits * shrink, alignment.reference_length * shrink, alignment.bounded)


def until(rows: Sequence[ReviewRow], draws: int) -> tuple[int, int]:
    """Count the draws up to the last reviewed row, and those of them that were skipped.

    Rows are in the order of their first draw, so if someone reviews from the top and stops anywhere, the reviews are a
    random sample.
    """
    last = max((place for place, row in enumerate(rows) if row.reviewed), default=-1)
    upto = rows[last + 1].draws[0] if last + 1 < len(rows) else draws
    holes = sum(draw < upto for row in rows[: last + 1] if not row.reviewed for draw in row.draws)
    return (upto if last >= 0 else 0), holes


def table(
    rows: Sequence[ReviewRow], risks: Sequence[float], draws: int
) -> tuple[ReviewedDraws, list[int], list[float]]:
    """Return the first `draws` draws as arrays, each draw's row index, and the share of its label that is wrong."""
    drawn = sorted((draw, place) for place, row in enumerate(rows) for draw in row.draws if draw < draws)
    errors = [error_of(row) for row in rows]
    places = [place for _, place in drawn]
    reviewed = ReviewedDraws(
        edits=np.array([errors[place].edits for place in places], np.float64),
        tokens=np.array([errors[place].tokens for place in places], np.float64),
        size=np.array([rows[place].size for place in places], np.float64),
        weight=np.array([rows[place].weight for place in places], np.float64),
        risk=np.array([risks[place] for place in places], np.float32),
    )
    return reviewed, places, [errors[place].share for place in places]
