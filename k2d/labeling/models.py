"""From settings and a batch to the models its labels need: a teacher, and the panel that doubts it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from k2d.errors import ModelError
from k2d.inference.address import SERVED
from k2d.inference.opening import open_transcriber
from k2d.inference.transcriber import ScoringTranscriber, Transcriber
from k2d.schema import Batch, ModelInfo
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.model import ModelListener
from k2d.validators.names import PERTURBED, PROBE, RESCUE, address_of, listeners_of
from k2d.validators.panel import Panel
from k2d.validators.perturb import VIEWS
from k2d.validators.probe import open_probe
from k2d.validators.rescue import RescueListener
from k2d.validators.validator import Listener


@asynccontextmanager
async def opened(settings: Settings, batch: Batch, lake: Lake) -> AsyncIterator[tuple[Transcriber, Panel]]:
    """The batch's teacher and the panel that doubts it, until the block ends; listeners share the teacher's weights
    where those are theirs too.

    Raises:
        BadRequest: no panel; a probe beside a teacher that is on a server.
        NotFound: no such probe in the lake.
        ModelError: as `open_transcriber`, or two of the models are the same weights.
    """
    language = batch.options.decode.language
    names = listeners_of(batch.validator)
    async with AsyncExitStack() as stack:
        teacher = await _held(stack, batch.teacher, settings)
        weights = {teacher.model.digest: "the teacher"}
        listeners: list[Listener] = []
        for name in names:
            if name == PERTURBED:
                listeners.append(ModelListener(teacher, language, VIEWS))
            elif name == RESCUE:
                listeners.append(RescueListener(teacher, language, tuple(one.key for one in listeners)))
            elif name.startswith(PROBE):
                listeners.append(open_probe(name.removeprefix(PROBE), lake=lake, teacher=teacher))
            else:
                model = await _held(stack, name, settings)
                _check_other(model.model, weights)
                listeners.append(ModelListener(model, language))
        first, *others = listeners
        assert isinstance(first, ModelListener)  # no panel begins with another
        yield teacher, Panel(first, tuple(others))


async def _held(stack: AsyncExitStack, reference: str, settings: Settings) -> ScoringTranscriber:
    transcriber = await open_transcriber(_where(reference, settings), settings)
    stack.push_async_callback(transcriber.close)
    return transcriber


def _check_other(model: ModelInfo, weights: dict[str, str]) -> None:
    """Refuse weights that are in the room already; remember these.

    Raises:
        ModelError
    """
    if model.digest in weights:
        raise ModelError(
            f"{weights[model.digest]} and {model.reference} are the same weights: they would always agree",
            hint=f"name another model as validator, or {PERTURBED!r}",
        )
    weights[model.digest] = model.reference


def _where(reference: str, settings: Settings) -> str:
    """Where the operator's servers are now; any other reference as it is."""
    setting = SERVED.get(reference)
    return address_of(getattr(settings, setting)) if setting else reference
