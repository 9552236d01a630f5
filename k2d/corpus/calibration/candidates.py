"""What a reviewer may choose from: the hypotheses on a segment, and where they differ from its label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from k2d.filtering.distance import Diff, DiffOp, aligned_diff, split_by_segment
from k2d.schema import ChunkFacts
from k2d.text.reading import read

MOST: Final = 9  # there are nine keys


@dataclass(frozen=True, slots=True)
class SegmentHypothesis:
    """A hypothesis on a segment that differs from the label."""

    text: str
    validators: tuple[str, ...]  # whose it is; a validator is named once for each perturbation
    steps: tuple[Diff, ...]  # from the label to it


def candidates_of(facts: ChunkFacts, segment: int) -> list[SegmentHypothesis]:
    """The hypotheses on a segment that differ from its label, those of most validators first; at most nine.

        [candidate.text for candidate in candidates_of(facts, 2)]

    Hypotheses are of whole chunks: each is cut where its alignment with the label leaves the segment. What reads the
    same is listed once; phonemes, and the texts of English-only validators, are no candidates.
    """
    texts = [own.text for own in facts.segments]
    label = texts[segment].strip()
    votes: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for hypothesis in facts.hypotheses:
        if hypothesis.is_phonemes or hypothesis.is_english_only:
            continue
        text = split_by_segment(texts, hypothesis.text)[segment]
        tokens = tuple(read(text).tokens)
        if tokens and tokens != tuple(read(label).tokens):
            votes.setdefault(tokens, (text, []))[1].append(f"{hypothesis.validator}, {hypothesis.perturbation}")
    ranked = sorted(votes.values(), key=lambda vote: -len(vote[1]))[:MOST]  # a stable sort: equal ones stay in order
    return [SegmentHypothesis(text, tuple(whose), aligned_diff(label, text)) for text, whose in ranked]


def stops_of(label: str, candidates: Sequence[SegmentHypothesis]) -> list[tuple[int, int]]:
    """The parts of a label in which some candidate differs from it: (start, end) in characters, ascending.

        stops_of("我們 use Kafka", candidates)  # [(7, 12)]

    Where a candidate has more than the label, start and end are the same.
    """
    stops: set[tuple[int, int]] = set()
    for candidate in candidates:
        if "".join(step.teacher_text for step in candidate.steps) != label:
            continue  # rare: tokens that cannot be found in the text
        at = 0
        for step in candidate.steps:
            end = at + len(step.teacher_text)
            if step.op is not DiffOp.EQUAL:
                first = at + len(step.teacher_text) - len(step.teacher_text.lstrip())
                stops.add((first, max(first, at + len(step.teacher_text.rstrip()))))
            at = end
    return _joined(sorted(stops))


def _joined(stops: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping stops as one."""
    joined: list[tuple[int, int]] = []
    for start, end in stops:
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif not joined or (start, end) != joined[-1]:
            joined.append((start, end))
    return joined
