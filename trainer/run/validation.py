"""How well a student transcribes what it was not trained on: greedy, at most 30 s, mixed error rate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from typing import Any

import torch

from k2d.errors import AudioError, BadRequest
from k2d.filtering.distance import counts, read
from k2d.schema import WINDOW_SAMPLES, Counts, Samples
from k2d.settings import Settings
from k2d.whisper.features import log_mel
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.stream import TrainingData
from trainer.evaluation.sets import open_set
from trainer.evaluation.utterances import EvaluationSet
from trainer.model.greedy import transcribe
from trainer.options import Recipe

ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Something to transcribe: at most 30 s, and what is said in it."""

    name: str
    samples: Samples
    reference: str


@dataclass(frozen=True, slots=True)
class Result:
    """A validation's outcome."""

    mer: float  # edits over reference tokens, pooled
    edits: Counts
    rows: int


def items_of(data: TrainingData, recipe: Recipe, settings: Settings) -> list[Item]:
    """What a run validates on: a set with references, or else the rows it holds out; nothing when it has neither.

    Raises:
        BadRequest: the set holds nothing that can be validated on.
        NotFound: there is no such set.
    """
    if recipe.validate_on is None:
        return [Item(row.id, row.samples, row.text) for row in data.held_out(recipe.validation_rows)]
    found = list(islice(_read(open_set(recipe.validate_on, settings)), recipe.validation_rows))
    if not found:
        raise BadRequest(f"{recipe.validate_on} holds no short utterance with a reference", hint="docs/evaluation.md")
    return found


def _read(chosen: EvaluationSet) -> Iterator[Item]:
    """Utterances of at most 30 s that somebody transcribed and that can be decoded."""
    for utterance in chosen.utterances():
        if not utterance.said.references or not utterance.said.references[0]:
            continue
        try:
            with utterance.open() as audio:
                samples = audio.read(0, WINDOW_SAMPLES + 1)
        except AudioError:
            continue  # `k2d eval` names such files; here they only make the set smaller
        if 0 < len(samples) <= WINDOW_SAMPLES:
            yield Item(utterance.said.name, samples, utterance.said.references[0])


def validate(
    items: Sequence[Item],
    *,
    encode: Callable[[torch.Tensor], torch.Tensor],
    decoder: Any,
    language: str,
    vocabulary: Vocabulary,
    device: torch.device,
) -> Result:
    """Transcribe all items and count the edits. `encode`: features (B, mels, 3000) → (B, 1500, width)."""
    training = decoder.training
    decoder.eval()
    found: list[Counts] = []
    try:
        for start in range(0, len(items), ROWS_AT_ONCE):
            some = items[start : start + ROWS_AT_ONCE]
            features = torch.stack(
                [torch.from_numpy(log_mel(item.samples, mels=decoder.config.num_mel_bins)) for item in some]
            )
            with torch.no_grad():
                encoded = encode(features.to(device))
            texts = transcribe(decoder, encoded, language=language, vocabulary=vocabulary)
            found += [
                counts(read(item.reference).tokens, read(text).tokens) for item, text in zip(some, texts, strict=True)
            ]
    finally:
        decoder.train(training)
    pooled = reduce(add, found, Counts())
    return Result(mer=pooled.rate, edits=pooled, rows=len(items))
