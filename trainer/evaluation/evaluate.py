"""The whole evaluation: models one after the other over the same audio, then the comparison."""

import asyncio
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import k2d
from k2d.errors import BadRequest
from k2d.inference.open import open_transcriber
from k2d.schema import DecodeOptions, LongformOptions
from k2d.settings import Settings
from trainer.evaluation.compare import ScoredUtterance, compare_models
from trainer.evaluation.error_rates import count_errors
from trainer.evaluation.eval_report import EvaluationReport
from trainer.evaluation.size import size_of
from trainer.evaluation.transcribe_set import SetTranscripts, transcribe_set
from trainer.evaluation.utterances import EvaluationSet, Utterance, UtteranceReference
from trainer.progress import OnProgress, no_progress

GONE: Final = "gone from the set while it was being transcribed"
_HINT: Final = "an utterance needs audio that can be decoded and a text; '' where nothing is said"


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """What can be chosen about an evaluation, beside the settings."""

    limit: int | None = None  # the first so many utterances
    long_form: bool = True  # the sequential algorithm; False: one window each, longer ones skipped
    draws: int = 1000  # of the bootstrap
    seed: int = 0
    worst: int = 20  # utterances shown with their differences


def evaluate(
    models: Sequence[str],
    chosen: EvaluationSet,
    settings: Settings,
    *,
    options: EvaluationOptions = EvaluationOptions(),
    on_progress: OnProgress = no_progress,
) -> EvaluationReport:
    """Transcribe the set with each model, one in memory at a time, and compare them with the first.

    Language, previous text, voice activity detection, engine, precision and threads are the settings'. An utterance
    without a reference, or whose audio cannot be decoded, is skipped for all models.

        settings = load()
        report = evaluate(["packaged:whisper-base", "runs/a/best"], open_set("test.jsonl", settings), settings)
        report.models[1].figures["mer"].rate.value

    Args:
        on_progress: called with model, utterances done, of how many.

    Raises:
        BadRequest: no model, one model twice, a set without utterances, two of one name, a damaged row.
        ModelError: a model cannot be loaded, or failed.
    """
    if not models or len(set(models)) < len(models):
        raise BadRequest("name at least one model, each once", hint="--model TEACHER --model STUDENT")
    references, skipped = _references(chosen, options.limit)
    transcripts = [
        asyncio.run(_transcribe(model, chosen, references, settings, options=options, on_progress=on_progress))
        for model in models
    ]
    for of_model in transcripts:
        skipped |= of_model.skipped
        skipped |= {name: GONE for name in references if name not in of_model.transcripts and name not in skipped}
    scored = [_score(reference, transcripts) for reference in references.values() if reference.name not in skipped]
    if not scored:
        why = next(iter(skipped.values()))
        raise BadRequest(f"none of the {len(skipped)} utterances of {chosen.name} can be scored ({why})", hint=_HINT)
    comparison = compare_models(
        models,
        chosen,
        transcripts,
        scored,
        sizes=[size_of(model, settings) for model in models],
        skipped=skipped,
        draws=options.draws,
        seed=options.seed,
        worst=options.worst,
    )
    return EvaluationReport(
        set=comparison.set,
        models=comparison.models,
        groups=comparison.groups,
        worst=comparison.worst,
        lines=comparison.lines,
        language=settings.language,
        long_form=options.long_form,
        condition_on_previous_text=settings.condition_on_previous_text,
        vad=settings.vad,
        draws=options.draws,
        seed=options.seed,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        k2d_version=k2d.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _references(chosen: EvaluationSet, limit: int | None) -> tuple[dict[str, UtteranceReference], dict[str, str]]:
    """All utterances by name, and those without a reference; before a model is loaded."""
    references: dict[str, UtteranceReference] = {}
    for reference in islice(chosen.references(), limit):
        if reference.name in references:
            raise BadRequest(
                f"{chosen.name} has two utterances called {reference.name!r}", hint="give each an `id` of its own"
            )
        references[reference.name] = reference
    if not references:
        raise BadRequest(f"{chosen.name} has no utterance", hint=_HINT)
    return references, {name: "no reference" for name, reference in references.items() if not reference.texts}


async def _transcribe(
    model_reference: str,
    chosen: EvaluationSet,
    references: dict[str, UtteranceReference],
    settings: Settings,
    *,
    options: EvaluationOptions,
    on_progress: OnProgress,
) -> SetTranscripts:
    decode = DecodeOptions(language=settings.language)
    longform = LongformOptions(decode, condition_on_previous_text=settings.condition_on_previous_text, vad=settings.vad)
    total = sum(bool(reference.texts) for reference in references.values())
    finished = 0

    def count_done() -> None:
        nonlocal finished
        finished += 1
        on_progress(model_reference, finished, total)

    model = await open_transcriber(model_reference, settings)
    try:
        return await transcribe_set(
            model,
            _with_reference(chosen, options.limit),
            longform,
            long_form=options.long_form,
            at_once=max(1, min(settings.concurrency, total)),
            on_done=count_done,
        )
    finally:
        await model.close()


def _with_reference(chosen: EvaluationSet, limit: int | None) -> Iterator[Utterance]:
    return (utterance for utterance in islice(chosen.utterances(), limit) if utterance.reference.texts)


def _score(reference: UtteranceReference, transcripts: Sequence[SetTranscripts]) -> ScoredUtterance:
    """Each model's errors in one utterance."""
    texts = tuple(of_model.transcripts[reference.name] for of_model in transcripts)
    errors = tuple(count_errors(reference.texts, text.text, stretches=text.stretches) for text in texts)
    return ScoredUtterance(reference, texts, errors)
