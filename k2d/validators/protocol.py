"""The protocol of a validator, the validators of a batch, and what all validators share."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol, runtime_checkable

from k2d.inference.model_cache import ModelCache
from k2d.inference.transcriber import ScoringTranscriber
from k2d.keys import HYPOTHESES_TAG, digest
from k2d.schema import Chunk, DecodeOptions, Hypothesis, ModelInfo, Samples, Segment
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.names import SEPARATOR

AS_IS: Final = "as is"  # the perturbation of a validator that gets a chunk's audio unchanged
DECIMALS: Final = 4  # of a forced log-probability
HYPOTHESES_VERSION: Final = 1  # of how hypotheses are stored; each validator's key has its own version


class Validator(Protocol):
    """Checks labels by transcribing their audio in its own way. Calls may run concurrently.

    Its hypotheses depend only on the chunk, its audio, `key`, and, if `key` says so, on the hypotheses of the
    validators before it. They are stored under that key and not computed twice.
    """

    @property
    def name(self) -> str:
        """ "kind:reference", for records."""
        ...

    @property
    def key(self) -> tuple[Any, ...]:
        """Everything that can change its hypotheses, as JSON values and dataclasses."""
        ...

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        """Whether it validates this chunk, given the hypotheses of the validators before it. Runs no model."""
        ...

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        """Return its hypotheses of a chunk, one for each perturbation, always in the same order.

        Args:
            samples: shape (n,), cut to the label's span.
            before: hypotheses of the validators before it.

        Raises:
            ModelError: a model failed, or cannot be reached.
        """
        ...


class OpenModel(Protocol):
    """Opens a Whisper by its name; it is closed with the batch."""

    def __call__(self, name: str, *, english_only: bool = False) -> Awaitable[ScoringTranscriber]:
        """`english_only`: whether an English-only Whisper will do."""
        ...


@dataclass(frozen=True, slots=True)
class ValidatorContext:
    """What a module's `open_validator(name, context)` gets."""

    teacher: ScoringTranscriber
    language: str  # of the batch
    lake: Lake
    before: tuple[Validator, ...]  # the validators before it
    open_model: OpenModel
    settings: Settings
    close_with_batch: Callable[[Callable[[], Awaitable[None]]], object]  # registers what is called when the batch ends
    short_context: bool = False  # of the batch
    kept: ModelCache | None = None  # where models in this process stay for the next batch


@runtime_checkable
class FirstValidator(Validator, Protocol):
    """A validator that writes text, as the first must, since distances are computed from its hypotheses."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def perturbation_names(self) -> tuple[str, ...]:
        """The names of its perturbations; (AS_IS,) if the audio is not changed."""
        ...


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of a batch, in order. Distances come from the first, as in the paper; evidence from all."""

    first: FirstValidator
    others: tuple[Validator, ...] = ()

    def __iter__(self) -> Iterator[Validator]:
        return iter((self.first, *self.others))

    @property
    def name(self) -> str:
        """Their names joined by "+", for records."""
        return SEPARATOR.join(validator.name for validator in self)

    @property
    def key(self) -> tuple[Any, ...]:
        """Their part of the key of facts."""
        return tuple((validator.name, validator.key) for validator in self)


def greedy_options(language: str, *, short_context: bool) -> DecodeOptions:
    """One greedy pass without timestamps or fallback: a loop is evidence about the label, and is kept."""
    return DecodeOptions(
        language=language,
        temperatures=(0.0,),
        without_timestamps=True,
        no_speech_threshold=None,
        short_context=short_context,
    )


def hypotheses_key(label_key: str, validator: Validator) -> str:
    """The key of a validator's hypotheses on a recording's labels; independent of the other validators."""
    return digest(HYPOTHESES_TAG, HYPOTHESES_VERSION, label_key, validator.name, validator.key)


def mean_by_segment(values: Sequence[float], segments: Sequence[Segment]) -> tuple[float, ...]:
    """Average the values of a text's tokens over each of its segments.

    If the text was tokenized as its segments were, each segment gets the values of its own tokens. If not (another
    vocabulary, tokens merged across a boundary), the values are divided in proportion to the segments' numbers of
    tokens. A segment without tokens counts as a third of its UTF-8 bytes, the average of a Whisper token; a segment
    that gets no value has the mean of all values.

    Args:
        values: one for each token of the whole text, in order.

    Returns:
        A mean for each segment, rounded to `DECIMALS`; empty if there are no values.
    """
    if not values:
        return ()
    weights = [len(segment.tokens) or len(segment.text.strip().encode("utf-8", "replace")) / 3 for segment in segments]
    total = sum(weights)
    if not total:
        return ()
    cuts, reached = [0], 0.0
    for weight in weights:
        reached += weight
        cuts.append(round(reached / total * len(values)))
    whole = _mean(values)
    return tuple(_mean(values[start:end]) if end > start else whole for start, end in pairwise(cuts))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), DECIMALS)
