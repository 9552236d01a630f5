"""Draws segments for review, with the texts and the audio that a reviewer needs."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from k2d import audio
from k2d.corpus.calibration.draw import Draw, Population, draw
from k2d.corpus.calibration.reviews import ReviewHead, ReviewRow
from k2d.corpus.calibration.value import choose
from k2d.corpus.distinct import distinct_parts
from k2d.errors import BadRequest, NotFound
from k2d.filtering.policy import Policy
from k2d.keys import place_of, segment_id
from k2d.schema import SAMPLE_RATE_HZ, Batch, ChunkFacts
from k2d.store import Lake
from k2d.store.reviews import ReviewOrder

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
    order = ReviewOrder.RANDOM
    drawn, population = choose_segments(lake, batches, policy, count=count, seed=seed, order=order)
    head = head_of(batches, policy, drawn, population, count=count, seed=seed, order=order)
    return head, list(rows_of_draws(lake, drawn))


def choose_segments(
    lake: Lake, batches: Sequence[Batch], policy: Policy, *, count: int, seed: int, order: ReviewOrder
) -> tuple[list[Draw], Population]:
    """Draw or choose the segments to review; also what they were drawn from.

    Raises:
        BadRequest: too few draws, or nothing to review.
        StoreError
    """
    parts = partial(distinct_parts, lake, batches)
    if order is ReviewOrder.VALUE:
        chosen, population = choose(parts, policy, count=count)
        if not chosen:
            raise BadRequest("there is nothing to review: the policy's rules reject every segment, whatever α is")
        return chosen, population
    if count < FEWEST:
        raise BadRequest(
            f"too few reviews to prove anything: {count}",
            hint=f"--count is at least {FEWEST}; 300 is usual",
            parameter="count",
            value=count,
            least=FEWEST,
        )
    return draw(parts, policy, count=count, seed=seed)


def head_of(
    batches: Sequence[Batch],
    policy: Policy,
    segments: Sequence[Draw],
    population: Population,
    *,
    count: int,
    seed: int,
    order: ReviewOrder,
) -> ReviewHead:
    """Describe a draw: the first line of a review file."""
    return ReviewHead(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        batches=[batch.id for batch in batches],
        draws=count if order is ReviewOrder.RANDOM else len(segments),
        seed=seed,
        segments=len(segments),
        population={
            "recordings": population.recordings,
            "segments": population.segments,
            "reachable": population.reachable,
            "seconds": population.seconds,
            "reachable_s": population.reachable_s,
        },
        policy=policy,
        order=order,
    )


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


def facts_of_draws(lake: Lake, drawn: Iterable[Draw]) -> Iterator[ChunkFacts]:
    """Iterate over the facts of the chunk of each drawn segment.

    Raises:
        NotFound: facts are gone.
        StoreError
    """
    return lake.files.many(lambda of: lake.facts.read(of.facts_key, only=(of.chunk,))[0], drawn)


def rows_of_draws(lake: Lake, drawn: Sequence[Draw]) -> Iterator[ReviewRow]:
    """Iterate over the rows of drawn segments: texts, hypotheses and times, from their facts.

    Raises:
        NotFound: facts are gone.
        StoreError
    """
    for segment_draw, fact in zip(drawn, facts_of_draws(lake, drawn), strict=True):
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
            label_key=segment_draw.label_key,
        )


def _cut(lake: Lake, row: ReviewRow, folder: Path) -> Path:
    """Write the audio of one segment, cut from its chunk; return the path."""
    path = folder / f"{row.draws[0]:04d}-{row.id}.flac"
    path.write_bytes(segment_audio(lake, row.id))
    return path


def segment_audio(lake: Lake, id_: str, *, around_s: float = 0.0) -> bytes:
    """Cut the audio of a segment from its chunk, as FLAC; with up to `around_s` seconds of the chunk on both sides.

        segment_audio(lake, "4f…-00003.002", around_s=1.0)

    Raises:
        NotFound: no such segment, or its labels are gone.
        StoreError
    """
    place = place_of(id_)
    label_keys = [lake.facts.label_key(place.facts_key)] if lake.facts.has(place.facts_key) else []
    for chunk, flac in (
        own for key in label_keys for own in lake.labels.read(key, audio=True, only=frozenset((place.chunk,)))
    ):
        if place.segment is None or place.segment >= len(chunk.segments):
            break
        segment = chunk.segments[place.segment]
        samples = audio.decode_flac(flac or b"")
        first = round((segment.start_s - around_s - chunk.start_s) * SAMPLE_RATE_HZ)
        last = round((segment.end_s + around_s - chunk.start_s) * SAMPLE_RATE_HZ)
        # a segment of no length has no samples, and a FLAC file needs one
        return audio.encode_flac(samples[max(0, first) : max(last, max(0, first) + 1)])
    raise NotFound(f"the audio of {id_[:100]!r} is gone", hint="its labels were removed: draw segments anew")
