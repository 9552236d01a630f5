"""Computes the evidence of labels from their hypotheses; `k2d.schema.Evidence` describes each number."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.evidence.edit_counts import RATES
from k2d.filtering.evidence.pairs import AlignedPairs
from k2d.filtering.evidence.texts import ChunkTexts, label_columns, read_chunks
from k2d.schema import Distances, Evidence, Hypothesis, Segment

Column = npt.NDArray[Any]

BATCH: Final = 64  # chunks computed at once; chosen: their arrays fit a core's cache
HEARD: Final = 0.5  # disagreement up to which more of a label is confirmed than not
_DECIMALS: Final = 4  # of stored evidence; chosen
_EN_ERROR: Final = RATES.index("en_error")
_FIELDS: Final = tuple(field.name for field in fields(Evidence))
_SIGNALS: Final = attrgetter("start_s", "end_s", "avg_logprob", "no_speech_prob", "compression_ratio", "temperature")
_FLOATS: Final = tuple(field.name for field in fields(Evidence) if field.type is float)


@dataclass(frozen=True, slots=True)
class ChunkEvidence:
    """The distances and the evidence of one chunk."""

    distances: Distances  # from the first validator, as in the paper
    evidence: Evidence  # of the chunk, from all hypotheses
    segment_evidence: tuple[Evidence, ...]  # of each segment


def weigh(segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], *, prompt: str = "") -> ChunkEvidence:
    """Compute the evidence of one chunk's label from its hypotheses, the first validator's first.

        segment = Segment(0.0, 2.0, "今天天氣好", (), -0.3, 0.0, 1.0, 0.0, "zh")
        weigh([segment], [Hypothesis("model:small", "as is", "今天天氣很好", -0.2)]).evidence.deleted  # 0.1667

    `prompt` is the teacher's initial prompt. The order of the hypotheses only affects the distances. For many chunks
    `weigh_many` is several times faster.

    Raises:
        ValueError: there is no segment or no hypothesis.
    """
    return weigh_many([ChunkTexts(segments, hypotheses, prompt)])[0]


def weigh_many(chunks: Sequence[ChunkTexts]) -> list[ChunkEvidence]:
    """Compute the evidence of many chunks, in order; `weigh` for each, but faster.

        weigh_many([ChunkTexts(segments, hypotheses) for segments, hypotheses in labels])

    Raises:
        ValueError: a chunk has no segment or no hypothesis.
    """
    if not all(chunk.segments and chunk.hypotheses for chunk in chunks):
        raise ValueError("evidence needs at least one segment and one hypothesis")
    return [result for start in range(0, len(chunks), BATCH) for result in _weigh_batch(chunks[start : start + BATCH])]


def _weigh_batch(chunks: Sequence[ChunkTexts]) -> list[ChunkEvidence]:
    batch = read_chunks(chunks)
    pairs = AlignedPairs(batch)
    columns = label_columns(batch) | _signals(chunks, batch.first) | _from_hypotheses(pairs)
    floats = np.round(np.stack([columns[name] for name in _FLOATS]), _DECIMALS).astype(np.float32)
    columns |= dict(zip(_FLOATS, floats, strict=True))
    columns["is_echo"] = _unheard(columns["is_echo"], columns["disagreement_least"], batch.first)
    values = [columns[name].tolist() for name in _FIELDS]
    evidence = _evidence_rows(values)
    first = batch.first.tolist()
    return [
        ChunkEvidence(distances, evidence[first[-1] + place], tuple(evidence[first[place] : first[place + 1]]))
        for place, distances in enumerate(pairs.distances())
    ]


def _unheard(is_echo: Column, disagreement: Column, first: npt.NDArray[np.intp]) -> Column:
    """The echoes of which the nearest hypothesis does not confirm half, of all segments, then of all chunks.

    Validators are not told the prompt: what they transcribe of it was said.
    """
    if not is_echo.any():
        return is_echo
    segments = (is_echo & (disagreement > HEARD))[: first[-1]]
    return np.concatenate((segments, np.logical_or.reduceat(segments, first[:-1])))


def _evidence_rows(values: Sequence[Sequence[Any]]) -> list[Evidence]:
    """One `Evidence` for each row of these columns.

    Fields are set column by column, which is five times faster than calling the constructor of a frozen class.
    """
    rows = [object.__new__(Evidence) for _ in values[0]]
    for name, column in zip(_FIELDS, values, strict=True):
        deque(map(getattr(Evidence, name).__set__, rows, column), maxlen=0)
    return rows


def mean_logprob(segments: Sequence[Segment]) -> float:
    """The teacher's mean log-probability over segments, weighted by their number of tokens."""
    weights = [_weight(segment) for segment in segments]
    return sum(w * s.avg_logprob for w, s in zip(weights, segments, strict=True)) / sum(weights)


def _weight(segment: Segment) -> float:
    """The number of a segment's tokens, at least 1.

    Where tokens were not stored, it is estimated as a third of the text's UTF-8 bytes: a Han character has 3 bytes, an
    English token of Whisper about 4.
    """
    return max(1.0, len(segment.tokens) or len(segment.text.encode("utf-8", "replace")) / 3)


def _signals(chunks: Sequence[ChunkTexts], first: npt.NDArray[np.intp]) -> dict[str, Column]:
    """The columns that need no text: durations and log-probabilities of all segments, then of all chunks."""
    segments = [segment for chunk in chunks for segment in chunk.segments]
    weights = np.array([_weight(segment) for segment in segments])
    signals = np.array(list(map(_SIGNALS, segments)))
    signals[:, 0] = signals[:, 1] - signals[:, 0]  # (segments, 5): duration, then the rest of _SIGNALS
    signals = np.delete(signals, 1, axis=1)
    # without a validator that gives them, the teacher's own stand in
    logprobs = signals[:, 1].copy()
    token_errors = 1.0 - np.exp(np.minimum(logprobs, 0.0))
    probe_nll = np.zeros(len(segments))
    for chunk, begin in zip(chunks, first.tolist(), strict=False):
        rows = slice(begin, begin + len(chunk.segments))
        texts = [value for value in chunk.hypotheses if not value.is_phonemes]
        probes = [value for value in chunk.hypotheses if value.is_phonemes]
        for given, into in (
            ([value.forced_logprobs for value in texts if value.forced_logprobs], logprobs),
            ([value.expected_token_errors for value in chunk.hypotheses if value.expected_token_errors], token_errors),
            ([[-logprob for logprob in value.forced_logprobs] for value in probes if value.forced_logprobs], probe_nll),
        ):
            if given:
                into[rows] = given[0] if len(given) == 1 else np.mean(given, axis=0)
    starts = first[:-1]
    largest = np.maximum.reduceat(signals[:, 2:], starts)
    weight = np.add.reduceat(weights, starts)
    lengths = [chunk.segments[-1].end_s - chunk.segments[0].start_s for chunk in chunks]
    return {
        "duration_s": np.concatenate((signals[:, 0], lengths)),
        "forced_logprob": np.concatenate((logprobs, np.add.reduceat(logprobs * weights, starts) / weight)),
        "expected_token_error": np.concatenate(
            (token_errors, np.add.reduceat(token_errors * weights, starts) / weight)
        ),
        "probe_nll": np.concatenate((probe_nll, np.add.reduceat(probe_nll * weights, starts) / weight)),
        "avg_logprob": np.concatenate((signals[:, 1], np.add.reduceat(signals[:, 1] * weights, starts) / weight)),
        "no_speech_prob": np.concatenate((signals[:, 2], largest[:, 0])),
        "compression_ratio": np.concatenate((signals[:, 3], largest[:, 1])),
        "temperature": np.concatenate((signals[:, 4], largest[:, 2])),
    }


def _from_hypotheses(aligned: AlignedPairs) -> dict[str, Column]:
    """The columns that follow from the hypotheses: of all segments, then of all chunks."""
    first, segments = aligned.first, int(aligned.first[-1])
    in_pairs = np.cumsum([0, *(pair.segments for pair in aligned.pairs)])  # first span of each pair
    rates = np.concatenate((aligned.edits.rates(), aligned.edits.summed(in_pairs[:-1]).rates()))
    hypotheses = np.array([len(chunk.hypotheses) for chunk in aligned.chunks])
    first_pair = np.cumsum(hypotheses) - hypotheses
    chunk_of = np.repeat(np.arange(len(hypotheses)), np.diff(first))
    chunk_of_pair = np.repeat(np.arange(len(hypotheses)), hypotheses)
    # the span of each row of `rates`: segments, then chunks
    span_of_row = np.concatenate(
        (
            np.arange(int(in_pairs[-1])) + np.repeat(first[chunk_of_pair] - in_pairs[:-1], np.diff(in_pairs)),
            segments + chunk_of_pair,
        )
    )
    spans = segments + len(hypotheses)
    repetitions = np.array(aligned.repetition)
    if aligned.judged:
        some, whole = _judging_rows(aligned, in_pairs)
        some = some | _without(some, span_of_row, spans)  # where no hypothesis judges, all count: they have no edits
        whole = np.where(_without(whole, span_of_row, spans), some, whole)
        over = _over_spans(rates, span_of_row, spans, counting=whole)
        over[:, _EN_ERROR] = _over_spans(rates, span_of_row, spans, counting=some)[:, _EN_ERROR]
        repetitions = np.where(whole[int(in_pairs[-1]) :], repetitions, np.iinfo(np.int64).max)
    else:
        over = _over_spans(rates, span_of_row, spans, counting=np.ones(len(rates), np.bool_))
    least = np.minimum.reduceat(repetitions, first_pair)
    repetition = np.concatenate((least[chunk_of], least))
    columns = dict(
        zip(("disagreement_middle", *RATES[1:], "disagreement_least", "disagreement_most"), over.T, strict=True)
    )
    flips = columns["flip"]
    flips[int(first[-1]) :] = np.maximum.reduceat(flips[: int(first[-1])], first[:-1])
    return {**columns, "hypothesis_repetition": repetition}


def _judging_rows(
    aligned: AlignedPairs, in_pairs: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each segment of each pair, then for each pair: does the hypothesis judge some of it, does it judge all of it?

    One that judges only the English words of a label cannot say how far it is from the whole label.
    """
    rows = int(in_pairs[-1])
    some, whole = np.ones(rows + len(aligned.pairs), np.bool_), np.ones(rows + len(aligned.pairs), np.bool_)
    for pair, judged in aligned.judged.items():
        of_pair = slice(in_pairs[pair], in_pairs[pair + 1])
        some[of_pair], whole[of_pair] = judged.some, judged.whole
        some[rows + pair], whole[rows + pair] = judged.some.any(), judged.throughout
    return some, whole


def _without(counting: npt.NDArray[np.bool_], span_of_row: npt.NDArray[np.intp], spans: int) -> npt.NDArray[np.bool_]:
    """For each row, whether its span has no row that counts."""
    without: npt.NDArray[np.bool_] = np.bincount(span_of_row, counting, spans)[span_of_row] == 0
    return without


def _over_spans(
    rates: npt.NDArray[np.float64], span_of_row: npt.NDArray[np.intp], spans: int, *, counting: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Reduce each span's rates over its hypotheses: (rows, 8) → (spans, 10). Each span has a row that counts."""
    rows = np.flatnonzero(counting)
    rows = rows[np.argsort(span_of_row[rows], kind="stable")]
    counts = np.bincount(span_of_row[rows], minlength=spans)
    begin = np.cumsum(counts) - counts
    over = np.empty((spans, len(RATES) + 2))
    for count in np.unique(counts).tolist():  # all spans with the same number of hypotheses at once
        of_count = np.flatnonzero(counts == count)
        over[of_count] = _over_hypotheses(rates[rows[begin[of_count, None] + np.arange(count)]])
    return over


def _over_hypotheses(rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Reduce rates over hypotheses: (spans, hypotheses, 8) → (spans, 10).

    The first three of RATES by their median and the others by their mean, then the least and the largest disagreement.
    """
    disagreement = rates[:, :, 0]
    if rates.shape[1] == 1:
        return np.concatenate((rates[:, 0], disagreement, disagreement), axis=1)
    return np.concatenate(
        (
            np.median(rates[:, :, :3], axis=1),
            rates[:, :, 3:].mean(axis=1),
            disagreement.min(axis=1, keepdims=True),
            disagreement.max(axis=1, keepdims=True),
        ),
        axis=1,
    )
