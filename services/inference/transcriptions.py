"""`POST /v1/audio/transcriptions` as OpenAI has it, for any client of that API (docs/openai.md).

A whole recording in any format, of any length: it is decoded as a stream and goes window by window through the
micro-batcher, between the windows of other clients. Errors have OpenAI's form here, not that of problem documents.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from k2d.errors import BadRequest, Overloaded
from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, ModelInfo, Segment, Window, WindowResult
from services.inference import batch_metrics
from services.inference.admission import RequestKind
from services.inference.disconnect import ClientGone, unless_gone
from services.inference.host import InHost
from services.inference.openai_api import (
    ERRORS,
    OpenAIRoute,
    TranscriptionRequest,
    TranscriptStream,
    form_schema,
    render,
    transcript_events,
)
from services.inference.upload import DiskFile, UploadedRecording
from services.web.forms import Form, FormReader

router = APIRouter(tags=["OpenAI"], route_class=OpenAIRoute)

MODEL_HEADER: Final = "k2d-model"  # the fingerprint of the model that answered, whatever name was asked for
MAX_FIELDS: Final = 64  # more than OpenAI has


class PatientTranscriber:
    """A `k2d.inference.transcriber.Transcriber` that sends one recording's windows to the micro-batcher.

    When the queue is full the recording's first window is refused, so that the client may come back; later windows are
    tried again for `patience_s` seconds, as what was decoded until then would be lost.
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
        """Does nothing: the batcher is the server's."""


@router.get("/v1/models", summary="The server's one model, as OpenAI's API lists models", responses=ERRORS)
async def models(host: InHost) -> dict[str, object]:
    model = host.batcher.model
    entry = {"id": model.reference, "object": "model", "owned_by": "k2d", "fingerprint": model.fingerprint}
    return {"object": "list", "data": [entry]}


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
        stack.enter_context(host.admission.admit(RequestKind.RECORDING))
        reader = FormReader(DiskFile, max_files=1, max_fields=MAX_FIELDS)
        stack.push_async_callback(_close, reader)
        try:
            form = await reader.read(request)
        except ClientDisconnect as error:
            raise ClientGone from error
        asked = TranscriptionRequest.from_form(form.fields)
        recording = UploadedRecording(_file(form).file)
        stack.push_async_callback(recording.close)
        await unless_gone(request, recording.examine(settings))
        options = asked.longform(settings)
        transcriber = PatientTranscriber(batcher, client=client, patience_s=settings.server_patience_s)
        segments = transcribe(
            recording,
            transcriber,
            options,
            total_samples=recording.samples,
            skip_pauses=recording.has_pauses,
        )
        if asked.stream:
            first = await unless_gone(request, _first(segments))  # what fails at once still gets its status
            return TranscriptStream(transcript_events(_chain(first, segments)), stack.pop_all(), headers)
        answer = render(
            asked,
            await unless_gone(request, _all(segments)),
            language=options.decode.language,
            duration_s=recording.duration_s,
        )
        answer.headers.update(headers)
        return answer


def _file(form: Form[DiskFile]) -> DiskFile:
    for file in form.files:
        if file.field == "file":
            return file.sink
    raise BadRequest("there is no file", hint='send it as multipart/form-data, in the field "file"', param="file")


async def _close(reader: FormReader[DiskFile]) -> None:
    for file in reader.form.files:
        file.sink.close()


async def _all(segments: AsyncIterator[Segment]) -> list[Segment]:
    return [segment async for segment in segments]


async def _first(segments: AsyncIterator[Segment]) -> Segment | None:
    return await anext(segments, None)


async def _chain(first: Segment | None, segments: AsyncIterator[Segment]) -> AsyncIterator[Segment]:
    if first is not None:
        yield first
        async for segment in segments:
            yield segment
