"""What each label should have been: its reference and its edits. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.distance import counts_by_segment
from k2d.schema import ChunkFacts, Counts, join_text
from k2d.text.reading import read
from trainer.evaluation.error_rates import ErrorCounts, count_errors
from trainer.study.material import Sentence

# A teacher's timestamp and a sentence's edge are about so far apart where they mean the same place: the timestamp's
# resolution (0.02 s) is small beside the error of its estimate. Within this a sentence may be in the chunk or not.
EDGE_S: Final = 0.5

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelTruth:
    """One label against its reference."""

    reference: str  # the form that is nearest to the label
    errors: ErrorCounts
    segments: tuple[Counts, ...]  # the mixed edits of each of its segments, by our own alignment
    teacher: Counts | None = None  # the mixed edits of the teacher's own text; None: that is the label


def truth_of_clip(facts: ChunkFacts, references: Sequence[str]) -> LabelTruth:
    """The label of a recording that is one chunk, against everything said in the recording."""
    return _truth(facts, lambda text: references)


def truth_of_span(facts: ChunkFacts, timeline: Sequence[Sentence]) -> LabelTruth:
    """The label of a chunk, against what is said in its span of a longer recording.

    Sentences inside the span count in full. Of one that crosses an edge it is not known how much is inside: at the
    start any number of its first tokens may be missing, at the end any number of its last ones, whichever is nearest to
    the label. Where several stretches are equally near, the longest counts.
    """
    first, last = facts.start_s, facts.end_s
    inside = [sentence for sentence in timeline if sentence.end_s > first - EDGE_S and sentence.start_s < last + EDGE_S]

    def references(text: str) -> tuple[str, ...]:
        stretches = []
        for form in (0, -1):  # as written, as spoken
            split = [(sentence, read(sentence.references[form]).tokens) for sentence in inside]
            head = sum(len(tokens) for sentence, tokens in split if _crosses_start(sentence, first))
            tail = sum(len(tokens) for sentence, tokens in split if _crosses_end(sentence, last))
            reference = [token for _, tokens in split for token in tokens]
            start, stop = nearest_stretch(reference, read(text).tokens, head=head, tail=tail)
            stretches.append(" ".join(reference[start:stop]))
        return tuple(dict.fromkeys(stretches))

    return _truth(facts, references)


def teacher_text(facts: ChunkFacts) -> str | None:
    """The teacher's own text of a label, where a second decode's was chosen for a part of it; else None."""
    if all(segment.teacher_text is None for segment in facts.segments):
        return None
    return join_text(
        segment.text if segment.teacher_text is None else segment.teacher_text for segment in facts.segments
    )


def _crosses_start(sentence: Sentence, first_s: float) -> bool:
    return sentence.start_s < first_s - EDGE_S or sentence.end_s < first_s + EDGE_S


def _crosses_end(sentence: Sentence, last_s: float) -> bool:
    return sentence.end_s > last_s + EDGE_S or sentence.start_s > last_s - EDGE_S


def _truth(facts: ChunkFacts, references_for: Callable[[str], Sequence[str]]) -> LabelTruth:
    """Score a label, and the teacher's own text likewise, each against what was said as it should be written there."""
    references = references_for(facts.teacher_text)
    errors = count_errors(references, facts.teacher_text)
    reference = references[errors.reference]
    own = teacher_text(facts)
    return LabelTruth(
        reference=reference,
        errors=errors,
        segments=counts_by_segment([segment.text for segment in facts.segments], reference),
        teacher=None if own is None else count_errors(references_for(own), own).mixed,
    )


def nearest_stretch(reference: Sequence[str], label: Sequence[str], *, head: int, tail: int) -> tuple[int, int]:
    """The part of a reference that is nearest to a label, as [start, stop).

    At most `head` tokens are left out before it, at most `tail` after it. Of several equally near ones, those that end
    last, and of these the one that starts first.

        nearest_stretch("abcdef", "cd", head=6, tail=6)  # (2, 4)
    """
    numbers: dict[str, int] = {}
    left, right = (
        np.array([numbers.setdefault(token, len(numbers)) for token in tokens], np.int64)
        for tokens in (reference, label)
    )
    stop = _last_best(_prefix_edits(left, right, free=head), len(left) - tail)
    backwards = _prefix_edits(left[:stop][::-1], right[::-1], free=0)
    return stop - _last_best(backwards, stop - head), stop


def _last_best(edits: Integers, least: int) -> int:
    """The last place, from `least` on, with the fewest edits."""
    least = max(0, min(least, len(edits) - 1))
    allowed = edits[least:]
    return least + int(np.flatnonzero(allowed == allowed.min())[-1])


def _prefix_edits(left: Integers, right: Integers, *, free: int) -> Integers:
    """Fewest edits between `right` and left[:i] for every i, shape (len(left) + 1,).

    Leaving out the first `free` tokens of `left` costs nothing.
    """
    places = np.arange(len(right) + 1)
    row = places.copy()  # edits between left[:i] and each prefix of right
    last_column = [int(row[-1])]
    for at, token in enumerate(left):
        step = np.empty_like(row)
        step[0] = max(0, at + 1 - free)
        step[1:] = np.minimum(row[1:] + 1, row[:-1] + (right != token))
        row = np.minimum.accumulate(step - places) + places  # insertions, from left to right
        last_column.append(int(row[-1]))
    return np.array(last_column, np.int64)
