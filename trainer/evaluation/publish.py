"""Puts an evaluation into the store beside a run (`k2d eval --publish RUN`), with the audio of a few utterances."""

from collections.abc import Iterator
from typing import Final

from k2d.audio import encode_flac
from k2d.errors import AudioError
from k2d.schema import WINDOW_SAMPLES
from k2d.store import Lake
from k2d.store.runs import EvaluatedLine, EvaluatedModel, Rate, RunEvaluation, evaluation_key
from trainer.evaluation.bootstrap import Band
from trainer.evaluation.error_rates import METRICS
from trainer.evaluation.eval_report import EvaluationReport, ModelResults, UtteranceLine
from trainer.evaluation.utterances import EvaluationSet

MOST_LINES: Final = 500  # utterances with their texts; chosen: about 300 kB
MOST_CLIPS: Final = 50  # of them with audio, at most 30 s each: about 25 MB


def publish_evaluation(lake: Lake, run: str, report: EvaluationReport, chosen: EvaluationSet) -> str:
    """Store an evaluation with a published run; returns the key it is stored under.

        publish_evaluation(Lake("data"), "first", report, open_set("test.jsonl", settings))

    The utterances in which the last model makes most edits come first; the first MOST_CLIPS have their audio, cut at
    30 s. An evaluation on a set of the same name is replaced.

    Raises:
        NotFound: no run of this name was published.
        StoreError
    """
    lake.runs.record(run)
    key = evaluation_key(report.set.name)
    lines = sorted(report.lines, key=lambda line: (-line.edits[-1], line.name))[:MOST_LINES]
    wanted = {line.name: number for number, line in enumerate(lines[:MOST_CLIPS])}
    lake.runs.drop_clips(run, key)
    clips = set()
    for number, flac in _clips(chosen, wanted):
        lake.runs.put_clip(run, key, number, flac)
        clips.add(number)
    evaluation = RunEvaluation(
        name=report.set.name,
        created_at=report.created_at,
        language=report.language,
        utterances=report.set.utterances,
        seconds=report.set.seconds,
        pseudo_labels=report.set.pseudo_labels,
        machine=report.machine,
        models=[_model(results) for results in report.models],
        lines=[_line(line, has_clip=number in clips) for number, line in enumerate(lines)],
    )
    lake.runs.put_evaluation(run, key, evaluation)
    return key


def _clips(chosen: EvaluationSet, wanted: dict[str, int]) -> Iterator[tuple[int, bytes]]:
    """The audio of utterances by name, as FLAC; those that cannot be decoded are left out."""
    left = len(wanted)
    for utterance in chosen.utterances():
        if not left:
            return
        number = wanted.get(utterance.reference.name)
        if number is None:
            continue
        left -= 1
        try:
            with utterance.open() as audio:
                samples = audio.read(0, WINDOW_SAMPLES)
        except AudioError:
            continue
        if len(samples):
            yield number, encode_flac(samples)


def _model(results: ModelResults) -> EvaluatedModel:
    return EvaluatedModel(
        reference=results.reference,
        rates={title: _rate(results.figures[metric].rate) for metric, title in METRICS.items()},
        repetitions=results.loops,
        real_time=results.speed.real_time,
        parameters=results.size.parameters if results.size else None,
        disk_mb=results.size.disk_mb if results.size else None,
    )


def _rate(band: Band) -> Rate:
    return Rate(value=band.value, low=band.low, high=band.high)


def _line(line: UtteranceLine, *, has_clip: bool) -> EvaluatedLine:
    return EvaluatedLine(
        name=line.name,
        language=line.language,
        seconds=line.seconds,
        reference=line.reference,
        hypotheses=list(line.hypotheses),
        edits=list(line.edits),
        tokens=list(line.tokens),
        has_clip=has_clip,
    )
