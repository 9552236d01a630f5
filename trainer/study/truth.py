"""What each label should have been: its reference, its edits. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.distance import counts_by_segment, read
from k2d.schema import ChunkFacts, Counts
from trainer.evaluation.error_rates import Tally, score
from trainer.study.material import Sentence

# A teacher's timestamp and a sentence's edge are about so far apart where they mean the same place: the resolution of
# the one (0.02 s) is nothing beside how it is guessed. Within it, a sentence may be in the chunk or not.
EDGE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Truth:
    """One label against its reference."""

    reference: str  # the form that is nearest to the label
    tally: Tally
    segments: tuple[Counts, ...]  # the mixed edits of each of its segments


def of_clip(facts: ChunkFacts, references: Sequence[str]) -> Truth:
    """The label of a recording that is one chunk, against all that is said in it."""
    return _nearest(facts, references)


def of_stretch(facts: ChunkFacts, timeline: Sequence[Sentence]) -> Truth:
    """The label of a chunk, against what is said in its span of a longer recording.

    Sentences inside the span count wholly. Of one that crosses an edge, nobody knows how much is inside: at the start
    any beginning may be missing, at the end any end, whichever is nearest to the label. Where several stretches are as
    near, the longest counts.
    """
    first, last = facts.start_s, facts.end_s
    inside = [one for one in timeline if one.end_s > first - EDGE_S and one.start_s < last + EDGE_S]
    heard = read(facts.teacher_text).tokens
    found = []
    for form in (0, -1):
        split = [(one, read(one.references[form]).tokens) for one in inside]
        head = sum(len(words) for one, words in split if one.start_s < first - EDGE_S or one.end_s < first + EDGE_S)
        tail = sum(len(words) for one, words in split if one.end_s > last + EDGE_S or one.start_s > last - EDGE_S)
        reference = [token for _, tokens in split for token in tokens]
        start, stop = stretch(reference, heard, head=head, tail=tail)
        found.append(" ".join(reference[start:stop]))
    return _nearest(facts, tuple(dict.fromkeys(found)))


def _nearest(facts: ChunkFacts, references: Sequence[str]) -> Truth:
    tallies = [score([reference], facts.teacher_text) for reference in references]
    best = min(
        range(len(tallies)), key=lambda at: (tallies[at].mixed.edits, tallies[at].mixed.reference_length)
    )  # as `score` itself chooses
    texts = [segment.text for segment in facts.segments]
    return Truth(references[best], tallies[best], counts_by_segment(texts, references[best]))


def stretch(reference: Sequence[str], heard: Sequence[str], *, head: int, tail: int) -> tuple[int, int]:
    """The part of a reference that is nearest to what was heard: at most `head` tokens are left out before it, at most
    `tail` behind it. Of several, the one that ends last, and of those the one that starts first."""
    numbers: dict[str, int] = {}
    left, right = (
        np.array([numbers.setdefault(token, len(numbers)) for token in tokens], np.int64)
        for tokens in (reference, heard)
    )
    stop = _last(_ends(left, right, free=head), len(left) - tail)
    back = _ends(left[:stop][::-1], right[::-1], free=0)
    return stop - _last(back, stop - head), stop


def _last(edits: npt.NDArray[np.int64], least: int) -> int:
    """The last place, from `least` on, with the fewest edits."""
    least = max(0, min(least, len(edits) - 1))
    few = edits[least:]
    return least + int(np.flatnonzero(few == few.min())[-1])


def _ends(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], *, free: int) -> npt.NDArray[np.int64]:
    """Fewest edits between `right` and left[:i] for every i, shape (len(left) + 1,).

    The first `free` tokens of `left` may be left out for nothing.
    """
    places = np.arange(len(right) + 1)
    row = places.copy()
    found = [int(row[-1])]
    for at, token in enumerate(left):
        step = np.empty_like(row)
        step[0] = max(0, at + 1 - free)
        step[1:] = np.minimum(row[1:] + 1, row[:-1] + (right != token))
        row = np.minimum.accumulate(step - places) + places  # insertions, from left to right
        found.append(int(row[-1]))
    return np.array(found, np.int64)
