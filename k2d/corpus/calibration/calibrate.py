"""Fits a policy's weights to reviews, and finds the largest α whose label error is proven to be within a target."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np

from k2d.corpus.calibration.bound import TARGETS, ReviewedDraws, band, needed, proved, rates
from k2d.corpus.calibration.draw import Floats
from k2d.corpus.calibration.fit import Fit, fit
from k2d.corpus.calibration.rates import SecondsKept, seconds_kept, speech_rate, with_rate
from k2d.corpus.calibration.reviews import ReviewHead, ReviewRow, table, until
from k2d.corpus.distinct import distinct_parts
from k2d.corpus.index import parts
from k2d.documents import CalibrationResult
from k2d.errors import BadRequest, NotFound
from k2d.filtering.policy import Columns, Policy, columns_of, evidence_columns, features, thresholds
from k2d.keys import place_of
from k2d.schema import Batch, ChunkFacts, Metric
from k2d.steps import OnSteps, ignore_steps
from k2d.store import Lake
from k2d.store.reviews import ReviewOrder
from k2d.wording import audio_length, counted

# The first reviews, the pilot, choose the weights and the first α to test; only the others are used for the proof. The
# size of the pilot depends on the number of draws, not on the number of reviews, so the proof still holds if someone
# looks at the result and goes on reviewing. All constants are chosen.
ENOUGH_TO_FIT: Final = 200  # draws; with fewer the weights are not fitted, since the pilot is too small for six weights
PILOT_TO_FIT: Final = 1 / 4  # of the draws, where weights are fitted
PILOT: Final = 1 / 6  # of the draws, otherwise
MOST_PILOT: Final = 400  # reviews; more do not improve six weights
FEWEST: Final = 20  # reviews left for the proof; with fewer, nothing is tested


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """One α on the curve of label error against seconds kept."""

    alpha: float
    seconds: float
    share: float  # of the seconds of all chunks
    label_mer: float | None  # estimate; None where no reviewed segment is kept
    lower: float  # confidence interval; each end holds with the given confidence, for this α by itself
    upper: float
    proved: bool  # within the target; holds with the given confidence for all proved α together


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a calibration."""

    policy: Policy  # with its claim, if α was proved
    target: float
    confidence: float
    alpha: float | None  # the largest proved
    draws: int  # reviewed
    holes: int  # draws that were skipped between reviewed ones; counted as entirely wrong
    pilot: int  # draws that chose weights and the first α
    fit: Fit | None
    curve: tuple[CalibrationPoint, ...]
    reviews_needed: int | None  # estimated total for a proof; None: more reviews like these would prove nothing
    notes: tuple[str, ...]

    @property
    def point(self) -> CalibrationPoint | None:
        """The point of the proved α."""
        return next((point for point in self.curve if point.alpha == self.alpha), None)

    def document(self) -> dict[str, Any]:
        """Return the calibration as JSON values."""
        members = {name: getattr(self, name) for name in self.__slots__ if name not in ("policy", "fit", "curve")}
        chosen = self.fit and {"fitted": self.fit.fitted, "loss": self.fit.loss, "preset_loss": self.fit.preset_loss}
        return members | {
            "policy": self.policy.model_dump(mode="json", exclude_none=True),
            "fit": chosen,
            "curve": [asdict(point) for point in self.curve],
        }


def calibrate(
    lake: Lake,
    head: ReviewHead,
    rows: Sequence[ReviewRow],
    batches: Sequence[Batch],
    *,
    target: float,
    confidence: float,
    name: str = "calibrated",
    on_steps: OnSteps = ignore_steps,
) -> Calibration:
    """Find the policy that keeps the most hours with a label error of at most `target`, with `confidence`.

        head, rows = reviews.load(Path("review.jsonl"))
        calibrate(lake, head, rows, batches, target=0.08, confidence=0.95).alpha

    Without reviews, or if nothing can be proved, the policy makes no claim and keeps the α that it started with.

    Args:
        head, rows: the review file.
        batches: those that the segments were drawn from.
        target: the label MER, e.g. 0.08.
        confidence: of the claim, e.g. 0.95.
        name: of the resulting policy.
        on_steps: called with parts of the batches, each of which is looked at twice.

    Raises:
        BadRequest: target or confidence outside 0…1, or the segments were not drawn at random.
        NotFound: a reviewed segment is not in these batches.
        StoreError
    """
    if not 0 < target < 1 or not 0.5 <= confidence < 1:
        raise BadRequest("target lies between 0 and 1, confidence between 0.5 and 1", hint="--target 0.08")
    if head.order is not ReviewOrder.RANDOM:
        raise BadRequest(
            "these segments were chosen for their value, not drawn at random: nothing can be proved by them",
            hint="review a random draw (`k2d review`); reviews of these count there too, where it draws them",
        )
    population = partial(distinct_parts, lake, batches)
    rate = speech_rate(partial(population, on_steps=lambda done, of: on_steps(done, 2 * of)), head.policy)
    base = with_rate(head.policy, rate).model_copy(update={"name": name, "claim": None})
    facts = _facts(lake, batches, rows)
    draws, holes = until(rows, head.draws)
    notes = _notes(head, rate.segments if rate else 0, draws=draws, holes=holes)
    pilot = min(draws, pilot_of(head.draws, base))
    chosen, policy = _fitted(base, facts, rows, pilot)
    seconds = seconds_kept(partial(population, on_steps=lambda done, of: on_steps(of + done, 2 * of)), policy)
    alphas = seconds.candidates()
    reviewed, _, _ = table(rows, _risks(policy, facts), draws)
    pilot_draws, rest = reviewed.take(slice(0, pilot)), reviewed.take(slice(pilot, None))
    won, curve = _curve(rest, pilot_draws, alphas, seconds, target=target, confidence=confidence)
    alpha = float(alphas[won[-1]]) if len(won) else None
    if alpha is not None:
        claim = _claim(head, len(batches), seconds, alpha, draws=draws, target=target, confidence=confidence)
        policy = policy.model_copy(update={"alpha": alpha, "claim": claim})
    elif claimable := _claimable(rest, pilot_draws, alphas, seconds, target=target, confidence=confidence):
        notes = (*notes, claimable)
    more = needed(reviewed, alphas, target=target, confidence=confidence) if len(alphas) and draws else None
    in_all = None if more is None else more + pilot_of(head.draws, base)
    return Calibration(
        policy=Policy.model_validate(policy.model_dump()),
        target=target,
        confidence=confidence,
        alpha=alpha,
        draws=draws,
        holes=holes,
        pilot=pilot,
        fit=chosen,
        curve=curve,
        reviews_needed=in_all,
        notes=notes,
    )


def _claimable(
    rest: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, seconds: SecondsKept, *, target: float, confidence: float
) -> str | None:
    """The least target above one that cannot be proved that could be, as a sentence; None where none could."""
    if len(rest) < FEWEST or not len(alphas):
        return None
    for wider in np.ceil(1000 * TARGETS[(target < TARGETS) & (TARGETS < 1)]) / 1000:
        won = proved(rest, pilot, alphas, target=float(wider), confidence=confidence)
        if len(won):
            share = seconds.at(float(alphas[won[-1]])) / seconds.total
            return (
                f"what these reviews can prove: label MER ≤ {wider:.1%}, for {share:.0%} of the hours "
                f"(--target {wider:g}); a target that is chosen after a look at the reviews holds a little less surely"
            )
    return None


def calibration_of(result: CalibrationResult) -> Calibration:
    """A calibration from the document that an API answers with."""
    members = {name: getattr(result, name) for name in Calibration.__slots__}
    weights = result.policy.weights
    return Calibration(
        **members
        | {
            "fit": Fit(weights=weights, **result.fit) if result.fit and weights else None,
            "curve": tuple(CalibrationPoint(**point) for point in result.curve),
            "notes": tuple(result.notes),
        }
    )


def pilot_of(drawn: int, policy: Policy) -> int:
    """The number of reviewed draws that choose the policy, of a draw of this size; the others prove its claim."""
    share = PILOT_TO_FIT if policy.metric is Metric.EVIDENCE and drawn >= ENOUGH_TO_FIT else PILOT
    return min(MOST_PILOT, int(drawn * share))


def _fitted(
    base: Policy, facts: Sequence[tuple[ChunkFacts, int]], rows: Sequence[ReviewRow], pilot: int
) -> tuple[Fit | None, Policy]:
    """Fit the weights to the first `pilot` draws, if these are enough; returns the fit and the policy with it."""
    if base.weights is None or base.metric is not Metric.EVIDENCE or pilot < ENOUGH_TO_FIT * PILOT_TO_FIT:
        return None, base
    reviewed, places, wrong = table(rows, [0.0] * len(rows), pilot)
    seen = [at for at, place in enumerate(places) if rows[place].reviewed]  # skipped draws are not fitted
    evidence = evidence_columns([facts[places[at]][0].segment_evidence[facts[places[at]][1]] for at in seen])
    result = fit(features(base, evidence), np.array(wrong)[seen], reviewed.weight[seen], base.weights)
    return result, base.model_copy(update={"weights": result.weights})


def _curve(
    rest: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, seconds: SecondsKept, *, target: float, confidence: float
) -> tuple[Sequence[int], tuple[CalibrationPoint, ...]]:
    """Indices of the proved α, ascending, and the points of all α."""
    won: list[int] = []
    estimates: Floats = np.full(len(alphas), np.nan)
    lower: Floats = np.zeros(len(alphas))
    upper: Floats = np.ones(len(alphas))
    if len(rest) >= FEWEST and len(alphas):
        won = proved(rest, pilot, alphas, target=target, confidence=confidence).tolist()
        estimates = rates(rest, alphas)
        lower, upper = band(rest, pilot, alphas, confidence=confidence, target=target)
        upper[won] = np.minimum(upper[won], np.fmax(target, estimates[won]))  # what is proved holds for all of them
    points = tuple(
        CalibrationPoint(
            alpha=float(alpha),
            seconds=round(seconds.at(alpha), 3),
            share=round(seconds.at(alpha) / seconds.total, 4),
            label_mer=None if np.isnan(estimates[place]) else round(float(estimates[place]), 4),
            lower=round(float(lower[place]), 4),
            upper=round(float(upper[place]), 4),
            proved=place in won,
        )
        for place, alpha in enumerate(alphas)
    )
    return won, points


@dataclass(frozen=True, slots=True)
class _ReviewedColumns:
    """Reviewed segments with their chunks as a PartColumns: row i is segment i and its chunk."""

    chunks: Columns
    segments: Columns


def _risks(policy: Policy, facts: Sequence[tuple[ChunkFacts, int]]) -> list[float]:
    """The least α that keeps each reviewed segment."""
    if not facts:
        return []
    evidence = [fact.segment_evidence[number] for fact, number in facts]
    spans = [fact.segments[number] for fact, number in facts]
    segments = evidence_columns(evidence) | {
        "chunk": np.arange(len(facts)),
        "ms": np.array([round(1000 * (span.end_s - span.start_s)) for span in spans]),
    }
    chunks = columns_of([fact.distances for fact, _ in facts], [fact.evidence for fact, _ in facts])
    return [float(least) for least in thresholds(policy, _ReviewedColumns(chunks, segments)).segments]


def _facts(lake: Lake, batches: Sequence[Batch], rows: Sequence[ReviewRow]) -> list[tuple[ChunkFacts, int]]:
    """For each row, the facts of its chunk and the number of its segment in the chunk."""
    keys = {key for batch in batches for part in parts(lake, batch.id) for key in part.recordings.column("facts_key")}
    places = [place_of(row.id) for row in rows]
    missing = next((row.id for row, place in zip(rows, places, strict=True) if place.facts_key not in keys), None)
    if missing is not None:
        raise NotFound(
            f"the reviewed segment {missing[:80]} is in none of these batches",
            hint="name the batches it was drawn from; facts of another validator or version need a new review file",
        )
    chunks: dict[str, set[int]] = {}
    for place in places:
        chunks.setdefault(place.facts_key, set()).add(place.chunk)
    read = lake.files.many(lambda key: (key, lake.facts.read(key, only=chunks[key])), chunks)
    facts = {(key, fact.index): fact for key, chunk_facts in read for fact in chunk_facts}
    for row, place in zip(rows, places, strict=True):
        fact = facts.get((place.facts_key, place.chunk))
        if fact is None or place.segment is None or place.segment >= len(fact.segments):
            raise NotFound(f"there is no segment {row.id[:80]}", hint="the id was changed: draw a new review file")
    return [(facts[place.facts_key, place.chunk], place.segment or 0) for place in places]


def _notes(head: ReviewHead, segments: int, *, draws: int, holes: int) -> tuple[str, ...]:
    notes = []
    if holes:
        notes.append(f"{counted(holes, 'draw')} skipped before the last reviewed one: each counts as entirely wrong")
    if draws < head.draws:
        notes.append(f"reviewed: {draws:,} of {counted(head.draws, 'draw')}")
    drawn_from = int(head.population.get("reachable", segments))
    if drawn_from != segments:
        then = counted(drawn_from, "segment")
        notes.append(f"when this was drawn, the batches had {then} that could be kept, now {segments:,}")
    return tuple(notes)


def _claim(
    head: ReviewHead, batches: int, seconds: SecondsKept, alpha: float, *, draws: int, target: float, confidence: float
) -> str:
    kept, total = seconds.at(alpha), seconds.total
    return (
        f"label MER ≤ {target:.1%} with {confidence:.0%} confidence, by {counted(draws, 'reviewed draw')} from "
        f"{counted(int(head.population.get('reachable', 0)), 'segment')} of {counted(batches, 'batch', 'batches')}, "
        f"{datetime.now(UTC).date().isoformat()}; keeps {kept / total:.1%} of the hours "
        f"({audio_length(kept)} of {audio_length(total)})"
    )
