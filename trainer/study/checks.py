"""The targets a filter is meant to reach, and whether this study shows it. Pure."""

from dataclasses import dataclass
from typing import Final

from trainer.study.blocks import format_difference, format_number, join_words
from trainer.study.judge import TOTAL_FAILURE
from trainer.study.resampling import PairedFigures
from trainer.study.results import KEPT_FAILURE_ALPHA, Study

AREA_RATIO: Final = 0.8  # largest ratio of the first policy's area to the composite's


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """One target; `holds` is None where nothing can be said."""

    target: str
    result: str
    holds: bool | None


def checks(study: Study) -> tuple[TargetCheck, ...]:
    """The project's targets, for the first policy with the first validators."""
    name = study.first.best.name
    composite, single = study.comparisons[0], study.comparisons[1:]
    ratio = composite.area.ratio
    results = [
        TargetCheck(
            f"area of {name} at most {AREA_RATIO:g} of the composite's",
            f"{format_number(ratio.value, 2)} [{format_number(ratio.low, 2)}–{format_number(ratio.high, 2)}]",
            None if ratio.value is None else ratio.value <= AREA_RATIO,
        )
    ]
    for share, pair in composite.kept.items():
        results.append(
            TargetCheck(
                f"below the composite at {100 * share:.0f} % kept, by more than the band",
                format_difference(pair.difference),
                _is_clear(pair),
            )
        )
    above = [each for each in single if each.area.difference.value is None or each.area.difference.value >= 0]
    unclear = [each.against for each in single if not each.area.is_clear and each not in above]
    below = f"not below {join_words([each.against for each in above])}" if above else f"below all {len(single)}"
    within = f"; within the band of {join_words(unclear)}" if unclear else ""
    results.append(TargetCheck("area below every single measure's", below + within, not above))
    kept = [failure for failure in study.kept_failures if failure.policy == name]
    results.append(
        TargetCheck(
            f"no label with true MER > {TOTAL_FAILURE:g} kept at any α ≤ {KEPT_FAILURE_ALPHA:g}",
            f"{len(kept)} of {study.failures}",
            not kept if study.failures else None,
        )
    )
    return tuple(results)


def _is_clear(pair: PairedFigures) -> bool | None:
    return None if pair.difference.high is None else pair.is_clear
