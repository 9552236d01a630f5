"""Reads labels and hypotheses, and computes the evidence of the label's text alone: tokens, loops, phrases, echoes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.schema import TEACHER, Hypothesis, Segment, join_text
from k2d.text.characters import HAN_KIND, LATIN_KIND, NEWLINE, SPACE
from k2d.text.echo import echo_share, terms_share
from k2d.text.loops import LEAST_NUMBERS
from k2d.text.phrases import credit_at_edge, credit_line, match_phrases, may_begin, may_credit
from k2d.text.reading import Readings, count_windows, read, read_many
from k2d.text.suspicions import ECHO_MAX, loop_turns
from k2d.text.terms import terms_of
from k2d.text.trace import token_starts

Places = npt.NDArray[np.intp]
Column = npt.NDArray[Any]

# Two quick tests that tell whether a text can loop at all (k2d.text.loops): in every loop some run of LOOP_GRAM tokens
# recurs, except in a counting loop (第一步, 第二步 …), which has at least LEAST_NUMBERS numbers.
LOOP_GRAM: Final = 4
_NUMERALS: Final = np.array([ord(character) for character in "一二三四五六七八九十百"], np.uint32)


@dataclass(frozen=True, slots=True)
class ChunkTexts:
    """The input of `weigh_many` for one chunk."""

    segments: Sequence[Segment]  # of the label
    hypotheses: Sequence[Hypothesis]  # the first validator's first
    prompt: str = ""  # the teacher's initial prompt


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """Chunks with the readings of their labels and hypotheses."""

    chunks: Sequence[ChunkTexts]
    labels: Sequence[str]
    readings: Readings  # of the labels, then of the hypotheses that are texts
    phrases: Sequence[str | None]  # (chunks,): the known phrase that the label consists of
    recurring: Sequence[int]  # of each reading: occurrences of its most frequent run of LOOP_GRAM tokens
    first: Places  # (chunks + 1,): number of each chunk's first segment, counted over all chunks
    segment: Places  # (label tokens,): the segment of each token, separators included, counted over all chunks


def read_chunks(chunks: Sequence[ChunkTexts]) -> TextBatch:
    """Read the labels and hypotheses of chunks, and assign the labels' tokens to segments."""
    labels = [join_text(segment.text for segment in chunk.segments) for chunk in chunks]
    texts = [hypothesis.text for chunk in chunks for hypothesis in chunk.hypotheses if not hypothesis.is_phonemes]
    readings = read_many([*labels, *texts])
    first = np.concatenate(([0], np.cumsum([len(chunk.segments) for chunk in chunks])))
    segment = _token_segments(chunks, labels, readings)
    phrases = [match_phrases(readings.tokens[begin:end]) for begin, end in readings.token_ranges[: len(chunks)]]
    return TextBatch(chunks, labels, readings, phrases, readings.recurring(LOOP_GRAM), first, segment)


def _token_segments(chunks: Sequence[ChunkTexts], labels: Sequence[str], readings: Readings) -> Places:
    """The segment of each token of the labels, numbered over all chunks. The labels are the first of the readings.

    A token that crosses a boundary belongs to the segment in which it begins. Separators belong to some segment of
    their text.
    """
    end = int(readings.bounds[len(chunks) - 1, 1]) + 1
    starts = np.full(end, -1, np.intp) if readings.starts is None else readings.starts[:end].copy()
    begins: list[int] = []
    for place, chunk in enumerate(chunks):
        first, last = readings.bounds[place].tolist()
        offset = -_leading_space(chunk.segments)
        for segment in chunk.segments:
            begins.append((place << 32) + max(0, offset))
            offset += len(segment.text)
        if last > first and starts[first] < 0:
            starts[first:last] = _starts_of(chunk, labels[place], last - first)
    of_text = np.repeat(np.arange(len(chunks)), np.diff(readings.bounds[: len(chunks), 1], prepend=-1))
    # begins and starts are ordered by text, then by offset: text << 32 | offset
    token_segment: Places = np.searchsorted(np.array(begins), (of_text << 32) + np.maximum(starts, 0), side="right") - 1
    return token_segment


def _leading_space(segments: Sequence[Segment]) -> int:
    text = "".join(segment.text for segment in segments)
    return len(text) - len(text.lstrip())


def _starts_of(chunk: ChunkTexts, label: str, tokens: int) -> list[int]:
    """The offsets of a label's tokens where `read_many` has none: traced, or else by the tokens of each segment."""
    traced = token_starts(label)
    if traced is not None and len(traced) == tokens:
        return traced
    starts: list[int] = []
    offset = -_leading_space(chunk.segments)
    for segment in chunk.segments:
        starts += [max(0, offset)] * len(read(segment.text).tokens)
        offset += len(segment.text)
    return (starts + [max(0, offset - 1)] * tokens)[:tokens]


def label_columns(batch: TextBatch) -> dict[str, Column]:
    """The columns of `Evidence` that follow from the label's text: all segments, then all chunks; shape (spans,)."""
    chunks, readings, segment, first = batch.chunks, batch.readings, batch.segment, batch.first
    spans = int(first[-1])
    is_token = np.ones(len(segment), np.bool_)
    is_token[readings.bounds[: len(chunks), 1]] = False  # separators
    kinds, lengths = readings.kinds[: len(segment)], np.diff(readings.phoneme_starts)[: len(segment)]

    def count(what: Column) -> Column:
        by_segment = np.bincount(segment[is_token], what[is_token], spans).astype(np.int64)
        return np.concatenate((by_segment, np.add.reduceat(by_segment, first[:-1])))

    tokens, zh_tokens, en_tokens = count(is_token), count(kinds == HAN_KIND), count(kinds == LATIN_KIND)
    rescored = np.array([segment.origin != TEACHER for chunk in chunks for segment in chunk.segments], np.bool_)
    loops, phrases, echoes = _texts(batch, tokens[:spans].tolist())
    return {
        "zh_tokens": zh_tokens,
        "en_tokens": en_tokens,
        "other_tokens": tokens - zh_tokens - en_tokens,
        "phonemes": count(lengths),
        "teacher_repetition": np.array(
            [*_repetition(readings, segment, spans), *readings.repetition[: len(chunks)]], np.int64
        ),
        "loops": np.array(loops, np.int64),
        "is_phrase": np.array(phrases, np.bool_),
        "is_echo": np.array(echoes, np.bool_),
        "is_rescored": np.concatenate((rescored, np.logical_or.reduceat(rescored, first[:-1]))),
    }


def _repetition(readings: Readings, segment: Places, spans: int) -> list[int]:
    """`count_ngrams` of each segment by itself: no window extends over two segments."""
    places = readings.places[: len(segment)]
    group = np.full(int(places[-1]) + 1, -1, np.intp)
    group[places] = segment
    filled = np.maximum.accumulate(group)  # segments ascend
    codes = readings.codes[: len(filled)]
    outside = (codes == NEWLINE) | ((codes == SPACE) & (filled != np.append(filled[1:], -1)))
    return count_windows(codes, np.where(outside, -1, filled), spans)


def _texts(batch: TextBatch, lengths: Sequence[int]) -> tuple[list[int], list[bool], list[bool]]:
    """Loops, known phrases and echoes of the prompt: of all segments, then of all chunks."""
    spans = len(lengths)
    loops, phrases, echoes = [0] * spans, [False] * spans, [False] * spans
    tokens, bounds, first = batch.readings.tokens, batch.readings.token_ranges, batch.first.tolist()
    numerals = _numerals(batch.readings)
    for place, (chunk, label) in enumerate(zip(batch.chunks, batch.labels, strict=True)):
        spans_of_chunk = slice(first[place], first[place + 1])
        at, end = bounds[place]
        whole = tokens[at:end]
        may_loop = batch.recurring[place] > 1 or numerals[place] >= LEAST_NUMBERS
        may_be_credit = ":" in label or "：" in label or may_credit(whole)
        every = may_loop or may_be_credit or bool(chunk.prompt)
        for span, segment in zip(range(spans_of_chunk.start, spans_of_chunk.stop), chunk.segments, strict=True):
            begin, at = at, at + lengths[span]
            may_be_phrase = at > begin and may_begin(tokens[begin], tokens[begin + 1] if at > begin + 1 else "")
            if not (every or may_be_phrase):
                continue
            words = tokens[begin:at]
            if may_loop:
                loops[span] = loop_turns(words)
            if may_be_phrase:
                phrases[span] = match_phrases(words) is not None
            if may_be_credit and not phrases[span]:
                phrases[span] = _is_credit(segment.text, words)
            if chunk.prompt:
                echoes[span] = _repeats(words, chunk.prompt)
        loops.append(max(loop_turns(whole) if may_loop else 0, *loops[spans_of_chunk]))
        phrases.append(any(phrases[spans_of_chunk]) or batch.phrases[place] is not None)
        echoes.append(any(echoes[spans_of_chunk]))
    return loops, phrases, echoes


def _repeats(tokens: Sequence[str], prompt: str) -> bool:
    """Whether tokens repeat a prompt: its text, or its terms and little else."""
    told, terms = _read_prompt(prompt)
    return max(echo_share(tokens, told), terms_share(tokens, terms)) > ECHO_MAX


@lru_cache(maxsize=64)
def _read_prompt(prompt: str) -> tuple[Sequence[str], frozenset[tuple[str, ...]]]:
    """The tokens of a prompt, and those of each of its terms."""
    return read(prompt).tokens, frozenset(tuple(read(term).tokens) for term in terms_of(prompt))


def _numerals(readings: Readings) -> list[int]:
    """For each text, the number of its tokens that are numerals, in Han characters or digits."""
    first = readings.codes[readings.places]
    numeral = np.isin(first, _NUMERALS) | ((first >= ord("0")) & (first <= ord("9")))
    upto = np.concatenate(([0], np.cumsum(numeral)))[readings.bounds]
    counts: list[int] = (upto[:, 1] - upto[:, 0]).tolist()
    return counts


def _is_credit(text: str, tokens: Sequence[str]) -> bool:
    return credit_line(text, tokens) is not None or credit_at_edge(text, tokens) is not None
