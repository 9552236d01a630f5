"""Aligns labels with hypotheses by sound, once for each pair of texts, and counts the edits token by token.

Pure, and over many pairs at once: rapidfuzz aligns each pair, everything after that is arithmetic on flat arrays. Two
texts are aligned phoneme by phoneme (`k2d.text.sounds`); each phoneme belongs to a token, each token of the label to a
segment. What only the hypothesis has belongs to the segment of the label's phoneme before it (to the first where there is
none), what both have to the label's segment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

Places = npt.NDArray[np.intp]
Kinds = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# The language a token is read aloud in; a number in digits is Mandarin.
MANDARIN, ENGLISH, FOREIGN = range(3)

_HIT, _REPLACED, _INSERTED, _DELETED = range(4)
_TAGS: Final = {"replace": _REPLACED, "insert": _INSERTED, "delete": _DELETED}
# Two tokens that differ may be a loan word and its native one (OK, 好); added to a span's tokens before the share of
# those that differ is taken, so that a flip needs more than two.
_FEW_TOKENS: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class TokenPool:
    """Tokens of many texts in a row, and how they sound."""

    sound: str  # of all tokens, one character a phoneme
    units: Places  # (tokens + 1,): where each token's phonemes begin
    kinds: Kinds  # (tokens,): MANDARIN, ENGLISH or FOREIGN
    whole: Flags  # (tokens,): wrong as a whole, as words are, or by the share of its phonemes
    segments: Places  # (tokens,): of a label's token its segment within the label; anything elsewhere


@dataclass(frozen=True, slots=True)
class Pair:
    """A label and an hypothesis as stretches of a pool's tokens, and how many segments the label has."""

    label: tuple[int, int]
    hypothesis: tuple[int, int]
    segments: int


@dataclass(frozen=True, slots=True, eq=False)
class EditCounts:
    """What each span's alignment counts, shape (spans,) each. Sums over segments are those of the whole.

    Tokens of the label and of the hypothesis count by the share that is wrong of them. `hypothesis_…` are the hypothesis's own.
    """

    tokens: Floats
    hypothesis_tokens: Floats
    substituted: Floats
    inserted: Floats
    deleted: Floats
    homophones: Floats
    units: Floats  # Mandarin phonemes of the label
    hypothesis_units: Floats
    unit_edits: Floats  # with Mandarin on either side
    words: Floats  # English tokens of the label
    hypothesis_words: Floats
    words_wrong: Floats
    hypothesis_words_wrong: Floats
    wrong: Floats  # of the label's tokens
    wrong_mandarin: Floats
    hypothesis_wrong: Floats  # of the hypothesis's tokens
    hypothesis_wrong_mandarin: Floats
    hits: Floats  # the label's tokens without a wrong phoneme
    alone: Floats  # the label's tokens that the hypothesis lacks altogether

    def summed(self, first: Places) -> "EditCounts":
        """Spans put together; `first` are the first of each."""
        return EditCounts(*(np.add.reduceat(getattr(self, name), first) for name in self.__slots__))

    @property
    def disagreement(self) -> Floats:
        """Edits over the longer side's tokens, 0…1; an empty side disagrees altogether with one that is not."""
        return _share(self.substituted + self.deleted + self.inserted, self._longer)

    @property
    def zh_error(self) -> Floats:
        return _share(self.unit_edits, np.maximum(self.units, self.hypothesis_units))

    @property
    def en_error(self) -> Floats:
        wrong = np.maximum(self.words_wrong, self.hypothesis_words_wrong)
        return _share(wrong, np.maximum(self.words, self.hypothesis_words))

    @property
    def flip(self) -> Floats:
        """How far the share of Mandarin differs where label and hypothesis differ, by how much of the span differs."""
        both = (self.wrong > 0) & (self.hypothesis_wrong > 0)
        label = self.wrong_mandarin / np.maximum(self.wrong, _LEAST)
        hypothesis = self.hypothesis_wrong_mandarin / np.maximum(self.hypothesis_wrong, _LEAST)
        differing = np.minimum(self.wrong, self.hypothesis_wrong) / (self._longer + _FEW_TOKENS)
        flip: Floats = np.where(both, np.abs(label - hypothesis) * np.minimum(1.0, differing), 0.0)
        return flip

    def rates(self) -> Floats:
        """Shape (spans, 8), in the order of RATES."""
        longer = self._longer
        return np.stack(
            (
                self.disagreement,
                self.zh_error,
                self.en_error,
                _share(self.substituted, longer),
                _share(self.deleted, longer),
                _share(self.inserted, longer),
                _share(self.homophones, self.tokens),
                self.flip,
            ),
            axis=1,
        )

    @property
    def _longer(self) -> Floats:
        return np.maximum(self.tokens, self.hypothesis_tokens)


RATES: Final = ("disagreement", "zh_error", "en_error", "substituted", "deleted", "inserted", "homophones", "flip")
_LEAST: Final = 1e-9


def _share(part: Floats, whole: Floats) -> Floats:
    share: Floats = np.minimum(1.0, part / np.maximum(whole, 1.0))
    return share


@dataclass(frozen=True, slots=True, eq=False)
class Alignments:
    """Edits of all pairs in a row, shape (edits,) each; `hypothesis` and `label` are places in the pair's own strings."""

    pair: Places
    tag: Kinds  # _REPLACED, _INSERTED or _DELETED
    hypothesis: Places
    label: Places

    def count(self, pairs: int) -> npt.NDArray[np.int64]:
        """How many replaced, inserted and deleted each pair has, shape (pairs, 3)."""
        found = np.bincount(self.pair * 3 + self.tag - _REPLACED, minlength=3 * pairs)
        return found.reshape(pairs, 3)

    def missed(self, pair: int) -> Places:
        """Where a pair's label has what its hypothesis has not."""
        found: Places = self.label[(self.pair == pair) & (self.tag != _DELETED)]
        return found


def align(texts: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Alignments:
    """Align each hypothesis with its label, in that order, with the fewest edits; a text is a string or its parts."""
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


def tally(pool: TokenPool, pairs: Sequence[Pair], by_sound: Alignments, by_writing: Alignments) -> EditCounts:
    """Count the edits of each segment of each pair, in order.

    `by_sound` aligns the pairs' sounds, `by_writing` their tokens (nothing for a pair without).
    """
    label = _Side(pool, [pair.label for pair in pairs])
    hypothesis = _Side(pool, [pair.hypothesis for pair in pairs])
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
    # a word that was partly replaced is counted where the label has something else
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
    spoken = label.lengths > 0

    spans = int(first[-1])

    def label_sum(what: npt.NDArray[Any]) -> Floats:
        return np.bincount(segment, what, spans).astype(np.float64)

    def hypothesis_sum(what: npt.NDArray[Any]) -> Floats:
        return np.bincount(hypothesis_segment, what, spans).astype(np.float64)

    mandarin, hypothesis_mandarin = label.kinds == MANDARIN, hypothesis.kinds == MANDARIN
    word, hypothesis_word = label.kinds == ENGLISH, hypothesis.kinds == ENGLISH
    # a Mandarin phoneme for an English one is one edit, not two
    both = _pairs_of_mandarin(label, hypothesis)
    unit_edits = label_sum(mandarin * wrong) + hypothesis_sum(hypothesis_mandarin * hypothesis_wrong)
    unit_edits -= np.bincount(segment[label.owner[label.state == _REPLACED]], both, spans)
    return EditCounts(
        tokens=label_sum(np.ones(len(segment))),
        hypothesis_tokens=hypothesis_sum(np.ones(len(hypothesis_segment))),
        substituted=label_sum(substituted),
        inserted=label_sum(inserted),
        deleted=hypothesis_sum(deleted),
        homophones=label_sum(unwritten & spoken & (wrong == 0)),
        units=label_sum(mandarin * label.lengths),
        hypothesis_units=hypothesis_sum(hypothesis_mandarin * hypothesis.lengths),
        unit_edits=unit_edits,
        words=label_sum(word),
        hypothesis_words=hypothesis_sum(hypothesis_word),
        words_wrong=label_sum(word & (wrong > 0)),
        hypothesis_words_wrong=hypothesis_sum(hypothesis_word & (hypothesis_wrong > 0)),
        wrong=label_sum(share),
        wrong_mandarin=label_sum(share * mandarin),
        hypothesis_wrong=hypothesis_sum(hypothesis_share),
        hypothesis_wrong_mandarin=hypothesis_sum(hypothesis_share * hypothesis_mandarin),
        hits=label_sum(wrong == 0),
        alone=label_sum(spoken & (alone == label.lengths)),
    )


class _Side:
    """One side of all pairs: its tokens in a row, and their phonemes in a row."""

    def __init__(self, pool: TokenPool, stretches: Sequence[tuple[int, int]]) -> None:
        first, end = np.array(stretches, np.intp).reshape(-1, 2).T
        self.token = _ranges(first, end)
        self.pair = np.repeat(np.arange(len(first)), end - first)
        self.first_token = np.concatenate(([0], np.cumsum(end - first)))
        self.lengths = np.diff(pool.units)[self.token]
        self.least_lengths = np.maximum(self.lengths, 1)
        self.first_unit = np.concatenate(([0], np.cumsum(pool.units[end] - pool.units[first])))
        self.owner = np.repeat(np.arange(len(self.token)), self.lengths)
        self.state = np.zeros(len(self.owner), np.uint8)  # of each phoneme
        self.kinds = pool.kinds[self.token]
        self.whole = pool.whole[self.token]

    def mark(self, edits: Alignments, places: Places, other_side_only: int) -> None:
        here = edits.tag != other_side_only
        self.state[self.first_unit[edits.pair[here]] + places[here]] = edits.tag[here]

    def edits(self) -> tuple[Floats, Floats]:
        """Phonemes of each token that were replaced, and that only this side has."""
        replaced = np.bincount(self.owner[self.state == _REPLACED], minlength=len(self.token))
        alone = np.bincount(self.owner[self.state > _REPLACED], minlength=len(self.token))
        return replaced.astype(np.float64), alone.astype(np.float64)


def _pairs_of_mandarin(label: _Side, hypothesis: _Side) -> Flags:
    """Of each replaced phoneme of the labels, whether both it and what replaced it are Mandarin."""
    ours, theirs = label.owner[label.state == _REPLACED], hypothesis.owner[hypothesis.state == _REPLACED]
    both: Flags = (label.kinds[ours] == MANDARIN) & (hypothesis.kinds[theirs] == MANDARIN)
    return both


def _hypothesis_segments(
    label: _Side, hypothesis: _Side, unit_segment: Places, first: Places, edits: Alignments
) -> npt.NDArray[np.intp]:
    """The segment of each of the hypotheses' tokens: that of its first phoneme, or of the token before where it has none.

    The k-th phoneme that an hypothesis shares with its label or has instead of it is the k-th of the label's own.
    """
    of_unit = np.zeros(len(hypothesis.state) + 1, np.intp)
    aligned = np.flatnonzero(hypothesis.state <= _REPLACED)
    of_unit[aligned] = unit_segment[label.state <= _REPLACED]
    deleted = edits.tag == _DELETED
    pair, before = edits.pair[deleted], edits.label[deleted] - 1
    place = label.first_unit[pair] + before
    of_unit[hypothesis.first_unit[pair] + edits.hypothesis[deleted]] = np.where(
        before >= 0, unit_segment[np.maximum(place, 0)] if len(unit_segment) else 0, first[pair]
    )
    start, begin, end = np.cumsum(hypothesis.lengths) - hypothesis.lengths, *_unit_bounds(hypothesis)
    silent = hypothesis.lengths == 0
    start = np.where(silent & (start > begin), start - 1, start)
    return np.where(begin < end, of_unit[np.minimum(start, len(hypothesis.state))], first[hypothesis.pair])


def _unit_bounds(side: _Side) -> tuple[Places, Places]:
    return side.first_unit[side.pair], side.first_unit[side.pair + 1]


def _ranges(first: Places, end: Places) -> Places:
    """All numbers from each first up to its end, in a row."""
    lengths = end - first
    places: Places = np.arange(int(lengths.sum())) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
    return places
