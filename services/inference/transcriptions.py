"""`POST /v1/audio/transcriptions` as OpenAI has it, for any client of that API (docs/openai.md).

A whole recording in any format, of any length: it is decoded as a stream and goes window by window through the
micro-batcher, between everybody else's windows. Errors have OpenAI's shape here, not the house's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile

from k2d.errors import BadRequest, Overloaded
from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, ModelInfo, Segment, Window, WindowResult
from services.inference import batch_metrics
from services.inference.host import Host
from services.inference.openai_api import ERRORS, Asked, EventStream, OpenAIRoute, events, form_schema, rendered
from services.inference.upload import Recording
from services.inference.windows import InHost, unless_gone

router = APIRouter(tags=["OpenAI"], route_class=OpenAIRoute)

MODEL_HEADER = "k2d-model"  # the fingerprint of the model that answered, whatever name was asked for
FIELDS = 64  # more than OpenAI has


class Turn:
    """A recording's turn at the micro-batcher (`k2d.inference.transcriber.Transcriber`): as its client, and patient.

    A full queue refuses the recording's first window, so that the client may come back; later ones wait for room, as
    what was decoded until then would be lost.
    """

    def __init__(self, batcher: MicroBatcher, *, client: str, patience_s: float) -> None:
        self._batcher, self._client, self._patience_s = batcher, client, patience_s
        self._begun = False

    @property
    def model(self) -> ModelInfo:
        return self._batcher.model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        give_up_at = time.monotonic() + (self._patience_s if self._begun else 0.0)
        while True:
            try:
                result = await self._batcher.transcribe(window, options, client=self._client)
            except Overloaded:
                if time.monotonic() >= give_up_at:
                    raise
                await asyncio.sleep(self._batcher.retry_after_s)
            else:
                self._begun = True
                batch_metrics.AUDIO.inc(len(window.samples) / SAMPLE_RATE_HZ)
                return result

    async def close(self) -> None:
        """Nothing: the batcher is the server's."""


@router.post(
    "/v1/audio/transcriptions",
    summary="Transcribe a recording, as OpenAI's API does",
    openapi_extra=form_schema(),
    responses=ERRORS,
    response_class=Response,
)
async def transcriptions(request: Request, host: InHost) -> Response:
    batcher, settings = host.batcher, host.settings
    headers = {MODEL_HEADER: batcher.model.fingerprint}
    client = request.client.host if request.client else ""
    async with AsyncExitStack() as stack:
        stack.enter_context(_place(host))
        form = await request.form(max_files=1, max_fields=FIELDS)
        stack.push_async_callback(form.close)
        asked = Asked.of([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
        recording = Recording(_file(form).file)
        stack.push_async_callback(recording.close)
        await unless_gone(request, recording.examine(settings))
        options = asked.longform(settings)
        turn = Turn(batcher, client=client, patience_s=settings.server_patience_s)
        segments = transcribe(recording, turn, options, total_samples=recording.samples)
        if not asked.stream:
            found = await unless_gone(request, _all(segments))
            answer = rendered(asked, found, language=options.decode.language, duration_s=recording.duration_s)
            answer.headers.update(headers)
            return answer
        first = await unless_gone(request, _first(segments))  # what fails at once still gets its status
        return EventStream(events(_again(first, segments)), stack.pop_all(), headers)


@contextmanager
def _place(host: Host) -> Iterator[None]:
    """A place among the requests this server has in hand. A recording keeps it for long, so half of the places are
    for single windows only.

    Raises:
        Overloaded: there is none, said before any of the file is read.
    """
    if host.admitted >= host.settings.max_waiting:
        batch_metrics.REFUSED.labels(Overloaded.code).inc()
        raise Overloaded(
            f"{host.admitted} requests are in hand",
            hint="ask again later, or add servers",
            retry_after_s=round(host.batcher.retry_after_s, 1),
        )
    host.admitted += 1
    try:
        yield
    finally:
        host.admitted -= 1


def _file(form: FormData) -> UploadFile:
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if not files or "file" not in form or not isinstance(form["file"], UploadFile):
        raise BadRequest("there is no file", hint='send it as multipart/form-data, in the field "file"', param="file")
    return files[0]


async def _all(segments: AsyncIterator[Segment]) -> list[Segment]:
    return [segment async for segment in segments]


async def _first(segments: AsyncIterator[Segment]) -> Segment | None:
    return await anext(segments, None)


async def _again(first: Segment | None, segments: AsyncIterator[Segment]) -> AsyncIterator[Segment]:
    if first is not None:
        yield first
        async for segment in segments:
            yield segment
