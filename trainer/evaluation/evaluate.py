"""The whole evaluation: models one after the other over the same audio, then what that says about them."""

import asyncio
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import k2d
from k2d.errors import BadRequest
from k2d.inference.open import open_transcriber
from k2d.schema import DecodeOptions, LongformOptions
from k2d.settings import Settings
from trainer.evaluation.compare import Scored, compared
from trainer.evaluation.error_rates import score
from trainer.evaluation.eval_report import Report
from trainer.evaluation.hearing import Hearing, hear
from trainer.evaluation.size import size_of
from trainer.evaluation.utterances import EvaluationSet, Said, Utterance

Progress = Callable[[str, int, int], None]  # model, utterances done, of how many


@dataclass(frozen=True, slots=True)
class How:
    """What can be chosen about an evaluation, beside the settings."""

    limit: int | None = None  # the first so many utterances
    long_form: bool = True  # the sequential algorithm; False: one window each, longer ones set aside
    draws: int = 1000  # of the bootstrap
    seed: int = 0
    worst: int = 20  # utterances shown with their differences


def evaluate(
    models: Sequence[str],
    found: EvaluationSet,
    settings: Settings,
    *,
    how: How = How(),
    progress: Progress | None = None,
) -> Report:
    """Let each model hear the set, one model in memory at a time, and compare them with the first.

    Language, previous text, voice activity detection, engine, precision and threads are the settings'. An utterance
    that nobody knows the words of, or whose audio cannot be decoded, is set aside for all models.

    Raises:
        BadRequest: no model, one model twice, a set without utterances, two of one name, a damaged row.
        ModelError: a model cannot be loaded, or failed.
    """
    if not models or len(set(models)) < len(models):
        raise BadRequest("name at least one model, each once", hint="--model TEACHER --model STUDENT")
    said, set_aside = _survey(found, how.limit)
    hearings = [asyncio.run(_heard(model, found, said, settings, how=how, progress=progress)) for model in models]
    for hearing in hearings:
        set_aside |= hearing.set_aside
        set_aside |= {name: GONE for name in said if name not in hearing.heard and name not in set_aside}
    scored = [
        Scored(
            one,
            tuple(hearing.heard[one.name] for hearing in hearings),
            tuple(
                score(one.references, heard.text, stretches=heard.stretches)
                for heard in (hearing.heard[one.name] for hearing in hearings)
            ),
        )
        for one in said.values()
        if one.name not in set_aside
    ]
    if not scored:
        why = next(iter(set_aside.values()))
        raise BadRequest(f"none of the {len(set_aside)} utterances of {found.name} can be scored ({why})", hint=_HINT)
    sizes = [size_of(model, settings) for model in models]
    facts, sides, groups, worst, lines = compared(
        models, found, hearings, scored, sizes=sizes, set_aside=set_aside, how=(how.draws, how.seed, how.worst)
    )
    return Report(
        set=facts,
        models=sides,
        groups=groups,
        worst=worst,
        lines=lines,
        language=settings.language,
        long_form=how.long_form,
        condition_on_previous_text=settings.condition_on_previous_text,
        vad=settings.vad,
        draws=how.draws,
        seed=how.seed,
        machine=_machine(),
        k2d_version=k2d.__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


GONE = "gone from the set while it was being heard"
_HINT = "an utterance needs audio that can be decoded and a text; '' where nothing is said"


def _survey(found: EvaluationSet, limit: int | None) -> tuple[dict[str, Said], dict[str, str]]:
    """All utterances by name, and those that nobody knows the words of; before a model is loaded."""
    said: dict[str, Said] = {}
    for one in islice(found.said(), limit):
        if one.name in said:
            raise BadRequest(
                f"{found.name} has two utterances called {one.name!r}", hint="give each an `id` of its own"
            )
        said[one.name] = one
    if not said:
        raise BadRequest(f"{found.name} has no utterance", hint=_HINT)
    return said, {name: "no reference" for name, one in said.items() if not one.references}


async def _heard(
    reference: str,
    found: EvaluationSet,
    said: dict[str, Said],
    settings: Settings,
    *,
    how: How,
    progress: Progress | None,
) -> Hearing:
    decode = DecodeOptions(language=settings.language)
    options = LongformOptions(decode, condition_on_previous_text=settings.condition_on_previous_text, vad=settings.vad)
    total = sum(bool(one.references) for one in said.values())
    finished = 0

    def done() -> None:
        nonlocal finished
        finished += 1
        if progress is not None:
            progress(reference, finished, total)

    model = await open_transcriber(reference, settings)
    try:
        return await hear(
            model,
            _scorable(found, how.limit),
            options,
            long_form=how.long_form,
            at_once=max(1, min(settings.concurrency, total)),
            done=done,
        )
    finally:
        await model.close()


def _scorable(found: EvaluationSet, limit: int | None) -> Iterator[Utterance]:
    return (utterance for utterance in islice(found.utterances(), limit) if utterance.said.references)


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
