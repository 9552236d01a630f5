"""What a probe learns from: chunks of label shards, their phonemes, and how far each label is trusted."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from k2d.audio import decode_flac
from k2d.keys import digest
from k2d.schema import SAMPLE_RATE_HZ, Chunk, Outcome, Samples
from k2d.store import Lake
from k2d.text.loops import count_loops
from k2d.text.phonemes import phonemes
from k2d.text.phrases import match_phrases
from k2d.text.repetition import REPETITION_MAX, repetition
from k2d.text.tokens import mixed_tokens
from k2d.validators.probe.network import BLANK_NAME, OTHER, STRIDE, fold_of, frames_of

RAREST = 5  # a unit seen less often than this is not learned by itself
LOOP_TURNS = 4  # said four times in a row, over six tokens or more, a label is not learned from


@dataclass(frozen=True, slots=True)
class Shard:
    """The labels of one recording."""

    recording_id: str
    label_key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Example:
    """One chunk, without its audio."""

    recording_id: str
    fold: int
    frames: int  # of the encoder
    phonemes: tuple[str, ...]
    weight: float


@dataclass
class Passed:
    """Chunks that are not learned from, by why."""

    why: Counter[str] = field(default_factory=Counter)


def shards(lake: Lake, batches: Iterable[str], *, hours: float) -> list[Shard]:
    """The label shards of batches, each recording once; where they have more than `hours`, a fixed random part.

    Raises:
        NotFound: no such batch.
    """
    found: dict[str, Shard] = {}
    for name in batches:
        for result in lake.batches.results(lake.batches.get(name).id):
            if result.outcome is Outcome.LABELED and result.recording_id and result.label_key:
                shard = Shard(result.recording_id, result.label_key, result.duration_s)
                found.setdefault(result.recording_id, shard)
    taken: list[Shard] = []
    room_s = hours * 3600.0
    for shard in sorted(found.values(), key=lambda one: digest("probe sample", one.recording_id)):
        if shard.seconds <= room_s or not taken:
            taken.append(shard)
            room_s -= shard.seconds
    return taken


def examples(lake: Lake, shard: Shard, *, folds: int, passed: Passed) -> Iterator[tuple[Example, Samples]]:
    """A shard's chunks that can be learned from, with their audio."""
    for chunk, flac in lake.labels.read(shard.label_key, audio=True):
        units = phonemes(mixed_tokens(chunk.text))
        why = _reason_to_pass(chunk, units)
        if why or flac is None:
            passed.why[why or "no audio"] += 1
            continue
        samples = decode_flac(flac)
        fold = fold_of(shard.recording_id, folds)
        yield Example(shard.recording_id, fold, frames_of(len(samples)), tuple(units), trust(chunk)), samples


def trust(chunk: Chunk) -> float:
    """How much a label counts, 0…1: the teacher's probability of an average token of it."""
    tokens = sum(len(segment.tokens) + 1 for segment in chunk.segments)
    total = sum(segment.avg_logprob * (len(segment.tokens) + 1) for segment in chunk.segments)
    return math.exp(min(0.0, total / tokens))


def alphabet(found: Iterable[Example]) -> tuple[str, ...]:
    """The units to learn: blank, other, then those the examples have often enough, sorted."""
    counts = Counter(unit for example in found for unit in example.phonemes)
    return (BLANK_NAME, OTHER, *sorted(unit for unit, count in counts.items() if count >= RAREST))


def _reason_to_pass(chunk: Chunk, units: list[str]) -> str | None:
    tokens = mixed_tokens(chunk.text)
    if not units:
        return "empty"
    if repetition(chunk.text) > REPETITION_MAX or count_loops(tokens) >= LOOP_TURNS:
        return "loops"
    if match_phrases(tokens) is not None:
        return "known phrase"
    frames = math.ceil(frames_of(round(chunk.duration_s * SAMPLE_RATE_HZ)) / STRIDE)
    repeats = sum(a == b for a, b in pairwise(units))  # CTC puts a blank between equals
    return "more sounds than its seconds hold" if len(units) + repeats > frames else None
