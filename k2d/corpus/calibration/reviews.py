"""The review file: a line that says how it was drawn, then a line for each segment, which a person completes.

JSON lines. Of each segment the reviewer sets either `reference` (what is said there, "" for nothing) or `correct`
(true: the label is; false: it is not, which counts as wholly wrong). Both null: not reviewed yet.
"""

import json
from collections.abc import Iterable, Sequence
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
from k2d.text.tokens import mixed_tokens

VERSION: Final = 2


class ReviewHead(BaseModel):
    """The first line: what was drawn, from what, by which policy."""

    model_config = ConfigDict(extra="forbid")

    review: int = Field(default=VERSION, ge=1, le=VERSION, description="Version of this format.")
    created_at: str
    batches: list[str]
    draws: int
    seed: int
    segments: int  # different ones that follow
    population: dict[str, Any]
    policy: Policy  # its rules say what can be drawn; its risk is what the draws are stratified by


class ReviewRow(BaseModel):
    """One segment to review. Members that a tool adds are left alone."""

    model_config = ConfigDict(extra="ignore")

    id: str  # k2d.keys.segment_id; version 1 of the format wrote "{chunk id}/{segment}"
    recording: str
    start_s: float
    end_s: float
    label: str  # what the teacher wrote
    around: str  # the label of the whole chunk
    hypotheses: list[dict[str, str]]  # validator, perturbation, text: of the whole chunk
    risk: float
    size: float = Field(gt=0)
    weight: float = Field(gt=0)
    draws: list[int] = Field(min_length=1)
    audio: str | None = None  # the segment's FLAC, relative to this file
    reference: str | None = None
    correct: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, fields: Any) -> Any:
        """A row of version 1 as one of version 2."""
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
        return self.reference is not None or self.correct is not None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.correct and self.reference is not None and mixed_tokens(self.reference) != mixed_tokens(self.label):
            raise ValueError("correct is true, but the reference says something else")
        return self


@dataclass(frozen=True, slots=True)
class LabelError:
    """How wrong a label is, in mixed tokens: both numbers at most the segment's size."""

    edits: float
    tokens: float  # of the reference
    share: float  # of the longer side that is wrong, 0…1


def write(path: Path, head: ReviewHead, rows: Iterable[ReviewRow]) -> None:
    """Write a review file. An existing one is never overwritten: someone's work may be in it.

    Raises:
        BadRequest: the file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(head.model_dump_json(exclude_none=True) + "\n")
            for row in rows:
                file.write(json.dumps(row.model_dump(), ensure_ascii=False) + "\n")
    except FileExistsError as error:
        raise BadRequest(f"{path} exists", hint="reviews are not overwritten: choose another name") from error
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error}") from error


def load(path: Path) -> tuple[ReviewHead, list[ReviewRow]]:
    """Read a review file, finished or not.

    Raises:
        NotFound: no such file.
        BadRequest: it is no review file, or a line is damaged.
    """
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise NotFound(f"no file {path}", hint="`k2d review BATCH --out FILE` draws one") from error
    except (OSError, UnicodeError) as error:
        raise BadRequest(f"cannot read {path}: {error}") from error
    rows = []
    number = 1
    try:
        head = ReviewHead.model_validate_json(lines[0] if lines else "")
        for number, line in enumerate(lines[1:], start=2):  # noqa: B007 — the error says it
            rows.append(ReviewRow.model_validate_json(line))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        hint = "`k2d review` wrote how it was drawn into the first line: keep it" if number == 1 else None
        raise BadRequest(f"{path}, line {number}: {place or 'not JSON'}: {problem['msg']}", hint=hint) from error
    rows.sort(key=lambda row: row.draws[0])
    return head, rows


def error_of(row: ReviewRow) -> LabelError:
    """The label error of a segment, by MER's rules: mixed tokens, normalised on both sides.

    Edits never exceed the longer side; where that is longer than the segment's size, both numbers shrink alike, so the
    segment keeps its error rate and counts for its size. What nobody reviewed, or called wrong without saying what is
    right, counts for the most it could be: then the bound holds whatever it hides.
    """
    if row.correct and row.reference is None:
        tokens = min(float(len(mixed_tokens(row.label))), row.size)
        return LabelError(0.0, tokens, 0.0)
    if row.reference is None:
        return LabelError(row.size, 0.0, 1.0)
    found = counts(mixed_tokens(row.reference), mixed_tokens(row.label))
    longer = max(found.reference_length, found.hypothesis_length)
    shrink = min(1.0, row.size / max(1, longer))
    return LabelError(found.edits * shrink, found.reference_length * shrink, found.bounded)


def until(rows: Sequence[ReviewRow], draws: int) -> tuple[int, int]:
    """How many draws have been reviewed from the first on, and how many of them were skipped on the way.

    Rows come in the order of their first draw, so reviewing from the top and stopping anywhere leaves a fair sample.
    """
    last = max((place for place, row in enumerate(rows) if row.reviewed), default=-1)
    upto = rows[last + 1].draws[0] if last + 1 < len(rows) else draws
    holes = sum(draw < upto for row in rows[: last + 1] if not row.reviewed for draw in row.draws)
    return (upto if last >= 0 else 0), holes


def table(
    rows: Sequence[ReviewRow], risks: Sequence[float], draws: int
) -> tuple[ReviewedDraws, list[int], list[float]]:
    """The first `draws` draws as arrays, in order, the row each fell on, and the share that is wrong of each."""
    fell = sorted((draw, place) for place, row in enumerate(rows) for draw in row.draws if draw < draws)
    errors = [error_of(row) for row in rows]
    places = [place for _, place in fell]
    reviewed = ReviewedDraws(
        edits=np.array([errors[place].edits for place in places], np.float64),
        tokens=np.array([errors[place].tokens for place in places], np.float64),
        size=np.array([rows[place].size for place in places], np.float64),
        weight=np.array([rows[place].weight for place in places], np.float64),
        risk=np.array([risks[place] for place in places], np.float32),
    )
    return reviewed, places, [errors[place].share for place in places]
