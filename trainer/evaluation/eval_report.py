"""The result of an evaluation as data: frozen, and JSON for `report.json`."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from k2d.schema import Counts, ModelInfo
from trainer.evaluation.bootstrap import Band
from trainer.evaluation.size import ModelSize
from trainer.evaluation.transcribe_set import TranscriptionSpeed

# Of report.json. 2: reference and hypotheses (1: said, heard), skipped (set_aside), embedded_language (embedded),
# text_without_speech (spoke_in_silence)
FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class MetricFigure:
    """One metric of one model: its rate with a band, and the counts behind it."""

    rate: Band
    counts: Counts
    difference: Band | None  # to the first model, paired by recording; None for the first itself


@dataclass(frozen=True, slots=True)
class UtteranceGroup:
    """Utterances that have something in common; figures by metric, one for each model."""

    by: str  # "language", "code mixing" or "length"
    name: str
    utterances: int
    seconds: float
    figures: dict[str, tuple[MetricFigure, ...]]


@dataclass(frozen=True, slots=True)
class ModelResults:
    """One model over the whole set."""

    reference: str  # the model as it was asked for
    model: ModelInfo
    figures: dict[str, MetricFigure]
    loops: int  # stretches of at most 30 s in which its text repeats itself
    text_without_speech: int  # utterances without speech for which it wrote a token
    speed: TranscriptionSpeed
    size: ModelSize | None  # None: behind a server


@dataclass(frozen=True, slots=True)
class DiffPiece:
    """A stretch of the alignment of reference and hypothesis, as each wrote it."""

    op: str  # equal, substitute, delete (only in the reference), insert (only in the hypothesis)
    reference: str
    hypothesis: str


@dataclass(frozen=True, slots=True)
class UtteranceLine:
    """One utterance: its reference and each model's transcript."""

    name: str
    language: str
    seconds: float
    reference: str
    hypotheses: tuple[str, ...]
    edits: tuple[int, ...]  # mixed, of each model
    tokens: tuple[int, ...]  # of the reference that counted for each model
    diffs: tuple[tuple[DiffPiece, ...], ...] = ()  # of each model; for the worst utterances only


@dataclass(frozen=True, slots=True)
class SetSummary:
    """The set that was transcribed."""

    name: str
    kind: str
    pseudo_labels: bool
    utterances: int  # transcribed and scored
    without_speech: int  # of them
    recordings: int  # that the utterances come from: what bands resample
    seconds: float
    embedded_language: str  # whose words are points of interest
    skipped: dict[str, str]  # utterances that were not scored, and why


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """An evaluation. The first model is the one the others are compared with."""

    set: SetSummary
    models: tuple[ModelResults, ...]
    groups: tuple[UtteranceGroup, ...]
    worst: tuple[UtteranceLine, ...]  # most edits by the last model
    lines: tuple[UtteranceLine, ...]  # every utterance
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
        """The report as JSON values, without `lines` (they are a file of their own)."""
        values = {name: value for name, value in asdict(self).items() if name != "lines"}
        for of_model, results in zip(values["models"], self.models, strict=True):
            of_model["model"]["fingerprint"] = results.model.fingerprint
            of_model["speed"] |= {"real_time": results.speed.real_time, "tokens_per_s": results.speed.tokens_per_s}
        return {"format": FORMAT, **values}
