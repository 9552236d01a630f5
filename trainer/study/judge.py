"""All figures of all filters over the labels of one set of validators, draw by draw. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.filtering.policy import Policy, thresholds
from trainer.evaluation.bootstrap import Band
from trainer.study.curves import GRID, area, auc, divide, rank, rate, risk
from trainer.study.filters import Filter
from trainer.study.labeling import LENGTHS, ValidatorLabels
from trainer.study.resampling import BootstrapOptions, figure_with_band, weightings
from trainer.study.table import Flags, Floats, LabelTable

KEPT: Final = (0.5, 0.7, 0.9)  # shares of hours at which the curves are read
BAD: Final = (0.1, 0.2, 0.4)  # true MER above which a label is bad, for AUC
GOOD: Final = 0.2  # true MER up to which a label is good, for fairness
WRONG: Final = 0.4  # true MER above which a label is wrong, for precision and recall
TOTAL_FAILURE: Final = 1.0  # above it a label has more edits than its reference has tokens
ALPHAS: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
EVERY: Final = 10  # of the points of GRID is kept draw by draw, for the bands of pictures
DRAWN: Final = GRID[::EVERY]
RANDOM_ORDERS: Final = 200
RANGE: Final = (0.025, 0.975)  # quantiles of a 95 % range


@dataclass(frozen=True, slots=True, eq=False)
class RankingDraws:
    """Figures of filters as rankings. First axis: the figure itself, then the draws."""

    curves: Floats  # (filters, GRID): of the figure alone
    drawn: Floats  # (1 + draws, filters, DRAWN)
    areas: Floats  # (1 + draws, filters)
    kept: Floats  # (1 + draws, filters, KEPT): label MER of the best so many
    switch: Floats  # the same for errors at switch points
    aucs: Floats  # (1 + draws, filters, BAD)


def judge_rankings(labels: LabelTable, filters: Sequence[Filter], options: BootstrapOptions) -> RankingDraws:
    """Judge filters by how they rank labels.

    draws = judge_rankings(labels, filters(columns, [DEFAULT]), BootstrapOptions(draws=1000))
    figure_with_band(draws.areas[:, 0])
    """
    rankings = [rank(each.score, each.rejected) for each in filters]
    bad = [labels.true_mer > limit for limit in BAD]
    shares = np.array(KEPT)
    whole = {"seconds": labels.seconds, "edits": labels.edits, "tokens": labels.tokens}
    at_switches = whole | {"edits": labels.switch_edits, "tokens": labels.switch_tokens}
    curves = np.zeros((len(filters), len(GRID)))
    blocks: list[tuple[Floats, ...]] = []
    for number, weights in enumerate(weightings(labels, options)):
        of_filters = []
        for at, ranking in enumerate(rankings):
            curve = risk(ranking, weights, **whole)  # (draws of the block, GRID)
            if number == 0:
                curves[at] = curve[0]
            of_filters.append(
                (
                    curve[:, ::EVERY],
                    area(curve),
                    risk(ranking, weights, shares=shares, **whole),
                    _nan_without_switches(risk(ranking, weights, shares=shares, **at_switches), labels),
                    np.stack([auc(ranking, weights, mask) for mask in bad], axis=1),
                )
            )
        blocks.append(tuple(np.stack(parts, axis=1) for parts in zip(*of_filters, strict=True)))
    drawn, areas, kept, switch, aucs = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return RankingDraws(curves, drawn, areas, kept, switch, aucs)


def _nan_without_switches(rates: Floats, labels: LabelTable) -> Floats:
    return rates if labels.switch_tokens.any() else np.full_like(rates, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdDraws:
    """What masks keep. First axis: the figure itself, then the draws; second: the masks. NaN: nothing to divide by."""

    share: Floats  # of seconds kept
    mer_kept: Floats
    mer_dropped: Floats
    switch_kept: Floats  # errors at switch points of what is kept
    precision: Floats  # of dropped labels, the share with true MER > WRONG
    recall: Floats  # of labels with true MER > WRONG, the share dropped
    recall_total: Floats  # of total failures, the share dropped
    good_kept: Floats  # of labels with true MER ≤ GOOD, the share kept


def judge_thresholds(labels: LabelTable, kept: Sequence[Flags], options: BootstrapOptions) -> ThresholdDraws:
    """Judge filters by what they keep; one mask of shape (labels,) for each filter and threshold."""
    keep = np.stack(kept, axis=1).astype(np.float64)  # (labels, masks)
    true = labels.true_mer
    wrong, total, good = (np.asarray(mask, np.float64) for mask in (true > WRONG, true > TOTAL_FAILURE, true <= GOOD))
    blocks: list[tuple[Floats, ...]] = []
    for weights in weightings(labels, options):

        def sums(values: Floats, weights: Floats = weights) -> tuple[Floats, Floats]:
            """Of what each mask keeps (draws, masks), and of all labels (draws, 1)."""
            weighted = weights * values
            return weighted @ keep, weighted.sum(axis=1, keepdims=True)

        seconds, edits, tokens = sums(labels.seconds), sums(labels.edits), sums(labels.tokens)
        switch_edits, switch_tokens = sums(labels.switch_edits), sums(labels.switch_tokens)
        wrongs, totals, goods, rows = sums(wrong), sums(total), sums(good), sums(np.ones(len(labels)))
        none_kept, none_dropped = rows[0] == 0, rows[1] - rows[0] == 0
        blocks.append(
            (
                divide(seconds[0], seconds[1]),
                np.where(none_kept, np.nan, rate(edits[0], tokens[0])),
                np.where(none_dropped, np.nan, rate(edits[1] - edits[0], tokens[1] - tokens[0])),
                divide(switch_edits[0], switch_tokens[0]),
                divide(wrongs[1] - wrongs[0], rows[1] - rows[0]),
                divide(wrongs[1] - wrongs[0], wrongs[1]),
                divide(totals[1] - totals[0], totals[1]),
                divide(goods[0], goods[1]),
            )
        )
    return ThresholdDraws(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class RandomBaseline:
    """Label MER of labels kept in random order, by share of hours kept: over GRID."""

    mean: Floats
    low: Floats
    high: Floats

    def at(self, share: float) -> tuple[float, float, float]:
        """Mean and 95 % range at one share."""
        mean, low, high = (float(np.interp(share, GRID, values)) for values in (self.mean, self.low, self.high))
        return mean, low, high


def random_baseline(labels: LabelTable, options: BootstrapOptions, *, orders: int = RANDOM_ORDERS) -> RandomBaseline:
    """Keep labels in so many random orders."""
    random = np.random.default_rng(options.seed)
    once = np.ones((1, len(labels)))
    whole = {"seconds": labels.seconds, "edits": labels.edits, "tokens": labels.tokens}
    curves = np.concatenate([risk(rank(random.random(len(labels))), once, **whole) for _ in range(orders)])
    low, high = np.quantile(curves, RANGE, axis=0)
    return RandomBaseline(curves.mean(axis=0), low, high)


# ---- salvage ------------------------------------------------------------------------------------------------------

PARTS: Final = ("whole", "salvaged", "together")


@dataclass(frozen=True, slots=True)
class SalvageFigures:
    """What one α keeps whole, salvages, and both, over labels of one length: share of the seconds, and label MER."""

    alpha: float
    length: str  # one of LENGTHS, or "all"
    share: dict[str, Band]  # by PARTS
    mer: dict[str, Band]


def judge_salvage(
    labels: LabelTable, judged: ValidatorLabels, policy: Policy, options: BootstrapOptions
) -> tuple[SalvageFigures, ...]:
    """Judge the policy with salvage at every α: over all labels, and over those of each length."""
    least = thresholds(policy, judged)
    all_rows = np.ones(len(labels), np.bool_)
    lengths = {"all": all_rows} | {length: labels.kinds["length"] == length for length in LENGTHS}
    figures = []
    for length, rows in lengths.items():
        if not rows.any() or (length != "all" and rows.all()):
            continue
        for alpha in ALPHAS:
            salvaged = np.zeros(len(least.segments), np.bool_)
            salvaged[least.salvaged(alpha)] = True
            share, mer = _salvage_bands(labels, judged, rows, least.whole(alpha), salvaged, options)
            figures.append(SalvageFigures(alpha, length, share, mer))
    return tuple(figures)


def _salvage_bands(
    labels: LabelTable,
    judged: ValidatorLabels,
    rows: Flags,
    whole: Flags,
    salvaged: Flags,
    options: BootstrapOptions,
) -> tuple[dict[str, Band], dict[str, Band]]:
    """Share of the seconds and label MER, by PARTS, over the labels of `rows`."""
    spans = judged.spans

    def sum_salvaged(values: Floats) -> Floats:
        """A sum over the salvaged segments of each label."""
        sums: Floats = np.bincount(spans.owner, values * salvaged, minlength=len(labels)).astype(np.float64)
        return sums[rows]

    members = labels.only(rows)
    blocks: list[tuple[Floats, ...]] = []
    for weights in weightings(members, options):
        # seconds, edits, tokens of each part; (draws,) each
        kept = [weights @ (values * whole)[rows] for values in (labels.seconds, labels.edits, labels.tokens)]
        back = [weights @ sum_salvaged(values) for values in (spans.seconds, spans.edits, spans.tokens)]
        together = [of_kept + of_back for of_kept, of_back in zip(kept, back, strict=True)]
        seconds = weights @ members.seconds
        blocks.append(
            tuple(
                value
                for part in (kept, back, together)
                for value in (divide(part[0], seconds), np.where(part[0] > 0, rate(part[1], part[2]), np.nan))
            )
        )
    bands = [figure_with_band(np.concatenate(parts)) for parts in zip(*blocks, strict=True)]
    return dict(zip(PARTS, bands[::2], strict=True)), dict(zip(PARTS, bands[1::2], strict=True))
