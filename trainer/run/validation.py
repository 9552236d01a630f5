"""How well a student transcribes speech it was not trained on: greedy, at most 30 s, mixed error rate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from typing import Any, Final

import torch

from k2d.errors import AudioError, BadRequest
from k2d.filtering.distance import counts
from k2d.schema import WINDOW_SAMPLES, Counts, Samples
from k2d.settings import Settings
from k2d.text.reading import read
from k2d.whisper.features import log_mel
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.stream import TrainingData
from trainer.evaluation.sets import open_set
from trainer.evaluation.utterances import EvaluationSet
from trainer.model.greedy import transcribe
from trainer.options import Recipe

ROWS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class ValidationItem:
    """Speech to transcribe, at most 30 s, with its reference."""

    name: str
    samples: Samples  # (n,)
    reference: str


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """The student's errors over all items."""

    mer: float  # edits over reference tokens, pooled
    edits: Counts
    rows: int


def items_of(data: TrainingData, recipe: Recipe, settings: Settings) -> list[ValidationItem]:
    """What a run validates on: a set with references, or else the rows it holds out; empty when it has neither.

    Raises:
        BadRequest: the set has nothing to validate on.
        NotFound: there is no such set.
    """
    if recipe.validate_on is None:
        return [ValidationItem(row.id, row.samples, row.text) for row in data.held_out(recipe.validation_rows)]
    items = list(islice(_usable(open_set(recipe.validate_on, settings)), recipe.validation_rows))
    if not items:
        raise BadRequest(
            f"{recipe.validate_on} has no utterance of at most 30 s with a reference", hint="docs/evaluation.md"
        )
    return items


def _usable(chosen: EvaluationSet) -> Iterator[ValidationItem]:
    """Utterances of at most 30 s that have a reference and can be decoded."""
    for utterance in chosen.utterances():
        texts = utterance.reference.texts
        if not texts or not texts[0]:
            continue
        try:
            with utterance.open() as audio:
                samples = audio.read(0, WINDOW_SAMPLES + 1)
        except AudioError:
            continue  # `k2d eval` names such files; here they only make the set smaller
        if 0 < len(samples) <= WINDOW_SAMPLES:
            yield ValidationItem(utterance.reference.name, samples, texts[0])


def validate(
    items: Sequence[ValidationItem],
    *,
    encode: Callable[[torch.Tensor], torch.Tensor],
    decoder: Any,
    language: str,
    vocabulary: Vocabulary,
    device: torch.device,
) -> ValidationResult:
    """Transcribe all items and count the edits.

    Args:
        encode: features (B, mels, 3000) → (B, 1500, width).
        decoder: the student's.
    """
    training = decoder.training
    decoder.eval()
    edits = Counts()
    try:
        for start in range(0, len(items), ROWS_AT_ONCE):
            batch = items[start : start + ROWS_AT_ONCE]
            features = torch.stack(
                [torch.from_numpy(log_mel(item.samples, mels=decoder.config.num_mel_bins)) for item in batch]
            )  # (B, mels, 3000)
            with torch.no_grad():
                encoded = encode(features.to(device))  # (B, 1500, width)
            texts = transcribe(decoder, encoded, language=language, vocabulary=vocabulary)
            pairs = zip(batch, texts, strict=True)
            edits = reduce(add, (counts(read(item.reference).tokens, read(text).tokens) for item, text in pairs), edits)
    finally:
        decoder.train(training)
    return ValidationResult(mer=edits.rate, edits=edits, rows=len(items))
