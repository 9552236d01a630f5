"""The forms of OpenAI's transcription API: requests, answers, event streams and errors."""

import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from k2d.errors import AudioError, BadRequest, K2DError
from k2d.schema import AUTO, DecodeOptions, LongformOptions, Segment, join_text
from k2d.settings import Settings
from k2d.text.terms import parse_terms, terms_prompt
from services.inference.host import DRAIN_S
from services.inference.subtitles import srt, vtt
from services.web.problems import sendable

MAX_PROMPT: Final = 8192  # characters; the model reads the first 223 tokens
GRANULARITIES: Final = "timestamp_granularities"
INVALID: Final = "invalid_request_error"
PING_S: Final = 15  # between comments that keep proxies from closing a stream that waits for the engine

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "enum": [INVALID, "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": words, "content": {"application/json": {"schema": SCHEMA}}}
    for status, words in ((400, "The request or the file is wrong"), (503, "Overloaded"), (504, "Too late"))
}


class TranscriptionRequest(BaseModel):
    """The fields of the form except the file. What OpenAI has and this server cannot do is refused, not ignored."""

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
    def from_form(cls, fields: Sequence[tuple[str, str]]) -> "TranscriptionRequest":
        """The request that a form's fields make.

            TranscriptionRequest.from_form([("language", "zh-en"), ("response_format", "srt")])

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
            request = cls.model_validate(given)
        except ValidationError as error:
            raise _bad_field(error) from error
        if request.timestamp_granularities and request.response_format != "verbose_json":
            raise BadRequest(
                f"{GRANULARITIES} needs response_format=verbose_json", hint="or leave it out", param=GRANULARITIES
            )
        if request.stream and request.response_format not in ("json", "text"):
            raise BadRequest(
                f"{request.response_format} cannot be streamed", hint="stream json, or do not stream", param="stream"
            )
        return request

    def longform(self, settings: Settings) -> LongformOptions:
        """The options to transcribe with. Temperature fallback starts at the temperature that was asked for."""
        default = DecodeOptions()
        higher = (t for t in default.temperatures if t > self.temperature)
        language = (self.language or settings.language).lower()
        decode = DecodeOptions(
            language=language,
            beam_size=settings.beam_size,
            temperatures=(self.temperature, *higher),
            initial_prompt=self.prompt or terms_prompt(parse_terms(settings.terms), language=language),
        )
        return LongformOptions(
            decode=decode, condition_on_previous_text=settings.condition_on_previous_text, vad=settings.vad
        )


def form_schema() -> dict[str, Any]:
    """The multipart form for OpenAPI."""
    file = {"type": "string", "format": "binary", "description": "Audio or video in any common format."}
    properties = {"file": file, **TranscriptionRequest.model_json_schema()["properties"]}
    schema = {"type": "object", "required": ["file"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


# ---- answers ------------------------------------------------------------------------------------------------------


def render(request: TranscriptionRequest, segments: Sequence[Segment], *, language: str, duration_s: float) -> Response:
    """The whole transcription in the format that was asked for; `language` is the one it was decoded with."""
    text = join_text(segment.text for segment in segments)
    if request.response_format == "text":
        return Response(text + "\n", media_type="text/plain")
    if request.response_format == "srt":
        return Response(srt(segments), media_type="text/plain")
    if request.response_format == "vtt":
        return Response(vtt(segments), media_type="text/vtt")
    usage = {"type": "duration", "seconds": math.ceil(duration_s)}
    if request.response_format == "json":
        return JSONResponse({"text": text, "usage": usage})
    return JSONResponse(
        {
            "task": "transcribe",
            "language": main_language(segments, language),
            "duration": duration_s,
            "text": text,
            "segments": [_segment(number, segment) for number, segment in enumerate(segments)],
            "usage": usage,
        }
    )


def main_language(segments: Sequence[Segment], language: str) -> str:
    """The language as asked for; with `auto` the one that was detected for most seconds."""
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


# ---- event streams ------------------------------------------------------------------------------------------------


async def transcript_events(segments: AsyncIterator[Segment]) -> AsyncIterator[ServerSentEvent]:
    """A delta for each segment, then the whole text; the deltas joined are that text.

    An error ends the stream with an event that carries it: the status has been sent by then.
    """
    text, trailing = "", ""  # `trailing`: white space that belongs to the text only if more follows
    try:
        async for segment in segments:
            delta = trailing + segment.text
            delta = delta if text else delta.lstrip()
            trailing = delta[len(delta.rstrip()) :]
            if delta := delta.rstrip():
                text += delta
                yield _event({"type": "transcript.text.delta", "delta": delta})
        yield _event({"type": "transcript.text.done", "text": text})
    except K2DError as error:
        yield _event(error_document(error))


def _event(document: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(document, ensure_ascii=False), sep="\n")


class TranscriptStream(EventSourceResponse):
    """An event stream that closes `stack` when it ends or the client leaves. At SIGTERM it may go on to its end."""

    def __init__(
        self, events: AsyncIterator[ServerSentEvent], stack: AsyncExitStack, headers: Mapping[str, str]
    ) -> None:
        super().__init__(
            events,
            headers={"Cache-Control": "no-cache", **headers},
            sep="\n",
            ping=PING_S,
            shutdown_grace_period=DRAIN_S,  # the library's default would cut streams at once
        )
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)


# ---- errors -------------------------------------------------------------------------------------------------------


class OpenAIRoute(APIRoute):
    """A route whose errors have OpenAI's form, with k2d's codes, and the hint after the message."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer_in_form(request: Request) -> Response:
            try:
                return await handler(request)
            except K2DError as error:
                return error_response(error)
            except HTTPException as error:  # the form cannot be parsed
                return error_response(BadRequest(str(error.detail), hint="send multipart/form-data with one file"))

        return answer_in_form


def error_response(error: K2DError) -> JSONResponse:
    """The response for an error; 503 says when to ask again."""
    status = 400 if isinstance(error, AudioError) else error.status
    after_s = error.details.get("retry_after_s", 10.0)
    headers = {"Retry-After": str(math.ceil(after_s))} if status == 503 else None
    return JSONResponse(sendable(error_document(error)), status_code=status, headers=headers)


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


def _bad_field(error: ValidationError) -> BadRequest:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in TranscriptionRequest.model_fields:
        known = ", ".join(TranscriptionRequest.model_fields)
        return BadRequest(f"unknown field: {name!r}", hint=f"fields are: file, {known}", param=name)
    if name == GRANULARITIES:
        return BadRequest("only segments have timestamps, words have none", hint="ask for segment", param=name)
    return BadRequest(f"{name}: {first['msg']}", hint="see docs/openai.md", param=name)
