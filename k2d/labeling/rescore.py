"""Chooses between the teacher's label of a chunk and texts of other decodes, by their forced log-probabilities.

Timestamps cost a Whisper model accuracy, and so does greedy search. The chunk's own audio is decoded again without
timestamps, once greedily and once with beams, and of these texts and the label the one is taken that the teacher finds
the most probable on that audio: by the *total* of its tokens' forced log-probabilities (their mean would choose loops).
A decode without timestamps may skip whole sentences, and the total rewards that, so a much shorter text is not taken.
docs/adr/0010 has the measurements.
"""

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import Final

from rapidfuzz.distance import Levenshtein, Opcodes

from k2d.errors import BadRequest
from k2d.inference.transcriber import ScoringTranscriber
from k2d.schema import Chunk, DecodeOptions, Samples, Segment, Window, WindowResult
from k2d.text.normalise import HAN
from k2d.text.reading import read
from k2d.text.repetition import REPETITION_MAX, compression_ratio

VERSION: Final = 1  # part of the key of labels that were rescored: increase it when another text would be chosen
SURE: Final = -0.3  # nats a token: of labels above it a fifth (docs/adr/0010), almost none changes for the better
# of the label's words, that a text must have at least; between 0.5 and 0.9 it makes no difference (docs/adr/0010)
LEAST_WORDS: Final = 0.75

_SINGLE: Final = rf"[{HAN}\u3041-\u30ff]"  # Han and kana: each character is a word
# a word with the space before it and the punctuation around it; all words of a text joined are the text
_WORD: Final = re.compile(rf"\s*[^\w\s]*(?:{_SINGLE}|(?:(?!{_SINGLE})[\w'’-])+|(?<=[^\w\s]))[^\w\s]*")


@dataclass(frozen=True, slots=True)
class RescoringCandidate:
    """A text for a chunk, and the decode it comes from."""

    origin: str  # Segment.origin
    result: WindowResult

    @property
    def text(self) -> str:
        return self.result.text


class Rescorer:
    """Chooses the texts of chunks.

    rescorer = Rescorer(teacher, options.decode)
    chunk = await rescorer.choose(chunk, samples)  # the chunk's audio, int16, shape (n,)
    """

    def __init__(self, teacher: ScoringTranscriber, options: DecodeOptions) -> None:
        """`options`: those of the labels; language, initial prompt and beams are kept."""
        self._teacher = teacher
        self._beams = replace(
            options, temperatures=(0.0,), without_timestamps=True, no_speech_threshold=None, short_context=True
        )
        self._greedy = replace(self._beams, beam_size=1)

    async def choose(self, chunk: Chunk, samples: Samples) -> Chunk:
        """Return the chunk with the most probable of its texts; its times stay.

        A label of which the teacher is sure, or which a decode with beams repeats, stays without further work. Segments
        whose text changes name the decode it comes from, and keep the teacher's own text.

        Raises:
            ModelError: the teacher failed.
        """
        looping = loops(chunk.text)
        if not looping and all(segment.avg_logprob > SURE for segment in chunk.segments):
            return chunk
        window = Window(samples)
        first = await self._decode(window, self._beams)
        if read(first.text).tokens == read(chunk.text).tokens:
            return chunk
        least = 1.0 if looping else LEAST_WORDS * len(read(chunk.text).tokens)
        candidates = distinct(chunk.text, [first, await self._decode(window, self._greedy)], least=least)
        own, *totals = await asyncio.gather(
            *(self._total(window, text) for text in (chunk.text, *(candidate.text for candidate in candidates)))
        )
        total, best = max(zip(totals, candidates, strict=True), key=itemgetter(0), default=(-math.inf, None))
        if best is None or (total <= own and not looping):
            return chunk
        return relabeled(chunk, best)

    async def _decode(self, window: Window, options: DecodeOptions) -> RescoringCandidate:
        result = await self._teacher.transcribe(window, options)
        return RescoringCandidate(f"second decode, beam {options.beam_size}", result)

    async def _total(self, window: Window, text: str) -> float:
        """The sum of the text's forced log-probabilities; −∞ if the model refuses it (it exceeds the context)."""
        try:
            return math.fsum((await self._teacher.score(window, text, self._greedy)).logprobs)
        except BadRequest:
            return -math.inf


def distinct(label: str, candidates: Sequence[RescoringCandidate], *, least: float) -> list[RescoringCandidate]:
    """The candidates that say something else than the label and than one another, and that may be taken.

    A loop, nothing, and a text of fewer than `least` words may not.
    """
    seen = {read(label).tokens}
    kept = []
    for candidate in candidates:
        tokens = read(candidate.text).tokens
        if tokens and len(tokens) >= least and tokens not in seen and not loops(candidate.text):
            kept.append(candidate)
        seen.add(tokens)
    return kept


def loops(text: str) -> bool:
    """Whether a text repeats itself, by the paper's rule or by Whisper's compression ratio.

    The tokens of a loop are probable, each after the last: total log-probability cannot reject it.
    """
    limit = DecodeOptions().compression_ratio_threshold
    return read(text).repetition > REPETITION_MAX or (limit is not None and compression_ratio(text) > limit)


def relabeled(chunk: Chunk, candidate: RescoringCandidate) -> Chunk:
    """The chunk with the candidate's text, divided among its segments.

    A segment that gets no word is joined to the one before it, or to the one behind it if it is the first. A segment
    whose words stay the same stays as it is.
    """
    texts = divide(candidate.text, [segment.text for segment in chunk.segments])
    groups: list[tuple[list[Segment], str]] = []
    for segment, text in zip(chunk.segments, texts, strict=True):
        if groups and not (text.strip() and groups[-1][1].strip()):
            groups[-1] = [*groups[-1][0], segment], groups[-1][1] + text
        else:
            groups.append(([segment], text))
    return replace(chunk, segments=tuple(_joined(segments, text, candidate) for segments, text in groups))


def _joined(segments: Sequence[Segment], text: str, candidate: RescoringCandidate) -> Segment:
    own = "".join(segment.text for segment in segments)
    if len(segments) == 1 and read(own).tokens == read(text).tokens:
        return segments[0]
    return replace(
        segments[0],
        end_s=segments[-1].end_s,
        text=text,
        tokens=(),
        avg_logprob=candidate.result.avg_logprob,
        compression_ratio=candidate.result.compression_ratio,
        temperature=candidate.result.temperature,
        origin=candidate.origin,
        teacher_text=own,
    )


def divide(text: str, parts: Sequence[str]) -> list[str]:
    """Divide a text at the places that correspond to the borders between `parts`, which say about the same.

        >>> divide("今天我們 review 一下上次", ["今天我門", " review一下"])
        ['今天我們', ' review 一下上次']

    Words are aligned (a Han character is a word). A part to which nothing corresponds is "".
    """
    text = text.rstrip()
    words = _words(text)
    words_of_parts = [_words(part) for part in parts]
    alignment = Levenshtein.opcodes([_bare(word) for own in words_of_parts for word in own], list(map(_bare, words)))
    borders = [0, *accumulate(map(len, words_of_parts[:-1]))]
    cuts = [*(_corresponding(border, alignment) for border in borders), len(words)]
    cuts[0] = 0
    return ["".join(words[start:end]) for start, end in pairwise(cuts)]


def _corresponding(border: int, alignment: Opcodes) -> int:
    """The border in the second sequence that corresponds to one in the first; within a difference, in proportion."""
    for op in alignment:
        if op.src_start <= border < op.src_end:
            share = (border - op.src_start) / (op.src_end - op.src_start)
            return int(op.dest_start + round(share * (op.dest_end - op.dest_start)))
    return int(alignment.dest_len)


def _words(text: str) -> list[str]:
    return list(filter(None, _WORD.findall(text)))


def _bare(word: str) -> str:
    return "".join(filter(str.isalnum, word)).casefold()
