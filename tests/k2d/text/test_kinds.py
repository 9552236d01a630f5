"""Kinds of text that came out wrong: handed cases (cases.json) and their siblings (siblings.json), with guards.

`{kind: {measure, cases, guard}}`. Measures: `mer0` = no edits of mixed tokens between two texts; `per0` = no edits of
phonemes; `clean` = every unit of the reading is a known phoneme; `reading` = exactly these phonemes; `disagree1` =
evidence finds nothing in common; `flag`, `notflag` = is, or is not, called a hallucination. A guard is measured as its
kind's cases are.
"""

import json
from pathlib import Path

import pytest

from k2d.filtering.distance import counts
from k2d.filtering.evidence import weigh
from k2d.schema import Hypothesis, Segment
from k2d.text import english, mandarin
from k2d.text.reading import read
from k2d.text.suspicions import is_hallucination

FOLDER = Path(__file__).parent
PHONEMES = {*english.PHONES, *mandarin.UNITS}


def disagreement(label: str, hypothesis: str) -> float:
    segment = Segment(0.0, 2.0, label, (), -0.3, 0.0, 1.0, 0.0, "zh-en")
    return weigh([segment], [Hypothesis("model:base", "as is", hypothesis, -0.3)]).evidence.disagreement_middle


MEASURES = {
    "mer0": lambda first, second: counts(read(first).tokens, read(second).tokens).edits == 0,
    "per0": lambda first, second: read(first).phonemes == read(second).phonemes,
    "clean": lambda text: PHONEMES.issuperset(read(text).phonemes),
    "reading": lambda text, phonemes: " ".join(read(text).phonemes) == phonemes,
    "disagree1": lambda label, hypothesis: disagreement(label, hypothesis) == 1,
    "flag": is_hallucination,
    "notflag": lambda text: not is_hallucination(text),
}


def cases(name: str) -> list:  # type: ignore[type-arg]
    kinds = json.loads((FOLDER / name).read_text("utf-8"))
    return [
        pytest.param(
            kind["measure"], case, id=f"{title} {role} {' = '.join(case if isinstance(case, list) else [case])}"
        )
        for title, kind in kinds.items()
        for role in ("cases", "guard")
        for case in kind.get(role, ())
    ]


# What a guard of K16 and K17 says is the other way round: 對對對 is no loop, 謝謝收看 is a farewell; so are the cases.
@pytest.mark.parametrize(("measure", "case"), [*cases("cases.json"), *cases("siblings.json")])
def test_kinds(measure: str, case: list[str]) -> None:
    assert MEASURES[measure](*case), [" ".join(read(text).phonemes) for text in case]
