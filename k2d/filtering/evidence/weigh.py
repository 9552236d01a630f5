"""Computes the evidence of labels from their hypotheses. What each number means is in `k2d.schema.Evidence`."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d.filtering.evidence.alignment import RATES
from k2d.filtering.evidence.pairs import Pairs
from k2d.filtering.evidence.texts import ChunkTexts, label_columns, read
from k2d.schema import Distances, Evidence, Hypothesis, Segment

Column = npt.NDArray[Any]

BATCH: Final = 64  # chunks at once: arrays that stay in a core's cache
_DECIMALS: Final = 4
_FIELDS: Final = tuple(field.name for field in fields(Evidence))
_SIGNALS: Final = attrgetter("start_s", "end_s", "avg_logprob", "no_speech_prob", "compression_ratio", "temperature")
_FLOATS: Final = tuple(field.name for field in fields(Evidence) if field.type is float)


@dataclass(frozen=True, slots=True)
class ChunkEvidence:
    """What follows from a chunk's label and hypotheses."""

    distances: Distances  # from the first validator, as in the paper
    evidence: Evidence  # from all, over the chunk
    segment_evidence: tuple[Evidence, ...]


def weigh(segments: Sequence[Segment], hypotheses: Sequence[Hypothesis], *, prompt: str = "") -> ChunkEvidence:
    """Compute the evidence of one chunk's label from its hypotheses, the first validator's first.

        weigh(segments, [Hypothesis("model:small", "as is", "今天天氣很好", -0.2)]).evidence.disagreement_middle

    `prompt` is the teacher's initial prompt. The order of the hypotheses matters for the distances alone. `weigh_many`
    is several times faster for many chunks.

    Raises:
        ValueError: there is no segment or no hypothesis.
    """
    return weigh_many([ChunkTexts(segments, hypotheses, prompt)])[0]


def weigh_many(chunks: Sequence[ChunkTexts]) -> list[ChunkEvidence]:
    """`weigh` for many chunks.

    Raises:
        ValueError: a chunk has no segment or no hypothesis.
    """
    if not all(chunk.segments and chunk.hypotheses for chunk in chunks):
        raise ValueError("evidence needs at least one segment and one hypothesis")
    return [one for start in range(0, len(chunks), BATCH) for one in _batch(chunks[start : start + BATCH])]


def _batch(chunks: Sequence[ChunkTexts]) -> list[ChunkEvidence]:
    batch = read(chunks)
    pairs = Pairs(batch)
    columns = label_columns(batch) | _signals(chunks, batch.first) | _from_hypotheses(pairs)
    floats = np.round(np.stack([columns[name] for name in _FLOATS]), _DECIMALS).astype(np.float32)
    columns |= dict(zip(_FLOATS, floats, strict=True))
    values = [columns[name].tolist() for name in _FIELDS]
    evidence = _made(values)
    first = batch.first.tolist()
    return [
        ChunkEvidence(distances, evidence[first[-1] + place], tuple(evidence[first[place] : first[place + 1]]))
        for place, distances in enumerate(pairs.distances())
    ]


def _made(values: Sequence[Sequence[Any]]) -> list[Evidence]:
    """One `Evidence` for each row of these columns, written field by field: five times faster than by its constructor,
    which a frozen class makes write each field of each object by itself."""
    made = [object.__new__(Evidence) for _ in values[0]]
    for name, column in zip(_FIELDS, values, strict=True):
        deque(map(getattr(Evidence, name).__set__, made, column), maxlen=0)
    return made


def mean_logprob(segments: Sequence[Segment]) -> float:
    """The teacher's mean log-probability over segments, each weighted by how much it says."""
    weights = [_weight(segment) for segment in segments]
    return sum(w * s.avg_logprob for w, s in zip(weights, segments, strict=True)) / sum(weights)


def _weight(segment: Segment) -> float:
    """How much a segment says: its tokens; where they were not kept, a third of its text's UTF-8 bytes, which is what
    a Whisper token covers (a Han character has 3 bytes, an English token about 4)."""
    return max(1.0, len(segment.tokens) or len(segment.text.encode("utf-8", "replace")) / 3)


def _signals(chunks: Sequence[ChunkTexts], first: npt.NDArray[np.intp]) -> dict[str, Column]:
    """The members that need no text: of every segment, then of every chunk."""
    segments = [segment for chunk in chunks for segment in chunk.segments]
    weights = np.array([_weight(segment) for segment in segments])
    own = np.array(list(map(_SIGNALS, segments)))
    own[:, 0] = own[:, 1] - own[:, 0]
    own = np.delete(own, 1, axis=1)
    logprobs = own[:, 1].copy()
    token_errors = 1.0 - np.exp(np.minimum(logprobs, 0.0))
    probe_nll = np.zeros(len(segments))
    for chunk, begin in zip(chunks, first.tolist(), strict=False):
        rows = slice(begin, begin + len(chunk.segments))
        texts = [each for each in chunk.hypotheses if not each.is_phonemes]
        probes = [each for each in chunk.hypotheses if each.is_phonemes]
        for given, into in (
            ([each.forced_logprobs for each in texts if each.forced_logprobs], logprobs),
            ([each.expected_token_errors for each in chunk.hypotheses if each.expected_token_errors], token_errors),
            ([[-value for value in each.forced_logprobs] for each in probes if each.forced_logprobs], probe_nll),
        ):
            if given:
                into[rows] = given[0] if len(given) == 1 else np.mean(given, axis=0)
    starts = first[:-1]
    largest = np.maximum.reduceat(own[:, 2:], starts)
    weight = np.add.reduceat(weights, starts)
    lengths = [chunk.segments[-1].end_s - chunk.segments[0].start_s for chunk in chunks]
    return {
        "duration_s": np.concatenate((own[:, 0], lengths)),
        "forced_logprob": np.concatenate((logprobs, np.add.reduceat(logprobs * weights, starts) / weight)),
        "expected_token_error": np.concatenate(
            (token_errors, np.add.reduceat(token_errors * weights, starts) / weight)
        ),
        "probe_nll": np.concatenate((probe_nll, np.add.reduceat(probe_nll * weights, starts) / weight)),
        "avg_logprob": np.concatenate((own[:, 1], np.add.reduceat(own[:, 1] * weights, starts) / weight)),
        "no_speech_prob": np.concatenate((own[:, 2], largest[:, 0])),
        "compression_ratio": np.concatenate((own[:, 3], largest[:, 1])),
        "temperature": np.concatenate((own[:, 4], largest[:, 2])),
    }


def _from_hypotheses(paired: Pairs) -> dict[str, Column]:
    """The members that follow from the hypotheses: of every segment, then of every chunk."""
    first, segments = paired.first, int(paired.first[-1])
    in_pairs = np.cumsum([0, *(pair.segments for pair in paired.pairs)])
    rates = np.concatenate((paired.tally.rates(), paired.tally.summed(in_pairs[:-1]).rates()))
    hypotheses = np.array([len(chunk.hypotheses) for chunk in paired.chunks])
    first_pair = np.cumsum(hypotheses) - hypotheses
    found = np.empty((segments + len(hypotheses), len(RATES) + 2))
    chunk_of = np.repeat(np.arange(len(hypotheses)), np.diff(first))
    within = np.arange(segments) - first[chunk_of]
    for count in np.unique(hypotheses).tolist():  # chunks with as many hypotheses, at once
        chunks = np.flatnonzero(hypotheses == count)
        pairs = first_pair[:, None] + np.arange(count)
        spans = np.flatnonzero(hypotheses[chunk_of] == count)
        found[spans] = _over_hypotheses(rates[in_pairs[pairs[chunk_of[spans]]] + within[spans, None]])
        found[segments + chunks] = _over_hypotheses(rates[int(in_pairs[-1]) + pairs[chunks]])
    least = np.minimum.reduceat(np.array(paired.repetition), first_pair)
    repetition = np.concatenate((least[chunk_of], least))
    columns = dict(
        zip(("disagreement_middle", *RATES[1:], "disagreement_least", "disagreement_most"), found.T, strict=True)
    )
    flips = columns["flip"]
    flips[int(first[-1]) :] = np.maximum.reduceat(flips[: int(first[-1])], first[:-1])
    return {**columns, "hypothesis_repetition": repetition}


def _over_hypotheses(rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(spans, hypotheses, RATES) → the middle of the first three, the mean of the others, least and most of the first."""
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
