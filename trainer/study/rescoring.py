"""What the teacher's second decodes changed: labels whose text one of them wrote, before and after. Pure numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.evaluation.bootstrap import Band
from trainer.study.curves import divide, rate
from trainer.study.resampling import BootstrapOptions, PairedFigures, compare_draws, figure_with_band, weightings
from trainer.study.table import Flags, Floats, LabelTable
from trainer.study.truth import LabelTruth

ALL_SETS: Final = "all sets"


@dataclass(frozen=True, slots=True)
class RescoringFigures:
    """Labels of one set of which a second decode wrote the text, or a part of it.

    Label MER is given with the teacher's own texts and with the chosen ones.
    """

    set: str  # or ALL_SETS
    labels: int  # with a second decode's text
    share: Band  # of the seconds
    mer_teacher: Band  # of these labels
    mer_chosen: Band
    mer_all_teacher: Band  # of all labels
    mer_all_chosen: Band
    change: PairedFigures  # of the label MER of all labels: chosen against the teacher's own


def judge_rescoring(
    labels: LabelTable, truths: Sequence[LabelTruth], options: BootstrapOptions
) -> tuple[RescoringFigures, ...]:
    """Compare chosen texts with the teacher's own, over all labels and, where there are several sets, over each.

    Empty if no label has a second decode's text.

        judge_rescoring(labeled.labels, labeled.truths, BootstrapOptions())[0].mer_teacher.value
    """
    changed = np.array([truth.teacher is not None for truth in truths], np.bool_)
    if not changed.any():
        return ()
    teacher = [truth.errors.mixed if truth.teacher is None else truth.teacher for truth in truths]
    edits = np.array([float(counts.edits) for counts in teacher])
    tokens = np.array([float(counts.reference_length) for counts in teacher])
    sets = labels.kinds["set"]
    names = sorted(set(sets.tolist()))
    parts = {ALL_SETS: np.ones(len(labels), np.bool_)} if len(names) > 1 else {}
    parts |= {name: sets == name for name in names}
    return tuple(
        _figures(name, labels.only(rows), changed[rows], edits[rows], tokens[rows], options)
        for name, rows in parts.items()
    )


def _figures(
    name: str, labels: LabelTable, changed: Flags, edits: Floats, tokens: Floats, options: BootstrapOptions
) -> RescoringFigures:
    """`edits` and `tokens` are those of the teacher's own texts; arrays of shape (labels,)."""
    blocks: list[tuple[Floats, ...]] = []
    for weights in weightings(labels, options):  # (draws of the block, labels)
        some = weights * changed
        none_changed = some.sum(axis=1) == 0
        blocks.append(
            (
                divide(some @ labels.seconds, weights @ labels.seconds),
                np.where(none_changed, np.nan, rate(some @ edits, some @ tokens)),
                np.where(none_changed, np.nan, rate(some @ labels.edits, some @ labels.tokens)),
                rate(weights @ edits, weights @ tokens),
                rate(weights @ labels.edits, weights @ labels.tokens),
            )
        )
    draws = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    share, mer_teacher, mer_chosen, mer_all_teacher, mer_all_chosen = map(figure_with_band, draws)
    return RescoringFigures(
        set=name,
        labels=int(changed.sum()),
        share=share,
        mer_teacher=mer_teacher,
        mer_chosen=mer_chosen,
        mer_all_teacher=mer_all_teacher,
        mer_all_chosen=mer_all_chosen,
        change=compare_draws(draws[4], draws[3]),
    )
