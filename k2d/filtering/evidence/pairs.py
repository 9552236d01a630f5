"""Pairs each label with its hypotheses and aligns them; also counts the paper's distances from these alignments."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.filtering import distance
from k2d.filtering.evidence.alignment import ENGLISH, FOREIGN, MANDARIN, TextPair, TokenPool, align, count_edits
from k2d.filtering.evidence.edit_counts import EditCounts
from k2d.filtering.evidence.english import english_tokens, judged_tokens, opposite_tokens
from k2d.filtering.evidence.texts import TextBatch
from k2d.schema import Counts, Distances
from k2d.text.characters import HAN_KIND, LATIN_KIND, SINGLE
from k2d.text.loops import count_loops, unloop
from k2d.text.reading import Readings, read_many
from k2d.text.repetition import REPETITION_MAX
from k2d.text.sounds import encode, is_english, is_mandarin

Places = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

# A hypothesis with a loop of more turns than this is compared after its loops are reduced to one turn. Chosen: people
# really do say a word six times (對對對對對對).
LOOPS_MAX: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class JudgedSegments:
    """Which segments of a label an English-only hypothesis judges; shape (segments,)."""

    some: Flags  # it judges a token of the segment
    whole: Flags  # it judges all of its tokens
    throughout: bool  # it judges all of the label's tokens


class AlignedPairs:
    """The hypotheses of a batch of chunks, each paired and aligned with its label.

    `pairs`, `sounds`, `written` and the alignments have one entry for each hypothesis, chunk by chunk. Loops in a
    hypothesis are removed before it is aligned, so that the rest of it can still confirm the label.
    """

    def __init__(self, batch: TextBatch) -> None:
        chunks, readings, segment, first = batch.chunks, batch.readings, batch.segment, batch.first
        self.chunks, self.readings, self.first, self.recurring = chunks, readings, first, batch.recurring
        self.phrases = batch.phrases
        text = np.repeat(np.arange(len(chunks)), np.diff(readings.bounds[: len(chunks), 1], prepend=-1))
        self.segment = segment - first[text]  # (label tokens,): the segment's number within its chunk
        self.hypotheses = [hypothesis for chunk in chunks for hypothesis in chunk.hypotheses]
        self.label = [place for place, chunk in enumerate(chunks) for _ in chunk.hypotheses]  # the text of each
        following = iter(range(len(chunks), len(readings.bounds)))
        self.text = [None if hypothesis.is_phonemes else next(following) for hypothesis in self.hypotheses]
        self.parts = [_pool_of(readings)]
        self.size = len(readings.tokens)  # tokens in `parts`
        self.judged: dict[int, JudgedSegments] = {}  # by pair; a hypothesis that is not listed judges the whole label
        self.unlooped: set[int] = set()  # pairs whose hypothesis was aligned without its loops
        self.pairs: list[TextPair] = []
        self.sounds: list[tuple[str, str]] = []
        self.written: list[tuple[Sequence[str], Sequence[str]]] = []
        for pair in range(len(self.hypotheses)):
            self._pair(pair)
        self.pool = _joined(self.parts, self.segment)
        self.by_sound, self.by_writing = align(self.sounds), align(self.written)
        self.edits: EditCounts = count_edits(self.pool, self.pairs, self.by_sound, self.by_writing)

    @cached_property
    def repetition(self) -> list[int]:
        """Occurrences of each hypothesis's most frequent 6-gram (`count_ngrams`); at most 1 for a probe's phonemes."""
        return [
            min(1, len(hypothesis.text)) if text is None else self.readings.repetition[text]
            for text, hypothesis in zip(self.text, self.hypotheses, strict=True)
        ]

    def _pair(self, pair: int) -> None:
        place, text = self.label[pair], self.text[pair]
        segments = len(self.chunks[place].segments)
        if text is None:
            self._pair_phonemes(place, self.hypotheses[pair].text, segments)
            return
        if self.hypotheses[pair].is_english_only:
            tokens_of_label = slice(*self._range(place))
            words = self.parts[0].kinds[tokens_of_label] == ENGLISH
            judged = judged_tokens(words, self.readings.kinds[tokens_of_label])
            self._judge(pair, place, judged)
            if not judged.all():
                self._pair_english(place, text, judged)
                return
        label = self._range(place)
        first, end = self._range(text)
        tokens = self.readings.tokens[first:end]
        if self._loops(text, tokens):
            self.unlooped.add(pair)
            once = read_many([" ".join(unloop(tokens))])
            end = self._add(_pool_of(once)) + int(once.bounds[0, 1])
            self.pairs.append(TextPair(label, (end - int(once.bounds[0, 1]), end), segments))
            self.sounds.append((once.sound_of(0), self.readings.sound_of(place)))
            self.written.append((once[0].tokens, self.readings[place].tokens))
            return
        self.pairs.append(TextPair(label, (first, end), segments))
        self.sounds.append((self.readings.sound_of(text), self.readings.sound_of(place)))
        self.written.append((self.readings.written(text), self.readings.written(place)))

    def _judge(self, pair: int, place: int, judged: Flags) -> None:
        """Note which segments of the label an English-only hypothesis judges."""
        first, end = self._range(place)
        segments = len(self.chunks[place].segments)
        tokens = np.bincount(self.segment[first:end], minlength=segments)
        of_them = np.bincount(self.segment[first:end][judged], minlength=segments)
        throughout = bool(len(judged) and judged.all())
        self.judged[pair] = JudgedSegments(of_them > 0, (of_them == tokens) & (tokens > 0), throughout)

    def _pair_english(self, place: int, text: int, judged: Flags) -> None:
        """Pair the judged tokens of a label with the hypothesis's tokens opposite to them, both without loops."""
        first, end = self._range(place)
        source, pool, of_text = self.readings, self.parts[0], text
        tokens = source.tokens[slice(*self._range(text))]
        if self._loops(text, tokens):
            source, of_text = read_many([" ".join(unloop(tokens))]), 0
            pool = _pool_of(source)
        begin, stop = source.token_ranges[of_text]
        opposite = opposite_tokens(self.readings.sounds[first:end], judged, source.sounds[begin:stop])
        label_places, places = first + np.flatnonzero(judged), begin + np.flatnonzero(opposite)
        label = self._add(self.parts[0].of(label_places, self.segment[label_places]))
        hypothesis = self._add(pool.of(places, np.zeros(len(places), np.intp)))
        self.pairs.append(
            TextPair(
                (label, label + len(label_places)),
                (hypothesis, hypothesis + len(places)),
                len(self.chunks[place].segments),
            )
        )
        self.sounds.append(
            ("".join(source.sounds[at] for at in places), "".join(self.readings.sounds[at] for at in label_places))
        )
        self.written.append(
            (tuple(source.tokens[at] for at in places), tuple(self.readings.tokens[at] for at in label_places))
        )

    def _pair_phonemes(self, place: int, text: str, segments: int) -> None:
        """Pair a label with a probe's phonemes. A probe writes no tokens, so each phoneme is a token on both sides."""
        first, end = self._range(place)
        starts, label_sound = self.readings.phoneme_starts[first : end + 1], self.readings.sound_of(place)
        owners = np.repeat(self.segment[first:end], np.diff(starts))
        label = self._add(_phoneme_pool(label_sound, owners))
        sound = encode(text.split())
        hypothesis = self._add(_phoneme_pool(sound, np.zeros(len(sound), np.intp)))
        self.pairs.append(TextPair((label, label + len(label_sound)), (hypothesis, hypothesis + len(sound)), segments))
        self.sounds.append((sound, label_sound))
        self.written.append(("", ""))

    def _loops(self, text: int, tokens: Sequence[str]) -> bool:
        if self.readings.repetition[text] > REPETITION_MAX:
            return True
        # `recurring` is cheap, and few texts pass it: every loop of more than LOOPS_MAX turns does
        return self.recurring[text] > LOOPS_MAX // 2 and count_loops(tokens) > LOOPS_MAX

    def _range(self, text: int) -> tuple[int, int]:
        first, end = self.readings.token_ranges[text]
        return first, end

    def _add(self, part: TokenPool) -> int:
        """Append tokens to the pool and return the index of the first."""
        start = self.size
        self.parts.append(part)
        self.size += len(part.kinds)
        return start

    # ---- the paper's distances ----

    def distances(self) -> list[Distances]:
        """The distances of each chunk, from the hypotheses of its first validator (as in the paper)."""
        counts = np.stack((self.by_writing.count(len(self.pairs)), self.by_sound.count(len(self.pairs))), axis=1)
        edits: list[list[list[int]]] = counts.tolist()
        distances = []
        pair = 0
        for place, chunk in enumerate(self.chunks):
            validator = chunk.hypotheses[0].validator
            of_first = [at for at, value in enumerate(chunk.hypotheses, pair) if value.validator == validator]
            pair += len(chunk.hypotheses)
            both = [self._counts(at, place, *edits[at]) for at in of_first]
            begin, end = self._range(place)
            kinds = self.readings.kinds[begin:end].tobytes()
            distances.append(
                Distances(
                    mixed=sum((mixed for mixed, _ in both[1:]), both[0][0]),
                    phonemes=sum((phonemes for _, phonemes in both[1:]), both[0][1]),
                    teacher_repetition=self.readings.repetition[place],
                    validator_repetition=min(self.repetition[at] for at in of_first),
                    phrase=self.phrases[place],
                    zh_tokens=kinds.count(HAN_KIND),
                    en_tokens=kinds.count(LATIN_KIND),
                )
            )
        return distances

    def _counts(
        self, pair: int, place: int, by_writing: Sequence[int], by_sound: Sequence[int]
    ) -> tuple[Counts, Counts]:
        """The counts of one pair over mixed tokens and over phonemes, loops included."""
        text = self.text[pair]
        if pair in self.unlooped:  # the paper's distances are those of the hypothesis as it was written
            assert text is not None
            hypothesis, label = self.readings[text], self.readings[place]
            return distance.counts(hypothesis.written, label.written), distance.counts(hypothesis.sound, label.sound)
        phonemes = _from_edits(len(self.sounds[pair][1]), by_sound)
        if text is None:
            return self._probe_counts(pair, *self._range(place)), phonemes
        first, end = self.pairs[pair].label
        return _from_edits(end - first, by_writing), phonemes

    def _probe_counts(self, pair: int, first: int, end: int) -> Counts:
        """Token counts for a probe's hypothesis: a token of the label is a hit if the probe has all its phonemes."""
        starts = self.readings.phoneme_starts[first : end + 1] - self.readings.phoneme_starts[first]
        wrong = np.zeros(int(starts[-1]) + 1, np.int64)
        wrong[self.by_sound.missed(pair)] = 1
        by_token = np.diff(np.concatenate(([0], np.cumsum(wrong)))[starts])
        hits = int(np.count_nonzero(by_token == 0))
        return Counts(hits=hits, substitutions=end - first - hits)


def _from_edits(label_length: int, edits: Sequence[int]) -> Counts:
    replaced, inserted, deleted = edits
    return Counts(label_length - replaced - inserted, replaced, deleted, inserted)


def _pool_of(readings: Readings) -> TokenPool:
    """The pool of all tokens that were read."""
    english = english_tokens(readings)
    kinds = np.full(len(english), FOREIGN, np.uint8)
    kinds[english] = ENGLISH
    kinds[(readings.kinds == HAN_KIND) | ((readings.kinds == LATIN_KIND) & ~english)] = MANDARIN
    whole = (readings.kinds != HAN_KIND) & (readings.kinds != SINGLE)
    return TokenPool(readings.phoneme_starts, kinds, whole, np.zeros(len(kinds), np.intp))


def _phoneme_pool(sound: str, segments: Places) -> TokenPool:
    """A pool with one token for each phoneme."""
    kinds = [MANDARIN if is_mandarin(code) else ENGLISH if is_english(code) else FOREIGN for code in sound]
    size = len(sound)
    return TokenPool(np.arange(size + 1), np.array(kinds, np.uint8), np.zeros(size, np.bool_), segments)


def _joined(parts: Sequence[TokenPool], segment: Places) -> TokenPool:
    """Join pools. The labels' tokens come first; `segment` are their segments."""
    parts[0].segments[: len(segment)] = segment
    lengths = np.concatenate([np.diff(part.phoneme_starts) for part in parts])
    return TokenPool(
        phoneme_starts=np.concatenate(([0], np.cumsum(lengths))),
        kinds=np.concatenate([part.kinds for part in parts]),
        whole=np.concatenate([part.whole for part in parts]),
        segments=np.concatenate([part.segments for part in parts]),
    )
