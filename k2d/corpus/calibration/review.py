"""Draws segments for review, with the texts and the audio that a reviewer needs."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from k2d import audio
from k2d.corpus.calibration.draw import Draw, draw
from k2d.corpus.calibration.reviews import ReviewHead, ReviewRow
from k2d.corpus.distinct import distinct_parts
from k2d.errors import BadRequest
from k2d.filtering.policy import Policy
from k2d.keys import place_of, segment_id
from k2d.schema import SAMPLE_RATE_HZ, Batch, ChunkFacts
from k2d.store import Lake

FEWEST: Final = 30  # draws; with fewer, no target can be proved


def review(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, count: int, seed: int
) -> tuple[ReviewHead, list[ReviewRow]]:
    """Draw `count` segments for a review file. The same seed draws the same segments.

        head, rows = review(lake, batches, DEFAULT, count=400, seed=0)
        reviews.write(Path("review.jsonl"), head, rows)

    Raises:
        BadRequest: too few draws, or nothing to review.
        StoreError
    """
    if count < FEWEST:
        raise BadRequest(
            f"{count} reviews are too few to prove anything", hint=f"--count is at least {FEWEST}; 300 is usual"
        )
    drawn, population = draw(partial(distinct_parts, lake, batches), policy, count=count, seed=seed)
    head = ReviewHead(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        batches=[batch.id for batch in batches],
        draws=count,
        seed=seed,
        segments=len(drawn),
        population={
            "recordings": population.recordings,
            "segments": population.segments,
            "reachable": population.reachable,
            "seconds": population.seconds,
            "reachable_s": population.reachable_s,
        },
        policy=policy,
    )
    return head, list(_rows(lake, drawn))


def write_audio(lake: Lake, rows: Sequence[ReviewRow], folder: Path) -> list[ReviewRow]:
    """Write the audio of each segment as FLAC to `folder`; return the rows with the files' names.

    Raises:
        BadRequest: the folder cannot be written to.
        StoreError
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [row.model_copy(update={"audio": str(_cut(lake, row, folder))}) for row in rows]
    except OSError as error:
        raise BadRequest(f"cannot write audio to {folder}: {error}") from error


def _rows(lake: Lake, drawn: Sequence[Draw]) -> Iterator[ReviewRow]:
    def read(segment_draw: Draw) -> ChunkFacts:
        return lake.facts.read(segment_draw.facts_key, only=(segment_draw.chunk,))[0]

    for segment_draw, fact in zip(drawn, lake.files.many(read, drawn), strict=True):
        segment = fact.segments[segment_draw.segment]
        yield ReviewRow(
            id=segment_id(fact.id, segment_draw.segment),
            recording=segment_draw.recording,
            start_s=segment.start_s,
            end_s=segment.end_s,
            label=segment.text.strip(),
            around=fact.teacher_text,
            hypotheses=[
                {"validator": h.validator, "perturbation": h.perturbation, "text": h.text} for h in fact.hypotheses
            ],
            risk=round(segment_draw.risk, 4),
            size=segment_draw.size,
            weight=segment_draw.weight,
            draws=list(segment_draw.draws),
        )


def _cut(lake: Lake, row: ReviewRow, folder: Path) -> Path:
    """Write the audio of one segment, cut from its chunk; return the path."""
    place = place_of(row.id)
    label_key = str(lake.facts.meta(place.facts_key)["label_key"])
    for chunk, flac in lake.labels.read(label_key, audio=True, only=frozenset((place.chunk,))):
        samples = audio.decode_flac(flac or b"")
        first = round((row.start_s - chunk.start_s) * SAMPLE_RATE_HZ)
        last = round((row.end_s - chunk.start_s) * SAMPLE_RATE_HZ)
        path = folder / f"{row.draws[0]:04d}-{row.id}.flac"
        path.write_bytes(audio.encode_flac(samples[max(0, first) : last]))
        return path
    raise BadRequest(f"the audio of {row.id} is gone", hint="its labels were removed: draw a new review file")
