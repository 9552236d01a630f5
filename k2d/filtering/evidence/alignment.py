"""Aligns labels with hypotheses by sound, once for each pair of texts, and counts the edits of each token.

rapidfuzz aligns each pair; everything after that is arithmetic on flat arrays over many pairs. Texts are aligned
phoneme by phoneme (`k2d.text.sounds`). Each phoneme belongs to a token, and each token of the label to a segment.
Phonemes of the hypothesis that are aligned with the label's belong to the label's segment; phonemes that only the
hypothesis has belong to the segment of the label's phoneme before them, or to the first segment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from k2d.filtering.evidence.edit_counts import EditCounts, Floats

Places = npt.NDArray[np.intp]
Kinds = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

# The language in which a token is read; a number in digits is read in Mandarin.
MANDARIN, ENGLISH, FOREIGN = range(3)

_HIT, _REPLACED, _INSERTED, _DELETED = range(4)
_TAGS: Final = {"replace": _REPLACED, "insert": _INSERTED, "delete": _DELETED}


@dataclass(frozen=True, slots=True, eq=False)
class TokenPool:
    """The tokens of many texts in a row, and which phonemes are theirs."""

    phoneme_starts: Places  # (tokens + 1,): where each token's phonemes begin
    kinds: Kinds  # (tokens,): MANDARIN, ENGLISH or FOREIGN
    whole: Flags  # (tokens,): whether a token is right or wrong as a whole (words), or by the share of its phonemes
    segments: Places  # (tokens,): a label token's segment within the label; without meaning for other tokens

    def of(self, tokens: Places, segments: Places) -> "TokenPool":
        """A pool of some of its tokens, which belong to other segments."""
        lengths = np.diff(self.phoneme_starts)[tokens]
        return TokenPool(np.concatenate(([0], np.cumsum(lengths))), self.kinds[tokens], self.whole[tokens], segments)


@dataclass(frozen=True, slots=True)
class TextPair:
    """A label and a hypothesis, as ranges of a pool's tokens."""

    label: tuple[int, int]  # first token, end
    hypothesis: tuple[int, int]
    segments: int  # of the label


@dataclass(frozen=True, slots=True, eq=False)
class Alignments:
    """The edits of all pairs in a row, shape (edits,) each."""

    pair: Places
    tag: Kinds  # _REPLACED, _INSERTED or _DELETED
    hypothesis: Places  # index in the pair's hypothesis
    label: Places  # index in the pair's label

    def count(self, pairs: int) -> npt.NDArray[np.int64]:
        """Replaced, inserted and deleted elements of each pair, shape (pairs, 3)."""
        counts = np.bincount(self.pair * 3 + self.tag - _REPLACED, minlength=3 * pairs)
        return counts.reshape(pairs, 3)

    def missed(self, pair: int) -> Places:
        """Indices of the elements of a pair's label that its hypothesis does not have."""
        missed: Places = self.label[(self.pair == pair) & (self.tag != _DELETED)]
        return missed


def align(texts: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Alignments:
    """Align each (hypothesis, label) with the fewest edits. Both are strings or sequences of strings."""
    counts: list[int] = []
    tags: list[str] = []
    sources: list[int] = []
    destinations: list[int] = []
    for hypothesis, label in texts:
        edits = Levenshtein.editops(hypothesis, label).as_list() if hypothesis != label else []
        counts.append(len(edits))
        if edits:
            tag, source, destination = zip(*edits, strict=True)
            tags += tag
            sources += source
            destinations += destination
    return Alignments(
        pair=np.repeat(np.arange(len(counts)), counts),
        tag=np.fromiter(map(_TAGS.__getitem__, tags), np.uint8, len(tags)),
        hypothesis=np.array(sources, np.intp),
        label=np.array(destinations, np.intp),
    )


def count_edits(pool: TokenPool, pairs: Sequence[TextPair], by_sound: Alignments, by_writing: Alignments) -> EditCounts:
    """Count the edits of each segment of each pair, in order; shape (segments of all pairs,) each.

    Args:
        by_sound: alignments of the pairs' phonemes.
        by_writing: alignments of the pairs' tokens; no edits for a pair without tokens.
    """
    label = _PairSide(pool, [pair.label for pair in pairs])
    hypothesis = _PairSide(pool, [pair.hypothesis for pair in pairs])
    first = np.concatenate(([0], np.cumsum([pair.segments for pair in pairs])))
    label.mark(by_sound, by_sound.label, _DELETED)
    hypothesis.mark(by_sound, by_sound.hypothesis, _INSERTED)
    segment = pool.segments[label.token] + first[label.pair]
    hypothesis_segment = _hypothesis_segments(label, hypothesis, segment[label.owner], first, by_sound)

    replaced, alone = label.edits()
    wrong = replaced + alone
    mostly_alone = label.whole & (alone > replaced)
    substituted = np.where(label.whole, (wrong > 0) & ~mostly_alone, replaced / label.least_lengths)
    inserted = np.where(label.whole, mostly_alone, alone / label.least_lengths)
    hypothesis_replaced, hypothesis_alone = hypothesis.edits()
    hypothesis_wrong = hypothesis_replaced + hypothesis_alone
    # a word that was partly replaced is already counted as substituted on the label's side
    deleted = np.where(
        hypothesis.whole,
        (hypothesis_alone > 0) & (hypothesis_replaced == 0),
        hypothesis_alone / hypothesis.least_lengths,
    )
    share = np.where(label.whole, wrong > 0, wrong / label.least_lengths)
    hypothesis_share = np.where(hypothesis.whole, hypothesis_wrong > 0, hypothesis_wrong / hypothesis.least_lengths)

    unwritten = np.zeros(len(label.token), np.bool_)
    differs = by_writing.tag != _DELETED
    unwritten[label.first_token[by_writing.pair[differs]] + by_writing.label[differs]] = True
    has_sound = label.lengths > 0

    spans = int(first[-1])

    def label_sum(what: npt.NDArray[Any]) -> Floats:
        return np.bincount(segment, what, spans).astype(np.float64)

    def hypothesis_sum(what: npt.NDArray[Any]) -> Floats:
        return np.bincount(hypothesis_segment, what, spans).astype(np.float64)

    mandarin, hypothesis_mandarin = label.kinds == MANDARIN, hypothesis.kinds == MANDARIN
    word, hypothesis_word = label.kinds == ENGLISH, hypothesis.kinds == ENGLISH
    # a Mandarin phoneme for an English one is one edit, not two
    both = _both_mandarin(label, hypothesis)
    zh_phoneme_edits = label_sum(mandarin * wrong) + hypothesis_sum(hypothesis_mandarin * hypothesis_wrong)
    zh_phoneme_edits -= np.bincount(segment[label.owner[label.state == _REPLACED]], both, spans)
    return EditCounts(
        tokens=label_sum(np.ones(len(segment))),
        hypothesis_tokens=hypothesis_sum(np.ones(len(hypothesis_segment))),
        # one word may be written for several: the side with more tokens counts, so that nothing in common is 1
        substituted=np.maximum(label_sum(substituted), hypothesis_sum(hypothesis_share - deleted)),
        inserted=label_sum(inserted),
        deleted=hypothesis_sum(deleted),
        homophones=label_sum(unwritten & has_sound & (wrong == 0)),
        zh_phonemes=label_sum(mandarin * label.lengths),
        hypothesis_zh_phonemes=hypothesis_sum(hypothesis_mandarin * hypothesis.lengths),
        zh_phoneme_edits=zh_phoneme_edits,
        words=label_sum(word),
        hypothesis_words=hypothesis_sum(hypothesis_word),
        words_wrong=label_sum(word & (wrong > 0)),
        hypothesis_words_wrong=hypothesis_sum(hypothesis_word & (hypothesis_wrong > 0)),
        wrong=label_sum(share),
        wrong_mandarin=label_sum(share * mandarin),
        hypothesis_wrong=hypothesis_sum(hypothesis_share),
        hypothesis_wrong_mandarin=hypothesis_sum(hypothesis_share * hypothesis_mandarin),
    )


class _PairSide:
    """One side (labels or hypotheses) of all pairs: its tokens in a row, and their phonemes in a row."""

    def __init__(self, pool: TokenPool, ranges: Sequence[tuple[int, int]]) -> None:
        first, end = np.array(ranges, np.intp).reshape(-1, 2).T
        phonemes = pool.phoneme_starts[end] - pool.phoneme_starts[first]
        self.token = _ranges(first, end)  # (tokens,): index in the pool
        self.pair = np.repeat(np.arange(len(first)), end - first)  # (tokens,)
        self.first_token = np.concatenate(([0], np.cumsum(end - first)))  # (pairs + 1,)
        self.lengths = np.diff(pool.phoneme_starts)[self.token]  # (tokens,): phonemes
        self.least_lengths = np.maximum(self.lengths, 1)
        self.first_phoneme = np.concatenate(([0], np.cumsum(phonemes)))  # (pairs + 1,)
        self.owner = np.repeat(np.arange(len(self.token)), self.lengths)  # (phonemes,): token
        self.state = np.zeros(len(self.owner), np.uint8)  # (phonemes,): _HIT, _REPLACED, or only on this side
        self.kinds = pool.kinds[self.token]
        self.whole = pool.whole[self.token]

    def mark(self, edits: Alignments, places: Places, other_side_only: int) -> None:
        """Set `state` from the edits at `places` of this side, except those that only the other side has."""
        here = edits.tag != other_side_only
        self.state[self.first_phoneme[edits.pair[here]] + places[here]] = edits.tag[here]

    def edits(self) -> tuple[Floats, Floats]:
        """For each token, its phonemes that are replaced, and those that only this side has; shape (tokens,) each."""
        replaced = np.bincount(self.owner[self.state == _REPLACED], minlength=len(self.token))
        alone = np.bincount(self.owner[self.state > _REPLACED], minlength=len(self.token))
        return replaced.astype(np.float64), alone.astype(np.float64)


def _both_mandarin(label: _PairSide, hypothesis: _PairSide) -> Flags:
    """For each replaced phoneme of the labels, whether it and its replacement are both Mandarin."""
    replaced, replacing = label.owner[label.state == _REPLACED], hypothesis.owner[hypothesis.state == _REPLACED]
    both: Flags = (label.kinds[replaced] == MANDARIN) & (hypothesis.kinds[replacing] == MANDARIN)
    return both


def _hypothesis_segments(
    label: _PairSide, hypothesis: _PairSide, phoneme_segment: Places, first: Places, edits: Alignments
) -> Places:
    """The segment of each token of the hypotheses: that of its first phoneme, or of the token before if it has none.

    The k-th hit or replaced phoneme of a hypothesis is aligned with the k-th such phoneme of its label.
    """
    of_phoneme = np.zeros(len(hypothesis.state) + 1, np.intp)
    aligned = np.flatnonzero(hypothesis.state <= _REPLACED)
    of_phoneme[aligned] = phoneme_segment[label.state <= _REPLACED]
    deleted = edits.tag == _DELETED
    pair, before = edits.pair[deleted], edits.label[deleted] - 1
    place = label.first_phoneme[pair] + before
    of_phoneme[hypothesis.first_phoneme[pair] + edits.hypothesis[deleted]] = np.where(
        before >= 0, phoneme_segment[np.maximum(place, 0)] if len(phoneme_segment) else 0, first[pair]
    )
    start, begin, end = np.cumsum(hypothesis.lengths) - hypothesis.lengths, *_phoneme_bounds(hypothesis)
    no_sound = hypothesis.lengths == 0
    start = np.where(no_sound & (start > begin), start - 1, start)
    return np.where(begin < end, of_phoneme[np.minimum(start, len(hypothesis.state))], first[hypothesis.pair])


def _phoneme_bounds(side: _PairSide) -> tuple[Places, Places]:
    """For each token, the first phoneme and the end of its pair."""
    return side.first_phoneme[side.pair], side.first_phoneme[side.pair + 1]


def _ranges(first: Places, end: Places) -> Places:
    """The numbers from each `first` up to its `end`, in a row."""
    lengths = end - first
    places: Places = np.arange(int(lengths.sum())) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    return places
