"""The protocol of a validator, the validators of a batch, and how a text's log-probabilities become its segments'."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol, runtime_checkable

from k2d.inference.transcriber import ScoringTranscriber
from k2d.keys import HYPOTHESES_TAG, digest
from k2d.schema import Chunk, Hypothesis, ModelInfo, Samples, Segment
from k2d.store import Lake
from k2d.validators.names import JOINT

AS_IS: Final = "as is"  # the perturbation of a validator that takes a chunk's audio unchanged
DECIMALS: Final = 4  # of a forced log-probability
HYPOTHESES_VERSION: Final = 1  # of how hypotheses are stored; what a validator does has its own version in its key


class Validator(Protocol):
    """Checks labels by transcribing their audio in its own way. Calls may run concurrently.

    Its hypotheses depend on nothing but the chunk, its audio, `key`, and, where `key` says so, on the hypotheses before
    its own: they are stored under that key and never computed twice.
    """

    @property
    def name(self) -> str:
        """ "kind:reference", as in every record."""
        ...

    @property
    def key(self) -> tuple[Any, ...]:
        """All that can change its hypotheses, as JSON values and dataclasses."""
        ...

    def wants(self, chunk: Chunk, before: Sequence[Hypothesis]) -> bool:
        """Whether it validates this chunk, given the hypotheses of the validators before it. Runs no model."""
        ...

    async def validate(
        self, chunk: Chunk, samples: Samples, before: Sequence[Hypothesis], *, recording_id: str
    ) -> tuple[Hypothesis, ...]:
        """Return its hypotheses of one chunk, one for each perturbation, in an order that never changes.

        Samples have shape (n,): exactly the label's span.

        Raises:
            ModelError: a model failed, or cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What a module's `open_validator(name, opening)` may use."""

    teacher: ScoringTranscriber
    language: str  # of the batch
    lake: Lake
    before: tuple[Validator, ...]  # the validators before it
    open_model: Callable[[str], Awaitable[ScoringTranscriber]]  # a model by its name; closed with the batch


@runtime_checkable
class FirstValidator(Validator, Protocol):
    """A validator that writes text, so that the paper's distances can come from it."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def perturbation_names(self) -> tuple[str, ...]:
        """(AS_IS,), or what is done to the audio."""
        ...


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of a batch, in order. The first is the paper's: distances come from it. Evidence comes from all."""

    first: FirstValidator
    others: tuple[Validator, ...] = ()

    def __iter__(self) -> Iterator[Validator]:
        return iter((self.first, *self.others))

    @property
    def name(self) -> str:
        """Their names joined by "+", as in every record."""
        return JOINT.join(validator.name for validator in self)

    @property
    def key(self) -> tuple[Any, ...]:
        """What goes into the key of the facts they lead to."""
        return tuple((validator.name, validator.key) for validator in self)


def hypotheses_key(label_key: str, validator: Validator) -> str:
    """The key of a validator's hypotheses on one recording's labels: the same whoever validates beside it."""
    return digest(HYPOTHESES_TAG, HYPOTHESES_VERSION, label_key, validator.name, validator.key)


def mean_by_segment(values: Sequence[float], segments: Sequence[Segment]) -> tuple[float, ...]:
    """Average values of a text's tokens over each segment; `values` are those of all segments' tokens in a row.

    A segment gets as many of the tokens as it has itself, exactly where those add up; where they do not (another
    vocabulary, tokens merged across a joint) it gets its share, at rounded places. A segment without tokens of its own
    counts a third of its UTF-8 bytes, what a Whisper token covers; one that no token falls to gets the mean of all.
    Empty where there are no tokens.
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
