"""Opens the models of a batch: the teacher that labels, and the validators that check its labels."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from k2d.errors import ModelError
from k2d.inference.address import SERVED, is_address, plain
from k2d.inference.model_cache import ModelCache
from k2d.inference.open import open_transcriber
from k2d.inference.transcriber import ScoringTranscriber
from k2d.schema import Batch, ModelInfo
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.names import PERTURBED, address_of, kind_of, models_of, validators_of
from k2d.validators.protocol import FirstValidator, Validator, ValidatorContext, Validators
from k2d.whisper.resolve import check


@asynccontextmanager
async def open_models(
    settings: Settings, batch: Batch, lake: Lake, *, kept: ModelCache | None = None
) -> AsyncIterator[tuple[ScoringTranscriber, Validators]]:
    """Open the batch's teacher and validators; closes them when the block ends.

        async with open_models(settings, batch, lake) as (teacher, validators):
            labeler = Labeler(lake, teacher=teacher, validators=validators, batch=batch, settings=settings)

    Validators that use the teacher's weights share its model. Models in this process are taken from `kept` and given
    back to it, if it is there; what it has of another batch is closed first.

    Raises:
        BadRequest: no validator is named, a probe while the teacher is on a server, or an endpoint that is not in the
            settings.
        NotFound: the lake has no such probe.
        ModelError: as `open_transcriber`, or two of the models have the same weights.
    """
    names = validators_of(batch.validator)
    if kept is not None:
        references = [plain(_resolve_served(name, settings)) for name in (batch.teacher, *names)]
        await asyncio.to_thread(kept.keep_only, references)
    async with AsyncExitStack() as stack:
        teacher = await _open(stack, batch.teacher, settings, kept)
        weights = {teacher.model.digest: "the teacher"}

        async def open_model(name: str, *, english_only: bool = False) -> ScoringTranscriber:
            model = await _open(stack, name, settings, kept, english_only=english_only)
            _check_weights(model.model, weights)
            return model

        validators: list[Validator] = []
        for name in names:
            context = ValidatorContext(
                teacher=teacher,
                language=batch.options.decode.language,
                lake=lake,
                before=tuple(validators),
                open_model=open_model,
                settings=settings,
                close_with_batch=stack.push_async_callback,
                short_context=batch.options.short_context,
                kept=kept,
            )
            module = importlib.import_module(kind_of(name).module)
            validators.append(await module.open_validator(name, context))
        first, *others = validators
        assert isinstance(first, FirstValidator)  # validators_of has checked it
        yield teacher, Validators(first, tuple(others))


def check_models(settings: Settings, batch: Batch) -> None:
    """Check that the Whispers of a batch that run in this process are there, or can be fetched. None is loaded.

    Raises:
        ModelError: as `open_models`, as far as that can be known.
    """
    for reference in (batch.teacher, *models_of(batch.validator)):
        if not is_address(resolved := _resolve_served(reference, settings)):
            check(plain(resolved), cache=settings.cache, allow_downloads=settings.allow_downloads)


async def _open(
    stack: AsyncExitStack, reference: str, settings: Settings, kept: ModelCache | None, *, english_only: bool = False
) -> ScoringTranscriber:
    transcriber = await open_transcriber(
        _resolve_served(reference, settings), settings, english_only=english_only, models=kept
    )
    stack.push_async_callback(transcriber.close)
    return transcriber


def _check_weights(model: ModelInfo, weights: dict[str, str]) -> None:
    """Reject a validator with the same weights as another model of this batch; else add them to `weights`.

    Raises:
        ModelError
    """
    if model.digest in weights:
        raise ModelError(
            f"{weights[model.digest]} and {model.reference} have the same weights, so they would always agree",
            hint=f"name another model as validator, or {PERTURBED!r}",
        )
    weights[model.digest] = model.reference


def _resolve_served(reference: str, settings: Settings) -> str:
    """Replace `served:teacher` and `served:validator` by the address in the settings; keep any other reference."""
    setting = SERVED.get(reference)
    return address_of(getattr(settings, setting)) if setting else reference
