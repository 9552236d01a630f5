"""Pairs each label with its hypotheses, aligns them, and counts the paper's distances from the same alignments."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from k2d.filtering import distance
from k2d.filtering.evidence.alignment import ENGLISH, FOREIGN, MANDARIN, EditCounts, Pair, TokenPool, align, tally
from k2d.filtering.evidence.texts import TextBatch
from k2d.schema import Counts, Distances
from k2d.text.characters import HAN_KIND, LATIN_KIND, SINGLE
from k2d.text.loops import count_loops, unloop
from k2d.text.reading import Readings, read_many
from k2d.text.repetition import REPETITION_MAX
from k2d.text.sounds import encode, is_english, is_mandarin

Places = npt.NDArray[np.intp]

# A hypothesis that says something more often than this in a row is compared after its loops are written once. People do
# say a word six times (對對對對對對); as in the preset `evidence`.
LOOPS_MAX: Final = 6


class Pairs:
    """All hypotheses on a batch of chunks beside their labels, aligned."""

    def __init__(self, batch: TextBatch) -> None:
        chunks, readings, segment, first = batch.chunks, batch.readings, batch.segment, batch.first
        self.chunks, self.readings, self.first, self.recurring = chunks, readings, first, batch.recurring
        self.phrases = batch.phrases
        text = np.repeat(np.arange(len(chunks)), np.diff(readings.bounds[: len(chunks), 1], prepend=-1))
        self.segment = segment - first[text]  # within its chunk
        self.hypotheses = [hypothesis for chunk in chunks for hypothesis in chunk.hypotheses]
        self.label = [place for place, chunk in enumerate(chunks) for _ in chunk.hypotheses]
        following = iter(range(len(chunks), len(readings.bounds)))
        self.text = [None if hypothesis.is_phonemes else next(following) for hypothesis in self.hypotheses]
        self.parts = [_part(readings)]
        self.size = len(readings.tokens)
        self.rewritten: set[int] = set()
        self.pairs: list[Pair] = []
        self.sounds: list[tuple[str, str]] = []
        self.written: list[tuple[Sequence[str], Sequence[str]]] = []
        for pair in range(len(self.hypotheses)):
            self._pair(pair)
        self.pool = _pool(self.parts, self.segment)
        self.by_sound, self.by_writing = align(self.sounds), align(self.written)
        self.tally: EditCounts = tally(self.pool, self.pairs, self.by_sound, self.by_writing)

    @cached_property
    def repetition(self) -> list[int]:
        """How often each hypothesis repeats itself (`count_ngrams`); a probe cannot loop."""
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
        label = self._stretch(place)
        first, end = self._stretch(text)
        tokens = self.readings.tokens[first:end]
        if self._loops(text, tokens):
            self.rewritten.add(pair)
            once = read_many([" ".join(unloop(tokens))])
            end = self._add(_part(once)) + int(once.bounds[0, 1])
            self.pairs.append(Pair(label, (end - int(once.bounds[0, 1]), end), segments))
            self.sounds.append((once.sound_of(0), self.readings.sound_of(place)))
            self.written.append((once[0].tokens, self.readings[place].tokens))
            return
        self.pairs.append(Pair(label, (first, end), segments))
        self.sounds.append((self.readings.sound_of(text), self.readings.sound_of(place)))
        self.written.append((self.readings.written(text), self.readings.written(place)))

    def _pair_phonemes(self, place: int, text: str, segments: int) -> None:
        """Pair a label with a probe's phonemes: a probe writes no tokens, so each phoneme is a token on both sides."""
        first, end = self._stretch(place)
        units, label_sound = self.readings.phoneme_starts[first : end + 1], self.readings.sound_of(place)
        owners = np.repeat(self.segment[first:end], np.diff(units))
        label = self._add(_phonemes(label_sound, owners))
        sound = encode(text.split())
        hypothesis = self._add(_phonemes(sound, np.zeros(len(sound), np.intp)))
        self.pairs.append(Pair((label, label + len(label_sound)), (hypothesis, hypothesis + len(sound)), segments))
        self.sounds.append((sound, label_sound))
        self.written.append(("", ""))

    def _loops(self, text: int, tokens: Sequence[str]) -> bool:
        if self.readings.repetition[text] > REPETITION_MAX:
            return True
        return self.recurring[text] > LOOPS_MAX // 2 and count_loops(tokens) > LOOPS_MAX

    def _stretch(self, text: int) -> tuple[int, int]:
        first, end = self.readings.token_ranges[text]
        return first, end

    def _add(self, part: TokenPool) -> int:
        start = self.size
        self.parts.append(part)
        self.size += len(part.kinds)
        return start

    # ---- the paper's distances ----

    def distances(self) -> list[Distances]:
        """Of each chunk, from its first validator."""
        counts = np.stack((self.by_writing.count(len(self.pairs)), self.by_sound.count(len(self.pairs))), axis=1)
        edits: list[list[list[int]]] = counts.tolist()
        distances = []
        pair = 0
        for place, chunk in enumerate(self.chunks):
            first = [
                at for at, one in enumerate(chunk.hypotheses, pair) if one.validator == chunk.hypotheses[0].validator
            ]
            pair += len(chunk.hypotheses)
            both = [self._counts(one, place, *edits[one]) for one in first]
            begin, end = self._stretch(place)
            kinds = self.readings.kinds[begin:end].tobytes()
            distances.append(
                Distances(
                    mixed=sum((mixed for mixed, _ in both[1:]), both[0][0]),
                    phonemes=sum((phonemes for _, phonemes in both[1:]), both[0][1]),
                    teacher_repetition=self.readings.repetition[place],
                    validator_repetition=min(self.repetition[one] for one in first),
                    phrase=self.phrases[place],
                    zh_tokens=kinds.count(HAN_KIND),
                    en_tokens=kinds.count(LATIN_KIND),
                )
            )
        return distances

    def _counts(
        self, pair: int, place: int, by_writing: Sequence[int], by_sound: Sequence[int]
    ) -> tuple[Counts, Counts]:
        text = self.text[pair]
        if pair in self.rewritten:
            assert text is not None
            hypothesis, label = self.readings[text], self.readings[place]
            return distance.counts(hypothesis.written, label.written), distance.counts(hypothesis.sound, label.sound)
        first, end = self._stretch(place)
        phonemes = _from_edits(len(self.sounds[pair][1]), by_sound)
        if text is None:
            return self._probe_counts(pair, first, end), phonemes
        return _from_edits(end - first, by_writing), phonemes

    def _probe_counts(self, pair: int, first: int, end: int) -> Counts:
        """Token counts of a probe, which writes no tokens: a label's token is a hit when the probe has all its phonemes."""
        units = self.readings.phoneme_starts[first : end + 1] - self.readings.phoneme_starts[first]
        wrong = np.zeros(int(units[-1]) + 1, np.int64)
        wrong[self.by_sound.missed(pair)] = 1
        by_token = np.diff(np.concatenate(([0], np.cumsum(wrong)))[units])
        hits = int(np.count_nonzero(by_token == 0))
        return Counts(hits=hits, substitutions=end - first - hits)


def _from_edits(label_length: int, edits: Sequence[int]) -> Counts:
    replaced, inserted, deleted = edits
    return Counts(label_length - replaced - inserted, replaced, deleted, inserted)


def _part(readings: Readings) -> TokenPool:
    """A pool of everything that was read."""
    lengths = np.diff(readings.phoneme_starts)
    codes = np.frombuffer((readings.sound + "\0").encode("utf-32-le"), np.uint32)
    first = codes[readings.phoneme_starts[:-1]]
    is_number = (first < 128) | (lengths == 0)
    kinds = np.full(len(lengths), FOREIGN, np.uint8)
    kinds[(readings.kinds == LATIN_KIND) & ~is_number] = ENGLISH
    kinds[(readings.kinds == HAN_KIND) | ((readings.kinds == LATIN_KIND) & is_number)] = MANDARIN
    whole = (readings.kinds != HAN_KIND) & (readings.kinds != SINGLE)
    return TokenPool(readings.sound, readings.phoneme_starts, kinds, whole, np.zeros(len(kinds), np.intp))


def _phonemes(sound: str, segments: Places) -> TokenPool:
    kinds = [MANDARIN if is_mandarin(code) else ENGLISH if is_english(code) else FOREIGN for code in sound]
    size = len(sound)
    return TokenPool(sound, np.arange(size + 1), np.array(kinds, np.uint8), np.zeros(size, np.bool_), segments)


def _pool(parts: Sequence[TokenPool], segment: Places) -> TokenPool:
    """All parts as one; the labels' tokens come first."""
    parts[0].segments[: len(segment)] = segment
    lengths = np.concatenate([np.diff(part.units) for part in parts])
    return TokenPool(
        sound="",
        units=np.concatenate(([0], np.cumsum(lengths))),
        kinds=np.concatenate([part.kinds for part in parts]),
        whole=np.concatenate([part.whole for part in parts]),
        segments=np.concatenate([part.segments for part in parts]),
    )
