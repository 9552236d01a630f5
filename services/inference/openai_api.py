"""OpenAI's shapes for transcriptions: what may be asked, what is answered, how errors look. No work is done here."""

import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from k2d.errors import AudioError, BadRequest, K2DError
from k2d.schema import AUTO, DecodeOptions, LongformOptions, Segment, join_text
from k2d.settings import Settings
from services.inference.subtitles import srt, vtt

MAX_PROMPT = 8192  # characters; the model reads the first 223 tokens
GRANULARITIES = "timestamp_granularities"
INVALID = "invalid_request_error"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "enum": [INVALID, "server_error"]},
                "param": {"type": "string", "nullable": True},
                "code": {"type": "string"},
            },
        }
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {"application/json": {"schema": SCHEMA}}}
    for status, words in ((400, "The request or the file is no good"), (503, "Not now"), (504, "Too late"))
}


class Asked(BaseModel):
    """The fields of the form but the file. What OpenAI knows and this server cannot do is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("", description="Any name: a server has one model; the header `k2d-model` says which.")
    language: str | None = Field(None, description="`zh-en` (mixed), `auto`, or a Whisper code; default K2D_LANGUAGE.")
    prompt: str = Field("", max_length=MAX_PROMPT, description="Terms and style, put before each window's text.")
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    temperature: float = Field(0.0, ge=0, le=1, description="First temperature; worse results fall back to higher.")
    timestamp_granularities: tuple[Literal["segment"], ...] = Field(
        (), description="`segment`, with verbose_json; there are no word timestamps."
    )
    stream: bool = Field(False, description="Server-sent events, a segment each; with json or text.")
    chunking_strategy: Literal["auto"] = Field("auto", description="How a recording is cut is the server's choice.")

    @classmethod
    def of(cls, fields: Sequence[tuple[str, str]]) -> "Asked":
        """What a form asks for.

        Raises:
            BadRequest: an unknown or impossible field, with `param` naming it.
        """
        given: dict[str, Any] = {}
        for name, value in fields:
            name = name.removesuffix("[]")
            if name == GRANULARITIES:
                given[name] = (*given.get(name, ()), value)
            elif name in given:
                raise BadRequest(f"{name} is given twice", hint="give it once", param=name)
            elif value or name not in ("language", "model", "prompt"):  # clients send empty fields for "not set"
                given[name] = value
        try:
            asked = cls.model_validate(given)
        except ValidationError as error:
            raise _unfit(error) from error
        if asked.timestamp_granularities and asked.response_format != "verbose_json":
            raise BadRequest(
                f"{GRANULARITIES} needs response_format=verbose_json", hint="or leave it out", param=GRANULARITIES
            )
        if asked.stream and asked.response_format not in ("json", "text"):
            raise BadRequest(
                f"{asked.response_format} cannot be streamed", hint="stream json, or do not stream", param="stream"
            )
        return asked

    def longform(self, settings: Settings) -> LongformOptions:
        """How the recording is transcribed. Temperature fallback starts at the one asked for."""
        default = DecodeOptions()
        higher = (t for t in default.temperatures if t > self.temperature)
        decode = DecodeOptions(
            language=(self.language or settings.language).lower(),
            temperatures=(self.temperature, *higher),
            initial_prompt=self.prompt or None,
        )
        return LongformOptions(
            decode=decode, condition_on_previous_text=settings.condition_on_previous_text, vad=settings.vad
        )


def form_schema() -> dict[str, Any]:
    """The multipart form for OpenAPI."""
    file = {"type": "string", "format": "binary", "description": "Audio or video in any common format."}
    properties = {"file": file, **Asked.model_json_schema()["properties"]}
    schema = {"type": "object", "required": ["file"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


# ---- answers ------------------------------------------------------------------------------------------------------


def rendered(asked: Asked, segments: Sequence[Segment], *, language: str, duration_s: float) -> Response:
    """The whole transcription in the format that was asked for."""
    text = join_text(segment.text for segment in segments)
    if asked.response_format == "text":
        return Response(text + "\n", media_type="text/plain")
    if asked.response_format == "srt":
        return Response(srt(segments), media_type="text/plain")
    if asked.response_format == "vtt":
        return Response(vtt(segments), media_type="text/vtt")
    usage = {"type": "duration", "seconds": math.ceil(duration_s)}
    if asked.response_format == "json":
        return JSONResponse({"text": text, "usage": usage})
    return JSONResponse(
        {
            "task": "transcribe",
            "language": heard(segments, language),
            "duration": duration_s,
            "text": text,
            "segments": [_segment(number, segment) for number, segment in enumerate(segments)],
            "usage": usage,
        }
    )


def heard(segments: Sequence[Segment], language: str) -> str:
    """The language: as asked, or the one that most seconds were heard in."""
    if language != AUTO:
        return language
    seconds: dict[str, float] = {}
    for segment in segments:
        seconds[segment.language] = seconds.get(segment.language, 0.0) + segment.end_s - segment.start_s
    return max(seconds, key=lambda code: seconds[code], default=AUTO)


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(segment.start_s * 100),  # Whisper's unit, 10 ms
        "start": segment.start_s,
        "end": segment.end_s,
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
        "language": segment.language,
    }


async def events(segments: AsyncIterator[Segment]) -> AsyncIterator[str]:
    """Server-sent events: a delta for each segment, then the whole text; the deltas joined are that text.

    An error on the way ends the stream with an event that says so: the status was sent long ago.
    """
    said, held = "", ""  # `held`: white space that belongs to the text only if more follows
    try:
        async for segment in segments:
            delta = held + segment.text
            delta = delta if said else delta.lstrip()
            held = delta[len(delta.rstrip()) :]
            if delta := delta.rstrip():
                said += delta
                yield _event({"type": "transcript.text.delta", "delta": delta})
        yield _event({"type": "transcript.text.done", "text": said})
    except K2DError as error:
        yield _event(error_document(error))


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events that let go of everything in `stack` when they end, or when the client leaves."""

    def __init__(self, content: AsyncIterator[str], stack: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"Cache-Control": "no-cache", **headers})
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


# ---- errors -------------------------------------------------------------------------------------------------------


class OpenAIRoute(APIRoute):
    """A route whose errors have OpenAI's shape; they keep the house's codes, and hints follow the message."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except K2DError as error:
                return refusal(error)
            except HTTPException as error:  # the form cannot be parsed
                return refusal(BadRequest(str(error.detail), hint="send multipart/form-data with one file"))

        return answered


def refusal(error: K2DError) -> JSONResponse:
    """The response for an error; 503 says when to ask again."""
    status = 400 if isinstance(error, AudioError) else error.status
    after_s = error.details.get("retry_after_s", 10.0)
    headers = {"Retry-After": str(math.ceil(after_s))} if status == 503 else None
    return JSONResponse(error_document(error), status_code=status, headers=headers)


def error_document(error: K2DError) -> dict[str, Any]:
    """An error as OpenAI writes it."""
    bad_file = isinstance(error, AudioError)
    return {
        "error": {
            "message": f"{error.message} (hint: {error.hint})" if error.hint else error.message,
            "type": INVALID if bad_file or error.status < 500 else "server_error",
            "param": "file" if bad_file else error.details.get("param"),
            "code": str(error.reason) if isinstance(error, AudioError) else error.code,
        }
    }


def _unfit(error: ValidationError) -> BadRequest:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in Asked.model_fields:
        known = ", ".join(Asked.model_fields)
        return BadRequest(f"this server does not know {name!r}", hint=f"fields are: file, {known}", param=name)
    if name == GRANULARITIES:
        return BadRequest("there are no word timestamps here", hint="ask for segment", param=name)
    return BadRequest(f"{name}: {first['msg']}", hint="see docs/openai.md", param=name)
