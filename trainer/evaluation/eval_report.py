"""What an evaluation found, as data: frozen, and JSON for `report.json`."""

from dataclasses import asdict, dataclass
from typing import Any

from k2d.schema import Counts, ModelInfo
from trainer.evaluation.bootstrap import Band
from trainer.evaluation.hearing import Speed
from trainer.evaluation.size import Size

FORMAT = 1  # of report.json


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one model: its rate with a band, and the counts behind it."""

    rate: Band
    counts: Counts
    difference: Band | None  # to the first model, paired by recording; None for the first itself


@dataclass(frozen=True, slots=True)
class Group:
    """Utterances that have something in common; figures by metric, one for each model."""

    by: str  # "language", "code mixing" or "length"
    name: str
    utterances: int
    seconds: float
    figures: dict[str, tuple[Figure, ...]]


@dataclass(frozen=True, slots=True)
class Side:
    """One model over the whole set."""

    reference: str  # as it was asked for
    model: ModelInfo
    figures: dict[str, Figure]
    loops: int  # stretches of at most 30 s in which its text repeats itself
    spoke_in_silence: int  # utterances without speech in which it heard a token
    speed: Speed
    size: Size | None  # None: behind a server


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an alignment with what was said, as written."""

    op: str  # equal, substitute, delete (not heard), insert (not said)
    said: str
    heard: str


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance: what was said and what each model made of it."""

    name: str
    language: str
    seconds: float
    said: str
    heard: tuple[str, ...]
    edits: tuple[int, ...]  # mixed, of each model
    tokens: tuple[int, ...]  # of the reference that counted for each model
    diffs: tuple[tuple[Piece, ...], ...] = ()  # of each model; for the worst ones only


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What was heard."""

    name: str
    kind: str
    pseudo_labels: bool
    utterances: int  # heard and scored
    without_speech: int  # of them
    recordings: int  # that the utterances come from: what bands resample
    seconds: float
    embedded: str  # the language whose words are points of interest
    set_aside: dict[str, str]  # utterances that were not scored, and why


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation. The first model is the one the others are compared with."""

    set: SetFacts
    models: tuple[Side, ...]
    groups: tuple[Group, ...]
    worst: tuple[Line, ...]  # most edits by the last model
    lines: tuple[Line, ...]  # every utterance
    language: str  # the prompt
    long_form: bool
    condition_on_previous_text: bool
    vad: bool
    draws: int
    seed: int
    machine: str
    k2d_version: str
    created_at: str  # ISO 8601, UTC

    def document(self) -> dict[str, Any]:
        """JSON values; every utterance's line is left out (they are a file of their own)."""
        found = {name: value for name, value in asdict(self).items() if name != "lines"}
        for side, model in zip(found["models"], self.models, strict=True):
            side["model"]["fingerprint"] = model.model.fingerprint
            side["speed"] |= {"real_time": model.speed.real_time, "tokens_per_s": model.speed.tokens_per_s}
        return {"format": FORMAT, **found}
