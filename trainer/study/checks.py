"""What a filter is asked to achieve, and whether this study shows it. Pure."""

from dataclasses import dataclass
from typing import Final

from trainer.study.blocks import joined, number, signed
from trainer.study.figures import SURVIVING_ALPHA, Study
from trainer.study.judge import TOTAL_FAILURE
from trainer.study.resampling import Pair

AREA_RATIO: Final = 0.8  # of the first policy's area to the composite's


@dataclass(frozen=True, slots=True)
class Check:
    """One target; `holds` is None where nothing can be said."""

    asked: str
    found: str
    holds: bool | None


def checks(study: Study) -> tuple[Check, ...]:
    """The targets of the project (issue 5), for the first policy under the first validators."""
    name = study.first.best.name
    composite, single = study.compared[0], study.compared[1:]
    ratio = composite.area.ratio
    found = [
        Check(
            f"area of {name} at most {AREA_RATIO:g} of the composite's",
            f"{number(ratio.value, 2)} [{number(ratio.low, 2)}–{number(ratio.high, 2)}]",
            None if ratio.value is None else ratio.value <= AREA_RATIO,
        )
    ]
    for share, pair in composite.kept.items():
        found.append(
            Check(
                f"below the composite at {100 * share:.0f} % kept, by more than the band",
                signed(pair.difference),
                _clear(pair),
            )
        )
    above = [one for one in single if one.area.difference.value is None or one.area.difference.value >= 0]
    unclear = [one.against for one in single if not one.area.clear and one not in above]
    told = f"not below {joined([one.against for one in above])}" if above else f"below all {len(single)}"
    within = f"; within the band of {joined(unclear)}" if unclear else ""
    found.append(Check("area below every single measure's", told + within, not above))
    few = [one for one in study.survivors if one.policy == name]
    found.append(
        Check(
            f"no label with true MER > {TOTAL_FAILURE:g} kept at any α ≤ {SURVIVING_ALPHA:g}",
            f"{len(few)} of {study.failures}",
            not few if study.failures else None,
        )
    )
    return tuple(found)


def _clear(pair: Pair) -> bool | None:
    return None if pair.difference.high is None else pair.clear
