"""What excising bad segments gives back: seconds and label MER of what is kept whole, and of what is salvaged. Pure."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from k2d.filtering.policy import Policy, decide
from k2d.filtering.policy.salvage import salvaged as rescued
from trainer.evaluation.bootstrap import Band
from trainer.study.curves import divided, rate
from trainer.study.draws import How, banded, weightings
from trainer.study.judge import ALPHAS
from trainer.study.table import Flags, Floats, Labels
from trainer.study.walk import LENGTHS, Segments, Validators

_PARTS: Final = ("whole", "salvaged", "together")


@dataclass(frozen=True, slots=True)
class Part:
    """Share of the labels' seconds, and label MER; by "whole", "salvaged", "together"."""

    share: dict[str, Band]
    mer: dict[str, Band]


@dataclass(frozen=True, slots=True)
class Salvaged:
    """One α, over some of the labels."""

    alpha: float
    length: str  # one of LENGTHS, or "all"
    part: Part


def salvaged(labels: Labels, validators: Validators, policy: Policy, how: How) -> tuple[Salvaged, ...]:
    """Judge the policy with salvage at every α: over all labels, and over those of each length."""
    found = []
    milliseconds = np.rint(validators.segments.seconds * 1000).astype(np.int64)
    spans = {**validators.segments.columns, "chunk": validators.segments.owner, "ms": milliseconds}
    every = np.ones(len(labels), np.bool_)
    lengths = {"all": every} | {length: labels.kinds["length"] == length for length in LENGTHS}
    for length, rows in lengths.items():
        if not rows.any() or (length != "all" and rows.all()):
            continue
        for alpha in ALPHAS:
            at = policy.model_copy(update={"alpha": alpha})
            whole = decide(at, validators.columns).accepted
            saved = np.zeros(len(validators.segments.owner), np.bool_)
            saved[rescued(at, spans, whole)] = True
            found.append(Salvaged(alpha, length, _part(labels, validators.segments, rows, whole, saved, how)))
    return tuple(found)


def _part(labels: Labels, segments: Segments, rows: Flags, whole: Flags, saved: Flags, how: How) -> Part:
    blocks: list[tuple[Floats, ...]] = []
    members = labels.only(rows)
    for weights in weightings(members, how):
        kept = [weights @ (values * whole)[rows] for values in (labels.seconds, labels.edits, labels.tokens)]
        back = [
            weights @ _by_label(values * saved, segments, len(labels))[rows]
            for values in (segments.seconds, segments.edits, segments.tokens)
        ]
        seconds = weights @ members.seconds
        both = [one + other for one, other in zip(kept, back, strict=True)]
        blocks.append(
            tuple(
                value
                for part in (kept, back, both)
                for value in (divided(part[0], seconds), np.where(part[0] > 0, rate(part[1], part[2]), np.nan))
            )
        )
    found = [banded(np.concatenate(parts)) for parts in zip(*blocks, strict=True)]
    return Part(dict(zip(_PARTS, found[::2], strict=True)), dict(zip(_PARTS, found[1::2], strict=True)))


def _by_label(values: Floats, segments: Segments, labels: int) -> Floats:
    found: Floats = np.bincount(segments.owner, values, minlength=labels).astype(np.float64)
    return found
