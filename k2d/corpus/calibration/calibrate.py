"""From reviews to a policy: fit the weights, choose α, say what was proved."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import numpy as np

from k2d.corpus.calibration.bound import ReviewedDraws, band, needed, proved, rates
from k2d.corpus.calibration.draw import Floats
from k2d.corpus.calibration.fit import Fit, fit
from k2d.corpus.calibration.rates import Seconds, ranged, seconds_kept, speech_rate
from k2d.corpus.calibration.reviews import ReviewHead, ReviewRow, table, until
from k2d.corpus.index import distinct_parts
from k2d.errors import BadRequest, NotFound
from k2d.filtering.policy import Columns, Policy, columns_of, evidence_columns, features, thresholds
from k2d.keys import place_of
from k2d.schema import Batch, ChunkFacts, Metric
from k2d.store import Lake

# Reviews that choose (the weights, the first α to try) prove nothing; the others do. How many choose depends on how
# many were drawn, not on how many are reviewed: so one may look, and go on reviewing, and the proof still holds.
ENOUGH_TO_FIT: Final = 200  # fewer leave the preset's weights: a quarter of them would fit six weights badly
PILOT_TO_FIT: Final = 1 / 4
PILOT: Final = 1 / 6
MOST_PILOT: Final = 400  # more does not make six weights better
FEWEST: Final = 20  # reviews to prove with; below, nothing is tried


@dataclass(frozen=True, slots=True)
class Point:
    """One α on the curve."""

    alpha: float
    seconds: float
    share: float  # of the seconds of all chunks
    label_mer: float | None  # estimated; None where no review is kept
    lower: float  # each end holds with the confidence asked for, for this α by itself
    upper: float
    proved: bool  # by the sequence of tests, for all these α together


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the reviews say."""

    policy: Policy  # with its claim where one was proved
    target: float
    confidence: float
    alpha: float | None  # the largest proved
    draws: int  # reviewed
    holes: int  # skipped on the way, counted as wholly wrong
    pilot: int  # of the draws, those that chose
    fit: Fit | None
    curve: tuple[Point, ...]
    reviews_needed: int | None  # about, in all; None: no number of reviews like these would do
    notes: tuple[str, ...]

    @property
    def point(self) -> Point | None:
        return next((point for point in self.curve if point.alpha == self.alpha), None)

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        found = {name: getattr(self, name) for name in self.__slots__ if name not in ("policy", "fit", "curve")}
        chosen = self.fit and {"fitted": self.fit.fitted, "loss": self.fit.loss, "preset_loss": self.fit.preset_loss}
        return found | {
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
) -> Calibration:
    """Find the policy that keeps most hours and whose label error is at most `target`, with `confidence`.

    Without reviews, and where nothing can be proved, the policy makes no claim and keeps the α it started from.

    Raises:
        BadRequest: target or confidence outside 0…1.
        NotFound: a reviewed segment is not in these batches.
        StoreError
    """
    if not 0 < target < 1 or not 0.5 <= confidence < 1:
        raise BadRequest("target lies between 0 and 1, confidence between 0.5 and 1", hint="--target 0.08")
    population = partial(distinct_parts, lake, batches)
    rate = speech_rate(population, head.policy)
    base = ranged(head.policy, rate).model_copy(update={"name": name, "claim": None})
    facts = _facts(lake, batches, rows)
    draws, holes = until(rows, head.draws)
    notes = _notes(head, rate.segments if rate else 0, draws=draws, holes=holes)
    pilot = min(draws, _pilot(head.draws, base))
    chosen, policy = _fitted(base, facts, rows, pilot)
    seconds = seconds_kept(population, policy)
    alphas = seconds.candidates()
    reviewed, _, _ = table(rows, _risks(policy, facts), draws)
    known, rest = reviewed.take(slice(0, pilot)), reviewed.take(slice(pilot, None))
    won, curve = _curve(rest, known, alphas, seconds, target=target, confidence=confidence)
    alpha = float(alphas[won[-1]]) if len(won) else None
    if alpha is not None:
        claim = _claim(head, len(batches), seconds, alpha, draws=draws, target=target, confidence=confidence)
        policy = policy.model_copy(update={"alpha": alpha, "claim": claim})
    more = needed(reviewed, alphas, target=target, confidence=confidence) if len(alphas) and draws else None
    in_all = None if more is None else more + _pilot(head.draws, base)
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


def _pilot(drawn: int, policy: Policy) -> int:
    share = PILOT_TO_FIT if policy.metric is Metric.EVIDENCE and drawn >= ENOUGH_TO_FIT else PILOT
    return min(MOST_PILOT, int(drawn * share))


def _fitted(
    base: Policy, facts: Sequence[tuple[ChunkFacts, int]], rows: Sequence[ReviewRow], pilot: int
) -> tuple[Fit | None, Policy]:
    """The policy with weights fitted on the first `pilot` draws, if those are enough to fit on."""
    if base.weights is None or base.metric is not Metric.EVIDENCE or pilot < ENOUGH_TO_FIT * PILOT_TO_FIT:
        return None, base
    reviewed, places, wrong = table(rows, [0.0] * len(rows), pilot)
    seen = [at for at, place in enumerate(places) if rows[place].reviewed]  # what nobody heard teaches nothing
    evidence = evidence_columns([facts[places[at]][0].segment_evidence[facts[places[at]][1]] for at in seen])
    found = fit(features(base, evidence), np.array(wrong)[seen], reviewed.weight[seen], base.weights)
    return found, base.model_copy(update={"weights": found.weights})


def _curve(
    rest: ReviewedDraws, pilot: ReviewedDraws, alphas: Floats, seconds: Seconds, *, target: float, confidence: float
) -> tuple[Sequence[int], tuple[Point, ...]]:
    won: list[int] = []
    estimates: Floats = np.full(len(alphas), np.nan)
    lower: Floats = np.zeros(len(alphas))
    upper: Floats = np.ones(len(alphas))
    if len(rest) >= FEWEST and len(alphas):
        won = proved(rest, pilot, alphas, target=target, confidence=confidence).tolist()
        estimates = rates(rest, alphas)
        lower, upper = band(rest, pilot, alphas, confidence=confidence, target=target)
    points = tuple(
        Point(
            alpha=float(alpha),
            seconds=round(seconds.at(alpha), 3),
            share=round(seconds.at(alpha) / seconds.total, 4),
            label_mer=None if np.isnan(estimates[place]) else round(float(estimates[place]), 4),
            lower=round(float(lower[place]), 4),
            upper=round(float(min(upper[place], target) if place in won else upper[place]), 4),
            proved=place in won,
        )
        for place, alpha in enumerate(alphas)
    )
    return won, points


@dataclass(frozen=True, slots=True)
class _OneSegmentEach:
    """Reviewed segments with their chunks, as `thresholds` takes them: row i is chunk i and segment i."""

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
    return [float(least) for least in thresholds(policy, _OneSegmentEach(chunks, segments)).segments]


def _facts(lake: Lake, batches: Sequence[Batch], rows: Sequence[ReviewRow]) -> list[tuple[ChunkFacts, int]]:
    """The facts of the chunk each row's segment is in, and the segment's place there."""
    results = (result for batch in batches for result in lake.batches.results(batch.id))
    keys = {str(result.facts_key) for result in results if result.facts_key}
    places = [place_of(row.id) for row in rows]
    missing = next((row.id for row, place in zip(rows, places, strict=True) if place.facts_key not in keys), None)
    if missing is not None:
        raise NotFound(
            f"the reviewed segment {missing[:80]} is in none of these batches",
            hint="name the batches it was drawn from; new facts (another validator or version) need new draws",
        )
    facts: dict[tuple[str, int], ChunkFacts] = {}
    for key in dict.fromkeys(place.facts_key for place in places):
        facts.update({(key, fact.index): fact for fact in lake.facts.read(key)})
    for row, place in zip(rows, places, strict=True):
        fact = facts.get((place.facts_key, place.chunk))
        if fact is None or place.segment is None or place.segment >= len(fact.segments):
            raise NotFound(f"there is no segment {row.id[:80]}", hint="the id was changed: draw again")
    return [(facts[place.facts_key, place.chunk], place.segment or 0) for place in places]


def _notes(head: ReviewHead, segments: int, *, draws: int, holes: int) -> tuple[str, ...]:
    notes = []
    if holes:
        notes.append(f"{holes} draws were skipped before the last reviewed one: each counts as wholly wrong")
    if draws < head.draws:
        notes.append(f"{draws} of {head.draws} draws are reviewed")
    drawn_from = int(head.population.get("reachable", segments))
    if drawn_from != segments:
        notes.append(f"the batches had {drawn_from} segments to keep when this was drawn and have {segments} now")
    return tuple(notes)


def _claim(
    head: ReviewHead, batches: int, seconds: Seconds, alpha: float, *, draws: int, target: float, confidence: float
) -> str:
    kept, total = seconds.at(alpha) / 3600, seconds.total / 3600
    return (
        f"label MER ≤ {target:.1%} with {confidence:.0%} confidence, by {draws} reviewed draws from "
        f"{head.population.get('reachable', 0)} segments of {batches} batch{'es' if batches > 1 else ''}, "
        f"{datetime.now(UTC).date().isoformat()}; keeps {kept / total:.1%} of the hours ({kept:.2f} of {total:.2f})"
    )
