"""What a probe learns from: chunks of label shards, their phonemes, and how much each label is trusted."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from k2d.audio import decode_flac
from k2d.keys import digest
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Outcome, Samples
from k2d.store import Lake
from k2d.text.loops import count_loops
from k2d.text.phrases import match_phrases
from k2d.text.reading import Reading, read
from k2d.text.repetition import REPETITION_MAX
from k2d.validators.probe.network import BLANK_NAME, OTHER, STRIDE, fold_of, frames_of

RAREST: Final = 5  # a phoneme seen less often than this is not learned by itself
LOOP_TURNS: Final = 4  # a label that repeats itself four times in a row, over six tokens or more, is not learned from
_SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class LabelShard:
    """The labels of one recording."""

    recording_id: str
    label_key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ProbeExample:
    """One chunk, without its audio."""

    recording_id: str
    fold: int  # the network that does without this recording
    frames: int  # of the encoder
    phonemes: tuple[str, ...]
    weight: float


def label_shards(lake: Lake, batches: Iterable[str], *, hours: float) -> list[LabelShard]:
    """The label shards of batches, each recording once; of more than `hours`, a random part that is always the same.

        label_shards(Lake("store"), ["lectures"], hours=20.0)

    Raises:
        NotFound: no such batch.
    """
    by_recording: dict[str, LabelShard] = {}
    for name in batches:
        for result in lake.batches.results(lake.batches.get(name).id):
            if result.outcome is Outcome.LABELED and result.recording_id and result.label_key:
                shard = LabelShard(result.recording_id, result.label_key, result.duration_s)
                by_recording.setdefault(result.recording_id, shard)
    chosen: list[LabelShard] = []
    room_s = hours * _SECONDS_PER_HOUR
    for shard in sorted(by_recording.values(), key=lambda shard: digest("probe sample", shard.recording_id)):
        if shard.seconds <= room_s or not chosen:
            chosen.append(shard)
            room_s -= shard.seconds
    return chosen


def examples(
    lake: Lake, shard: LabelShard, *, folds: int, skipped: Counter[str]
) -> Iterator[tuple[ProbeExample, Samples]]:
    """A shard's chunks that can be learned from, with their audio; the others are counted in `skipped`, by reason."""
    for chunk, flac in lake.labels.read(shard.label_key, audio=True):
        reading = read(chunk.text)
        reason = _reason_to_skip(chunk, reading)
        if reason or flac is None:
            skipped[reason or "no audio"] += 1
            continue
        samples = decode_flac(flac)
        fold = fold_of(shard.recording_id, folds)
        yield ProbeExample(shard.recording_id, fold, frames_of(len(samples)), reading.phonemes, trust(chunk)), samples


def trust(chunk: Chunk) -> float:
    """How much a label counts, 0…1: the teacher's mean probability (geometric) over its tokens."""
    tokens = sum(len(segment.tokens) + 1 for segment in chunk.segments)  # 1: the end
    total = sum(segment.avg_logprob * (len(segment.tokens) + 1) for segment in chunk.segments)
    return math.exp(min(0.0, total / tokens))


def alphabet(collected: Iterable[ProbeExample]) -> tuple[str, ...]:
    """The units to learn: blank, other, then the phonemes that the examples have often enough, sorted."""
    counts = Counter(phoneme for example in collected for phoneme in example.phonemes)
    return (BLANK_NAME, OTHER, *sorted(phoneme for phoneme, count in counts.items() if count >= RAREST))


def _reason_to_skip(chunk: Chunk, reading: Reading) -> str | None:
    spoken = reading.phonemes
    if not spoken:
        return "empty"
    if reading.repetition > REPETITION_MAX or count_loops(reading.tokens) >= LOOP_TURNS:
        return "loops"
    if match_phrases(reading.tokens) is not None:
        return "known phrase"
    outputs = math.ceil(frames_of(round(chunk.duration_s * SAMPLE_RATE_HZ)) / STRIDE)
    repeats = sum(a == b for a, b in pairwise(spoken))  # CTC needs a blank between two equal ones
    return "more phonemes than its audio has frames" if len(spoken) + repeats > outputs else None
