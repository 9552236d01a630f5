"""All figures of all filters over one validators's labels, draw by draw. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.filtering.policy import Policy, thresholds
from trainer.evaluation.bootstrap import Band
from trainer.study.curves import GRID, area, auc, divided, rank, rate, risk
from trainer.study.filters import Filter
from trainer.study.resampling import How, banded, weightings
from trainer.study.table import Flags, Floats, Labels
from trainer.study.walk import LENGTHS, ValidatorLabels

KEPT: Final = (0.5, 0.7, 0.9)  # shares of hours at which the curves are read
BAD: Final = (0.1, 0.2, 0.4)  # true MER above which a label is bad, for AUC
WRONG, TOTAL_FAILURE = 0.4, 1.0  # for precision and recall; a label with more edits than its reference has tokens
ALPHAS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
DRAWN: Final = GRID[::10]  # where curves are kept draw by draw, for the bands of pictures
RANDOM_DRAWS: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Figures of filters as rankings. First axis: the figure itself, then the draws."""

    curves: Floats  # (filters, GRID): of the figure alone
    drawn: Floats  # (1 + draws, filters, DRAWN)
    areas: Floats  # (1 + draws, filters)
    kept: Floats  # (1 + draws, filters, KEPT): label MER of the best so many
    switch: Floats  # the same for errors at switch points
    aucs: Floats  # (1 + draws, filters, BAD)


def ranked(labels: Labels, filters: Sequence[Filter], how: How) -> Ranked:
    """Judge filters by how they rank labels."""
    rankings = [rank(one.score, one.rejected) for one in filters]
    bad = [labels.true_mer > limit for limit in BAD]
    shares = np.array(KEPT)
    spoken = {"seconds": labels.seconds, "edits": labels.edits, "tokens": labels.tokens}
    switching = spoken | {"edits": labels.switch_edits, "tokens": labels.switch_tokens}
    curves = np.zeros((len(filters), len(GRID)))
    blocks: list[tuple[Floats, ...]] = []
    for number, weights in enumerate(weightings(labels, how)):
        found = []
        for at, ranking in enumerate(rankings):
            curve = risk(ranking, weights, **spoken)
            if number == 0:
                curves[at] = curve[0]
            found.append(
                (
                    curve[:, ::10],
                    area(curve),
                    risk(ranking, weights, shares=shares, **spoken),
                    _no_switch(risk(ranking, weights, shares=shares, **switching), labels),
                    np.stack([auc(ranking, weights, one) for one in bad], axis=1),
                )
            )
        blocks.append(tuple(np.stack(parts, axis=1) for parts in zip(*found, strict=True)))
    drawn, areas, kept, switch, aucs = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return Ranked(curves, drawn, areas, kept, switch, aucs)


def _no_switch(rates: Floats, labels: Labels) -> Floats:
    return rates if labels.switch_tokens.any() else np.full_like(rates, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """What masks keep. First axis: the figure itself, then the draws; second: the masks. NaN: nothing to divide by."""

    share: Floats  # of seconds kept
    mer_kept: Floats
    mer_dropped: Floats
    switch_kept: Floats  # errors at switch points of what is kept
    precision: Floats  # of dropped labels, the share with true MER > WRONG
    recall: Floats  # of labels with true MER > WRONG, the share dropped
    recall_total: Floats  # of total failures, the share dropped
    good_kept: Floats  # of labels with true MER ≤ 0.2, the share kept


def cuts(labels: Labels, kept: Sequence[Flags], how: How) -> Cuts:
    """Judge filters by what they keep; one mask of shape (labels,) for each filter and threshold."""
    keep = np.stack(kept, axis=1).astype(np.float64)
    true = labels.true_mer
    wrong, total, good = (np.asarray(mask, np.float64) for mask in (true > WRONG, true > TOTAL_FAILURE, true <= BAD[1]))
    blocks: list[tuple[Floats, ...]] = []
    for weights in weightings(labels, how):

        def summed(values: Floats, weights: Floats = weights) -> tuple[Floats, Floats]:
            weighted = weights * values
            return weighted @ keep, weighted.sum(axis=1, keepdims=True)

        seconds, edits, tokens = summed(labels.seconds), summed(labels.edits), summed(labels.tokens)
        switched, switches = summed(labels.switch_edits), summed(labels.switch_tokens)
        wrongs, totals, goods, rows = summed(wrong), summed(total), summed(good), summed(np.ones(len(labels)))
        none_kept, none_dropped = rows[0] == 0, rows[1] - rows[0] == 0
        blocks.append(
            (
                divided(seconds[0], seconds[1]),
                np.where(none_kept, np.nan, rate(edits[0], tokens[0])),
                np.where(none_dropped, np.nan, rate(edits[1] - edits[0], tokens[1] - tokens[0])),
                divided(switched[0], switches[0]),
                divided(wrongs[1] - wrongs[0], rows[1] - rows[0]),
                divided(wrongs[1] - wrongs[0], wrongs[1]),
                divided(totals[1] - totals[0], totals[1]),
                divided(goods[0], goods[1]),
            )
        )
    return Cuts(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class Chance:
    """Label MER of labels kept at random, by share of hours kept: over GRID."""

    mean: Floats
    low: Floats
    high: Floats

    def at(self, share: float) -> tuple[float, float, float]:
        """Mean and 95 % range at one share."""
        found = [float(np.interp(share, GRID, values)) for values in (self.mean, self.low, self.high)]
        return found[0], found[1], found[2]


def chance(labels: Labels, how: How, *, draws: int = RANDOM_DRAWS) -> Chance:
    """Keep labels in random order, so many times."""
    random = np.random.default_rng(how.seed)
    one = np.ones((1, len(labels)))
    curves = np.concatenate(
        [
            risk(
                rank(random.random(len(labels))), one, seconds=labels.seconds, edits=labels.edits, tokens=labels.tokens
            )
            for _ in range(draws)
        ]
    )
    low, high = np.quantile(curves, (0.025, 0.975), axis=0)
    return Chance(curves.mean(axis=0), low, high)


# ---- salvage ------------------------------------------------------------------------------------------------------

PARTS: Final = ("whole", "salvaged", "together")


@dataclass(frozen=True, slots=True)
class SalvageFigures:
    """What one α keeps whole, salvages, and both, over labels of one length: share of the seconds, and label MER."""

    alpha: float
    length: str  # one of LENGTHS, or "all"
    share: dict[str, Band]  # by PARTS
    mer: dict[str, Band]


def salvage(labels: Labels, judged: ValidatorLabels, policy: Policy, how: How) -> tuple[SalvageFigures, ...]:
    """Judge the policy with salvage at every α: over all labels, and over those of each length."""
    least = thresholds(policy, judged)
    every = np.ones(len(labels), np.bool_)
    lengths = {"all": every} | {length: labels.kinds["length"] == length for length in LENGTHS}
    figures = []
    for length, rows in lengths.items():
        if not rows.any() or (length != "all" and rows.all()):
            continue
        for alpha in ALPHAS:
            salvaged = np.zeros(len(least.segments), np.bool_)
            salvaged[least.salvaged(alpha)] = True
            share, mer = _parts(labels, judged, rows, least.whole(alpha), salvaged, how)
            figures.append(SalvageFigures(alpha, length, share, mer))
    return tuple(figures)


def _parts(
    labels: Labels, judged: ValidatorLabels, rows: Flags, whole: Flags, salvaged: Flags, how: How
) -> tuple[dict[str, Band], dict[str, Band]]:
    spans = judged.spans

    def by_label(values: Floats) -> Floats:
        summed: Floats = np.bincount(spans.owner, values * salvaged, minlength=len(labels)).astype(np.float64)
        return summed[rows]

    members = labels.only(rows)
    blocks: list[tuple[Floats, ...]] = []
    for weights in weightings(members, how):
        kept = [weights @ (values * whole)[rows] for values in (labels.seconds, labels.edits, labels.tokens)]
        back = [weights @ by_label(values) for values in (spans.seconds, spans.edits, spans.tokens)]
        seconds = weights @ members.seconds
        both = [one + other for one, other in zip(kept, back, strict=True)]
        blocks.append(
            tuple(
                value
                for part in (kept, back, both)
                for value in (divided(part[0], seconds), np.where(part[0] > 0, rate(part[1], part[2]), np.nan))
            )
        )
    bands = [banded(np.concatenate(parts)) for parts in zip(*blocks, strict=True)]
    return dict(zip(PARTS, bands[::2], strict=True)), dict(zip(PARTS, bands[1::2], strict=True))
