"""From transcripts to figures: sums, bands, groups, the worst utterances. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Final

import numpy as np

from k2d.filtering.distance import aligned_diff
from k2d.schema import WINDOW_S, Counts
from trainer.evaluation.bootstrap import band, pooled_rates, resample_rates, sum_by_recording
from trainer.evaluation.error_rates import BUCKETS, METRICS, ErrorCounts, bucket, embedded_language
from trainer.evaluation.eval_report import (
    DiffPiece,
    MetricFigure,
    ModelResults,
    SetSummary,
    UtteranceGroup,
    UtteranceLine,
)
from trainer.evaluation.size import ModelSize
from trainer.evaluation.transcribe_set import SetTranscripts, UtteranceTranscript
from trainer.evaluation.utterances import EvaluationSet, UtteranceReference

LENGTHS: Final = (f"up to {WINDOW_S:.0f} s", f"over {WINDOW_S:.0f} s")


@dataclass(frozen=True, slots=True)
class ScoredUtterance:
    """One utterance with each model's transcript and its errors."""

    reference: UtteranceReference
    transcripts: tuple[UtteranceTranscript, ...]
    errors: tuple[ErrorCounts, ...]

    @property
    def seconds(self) -> float:
        return self.transcripts[0].seconds

    @property
    def has_speech(self) -> bool:
        return self.errors[0].has_speech


@dataclass(frozen=True, slots=True)
class Comparison:
    """All models over one set."""

    set: SetSummary
    models: tuple[ModelResults, ...]
    groups: tuple[UtteranceGroup, ...]
    worst: tuple[UtteranceLine, ...]
    lines: tuple[UtteranceLine, ...]


def compare_models(
    models: Sequence[str],
    chosen: EvaluationSet,
    transcripts: Sequence[SetTranscripts],
    scored: Sequence[ScoredUtterance],
    *,
    sizes: Sequence[ModelSize | None],
    skipped: dict[str, str],
    draws: int,
    seed: int,
    worst: int,
) -> Comparison:
    """Put the models side by side.

    Args:
        models: their references, in the order of all other sequences.
        draws, seed: of the bootstrap.
        worst: how many utterances with the most edits are shown with their differences.
    """
    embedded = embedded_language(utterance.reference.texts[0] for utterance in scored)
    whole = figures(scored, embedded=embedded, draws=draws, seed=seed)
    silent = [utterance for utterance in scored if not utterance.has_speech]
    results = tuple(
        ModelResults(
            reference=model,
            model=of_model.model,
            figures={metric: whole[metric][index] for metric in METRICS},
            loops=sum(utterance.errors[index].loops for utterance in scored),
            text_without_speech=sum(utterance.errors[index].has_text for utterance in silent),
            speed=of_model.speed,
            size=size,
        )
        for index, (model, of_model, size) in enumerate(zip(models, transcripts, sizes, strict=True))
    )
    summary = SetSummary(
        name=chosen.name,
        kind=chosen.kind,
        pseudo_labels=chosen.pseudo_labels,
        utterances=len(scored),
        without_speech=len(silent),
        recordings=len({utterance.reference.recording for utterance in scored}),
        seconds=_seconds(scored),
        embedded_language=embedded,
        skipped=skipped,
    )
    groups = tuple(
        UtteranceGroup(
            by, name, len(members), _seconds(members), figures(members, embedded=embedded, draws=draws, seed=seed)
        )
        for by, name, members in _groups(scored)
    )
    by_edits = sorted(scored, key=lambda utterance: (-utterance.errors[-1].mixed.edits, utterance.reference.name))
    return Comparison(
        set=summary,
        models=results,
        groups=groups,
        worst=tuple(_line(each, diffs=True) for each in by_edits[:worst] if each.errors[-1].mixed.edits),
        lines=tuple(map(_line, scored)),
    )


def figures(
    scored: Sequence[ScoredUtterance], *, embedded: str, draws: int, seed: int
) -> dict[str, tuple[MetricFigure, ...]]:
    """Every metric of every model over some utterances; the same draws of recordings serve all, so bands are paired."""
    models, metrics = len(scored[0].errors), len(METRICS)
    sums = [[_sum(scored, index, metric, embedded) for metric in METRICS] for index in range(models)]
    # columns: all metrics of the first model, then of the second …
    counts = [
        [errors.of(metric, embedded=embedded) for errors in utterance.errors for metric in METRICS]
        for utterance in scored
    ]
    recordings = [utterance.reference.recording for utterance in scored]
    edits = sum_by_recording(np.array([[count.edits for count in row] for row in counts], float), recordings)
    tokens = sum_by_recording(
        np.array([[count.reference_length for count in row] for row in counts], float), recordings
    )
    points = pooled_rates(edits, tokens).reshape(models, metrics)
    rates = resample_rates(edits, tokens, draws=draws, seed=seed).reshape(draws, models, metrics)
    return {
        metric: tuple(
            MetricFigure(
                rate=band(points[index, column], rates[:, index, column]),
                counts=sums[index][column],
                difference=band(
                    points[index, column] - points[0, column], rates[:, index, column] - rates[:, 0, column]
                )
                if index
                else None,
            )
            for index in range(models)
        )
        for column, metric in enumerate(METRICS)
    }


def _sum(scored: Sequence[ScoredUtterance], index: int, metric: str, embedded: str) -> Counts:
    return reduce(add, (utterance.errors[index].of(metric, embedded=embedded) for utterance in scored), Counts())


def _seconds(scored: Sequence[ScoredUtterance]) -> float:
    return round(sum(utterance.seconds for utterance in scored), 3)


def _groups(scored: Sequence[ScoredUtterance]) -> list[tuple[str, str, list[ScoredUtterance]]]:
    """By language, by code mixing of the reference, by length; empty groups are left out."""
    groups: dict[tuple[str, str], list[ScoredUtterance]] = {}
    for utterance in scored:
        groups.setdefault(("language", utterance.reference.language), []).append(utterance)
        if name := bucket(utterance.reference.texts[0]):
            groups.setdefault(("code mixing", name), []).append(utterance)
        groups.setdefault(("length", LENGTHS[utterance.seconds > WINDOW_S]), []).append(utterance)
    languages = sorted((key for key in groups if key[0] == "language"), key=lambda key: -len(groups[key]))
    others = [("code mixing", name) for _, name in BUCKETS] + [("length", name) for name in LENGTHS]
    return [(*key, groups[key]) for key in [*languages, *others] if key in groups]


def _line(utterance: ScoredUtterance, *, diffs: bool = False) -> UtteranceLine:
    return UtteranceLine(
        name=utterance.reference.name,
        language=utterance.reference.language,
        seconds=round(utterance.seconds, 3),
        reference=utterance.reference.texts[0],
        hypotheses=tuple(transcript.text for transcript in utterance.transcripts),
        edits=tuple(errors.mixed.edits for errors in utterance.errors),
        tokens=tuple(errors.mixed.reference_length for errors in utterance.errors),
        diffs=tuple(_diff(utterance, index) for index in range(len(utterance.transcripts))) if diffs else (),
    )


def _diff(utterance: ScoredUtterance, index: int) -> tuple[DiffPiece, ...]:
    """One model's transcript against the reference that counted: the written one, or the spoken one where nearer."""
    reference = utterance.reference.texts[utterance.errors[index].reference]
    return tuple(
        DiffPiece(str(piece.op), piece.validator_text, piece.teacher_text)
        for piece in aligned_diff(utterance.transcripts[index].text, reference)
    )
