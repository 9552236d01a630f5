"""OpenAI's API without a model: what a form may ask, answers, event streams, errors, and a recording's patience."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from starlette.types import Message

from k2d.errors import AudioError, BadRequest, K2DError, ModelError, Overloaded
from k2d.schema import DecodeOptions, Segment, Window, WindowResult
from k2d.settings import Settings
from services.inference import openai_api
from services.inference.openai_api import (
    TranscriptionRequest,
    TranscriptStream,
    error_document,
    error_response,
    main_language,
    render,
    transcript_events,
)
from services.inference.transcriptions import PatientTranscriber

SEGMENT = Segment(0.0, 1.5, " 你好", (1, 2), -0.2, 0.01, 0.9, 0.0, "zh")
SETTINGS = Settings(_env_file=None, language="zh-en", vad=True)


# ---- the form -----------------------------------------------------------------------------------------------------


def test_an_empty_form_means_the_servers_own_way() -> None:
    options = TranscriptionRequest.from_form(
        [("model", "whisper-1"), ("language", ""), ("prompt", ""), ("stream", "false")]
    ).longform(SETTINGS)
    assert options.decode == DecodeOptions(language="zh-en", beam_size=5)
    assert options.vad
    assert not options.condition_on_previous_text


def test_what_is_asked_reaches_the_decoder() -> None:
    asked = TranscriptionRequest.from_form(
        [("language", "EN"), ("prompt", "IKEA"), ("temperature", "0.5"), ("response_format", "srt")]
    )
    decode = asked.longform(SETTINGS).decode
    assert (decode.language, decode.initial_prompt, decode.temperatures) == ("en", "IKEA", (0.5, 0.6, 0.8, 1.0))
    assert TranscriptionRequest.from_form([("temperature", "1")]).longform(SETTINGS).decode.temperatures == (1.0,)


def test_terms_of_the_settings_are_the_prompt_of_requests_without_one() -> None:
    settings = SETTINGS.model_copy(update={"terms": "NTU COOL, loss"})
    prompts = [
        TranscriptionRequest.from_form(form).longform(settings).decode.initial_prompt
        for form in ([], [("language", "en")], [("prompt", "IKEA")])
    ]
    assert prompts == ["這段錄音會提到：NTU COOL、loss。", "NTU COOL, loss", "IKEA"]


def test_lists_come_with_and_without_brackets() -> None:
    for name in ("timestamp_granularities[]", "timestamp_granularities"):
        asked = TranscriptionRequest.from_form([(name, "segment"), ("response_format", "verbose_json")])
        assert asked.timestamp_granularities == ("segment",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("language", "en"), ("language", "zh")], "language"),
        ([("temperature", "nan")], "temperature"),
        ([("temperature", "warm")], "temperature"),
        ([("temperature", "")], "temperature"),
        ([("stream", "perhaps")], "stream"),
        ([("chunking_strategy", '{"type": "server_vad"}')], "chunking_strategy"),
        (
            [("timestamp_granularities[]", name) for name in ("segment", "word")]
            + [("response_format", "verbose_json")],
            "timestamp_granularities",
        ),
    ],
)
def test_impossible_fields_are_named(fields: Sequence[tuple[str, str]], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        TranscriptionRequest.from_form(fields)
    assert caught.value.details["param"] == param
    assert caught.value.hint


# ---- answers ------------------------------------------------------------------------------------------------------


def test_auto_reports_the_language_of_most_seconds() -> None:
    segments = [SEGMENT, replace(SEGMENT, start_s=1.5, end_s=4.0, language="en"), replace(SEGMENT, language="zh")]
    assert main_language(segments, "auto") == "zh"
    assert main_language(segments[:2], "auto") == "en"
    assert main_language(segments, "zh-en") == "zh-en"
    assert main_language([], "auto") == "auto"


@pytest.mark.parametrize(
    ("kind", "body", "media_type"),
    [
        ("json", '{"text":"","usage":{"type":"duration","seconds":3}}', "application/json"),
        ("text", "\n", "text/plain; charset=utf-8"),
        ("srt", "", "text/plain; charset=utf-8"),
        ("vtt", "WEBVTT\n\n", "text/vtt; charset=utf-8"),
    ],
)
def test_nothing_said_is_an_answer_too(kind: str, body: str, media_type: str) -> None:
    answer = render(TranscriptionRequest.from_form([("response_format", kind)]), [], language="auto", duration_s=2.2)
    assert (bytes(answer.body).decode(), answer.headers["content-type"]) == (body, media_type)


async def _stream(texts: Sequence[str], error: K2DError | None = None) -> list[dict[str, object]]:
    async def segments() -> AsyncIterator[Segment]:
        for text in texts:
            yield replace(SEGMENT, text=text)
        if error is not None:
            raise error

    return [json.loads(event.data) async for event in transcript_events(segments())]


@given(st.lists(st.text(alphabet=" \n我ab。", max_size=6), max_size=8))
def test_deltas_add_up_to_the_text(texts: list[str]) -> None:
    *deltas, done = asyncio.run(_stream(texts))
    assert done == {"type": "transcript.text.done", "text": "".join(texts).strip()}
    assert "".join(str(event["delta"]) for event in deltas) == done["text"]
    assert all(event["delta"] for event in deltas)


def test_an_error_on_the_way_is_the_last_event() -> None:
    *deltas, last = asyncio.run(_stream([" 你好"], ModelError("out of memory", hint="buy more")))
    assert [event["delta"] for event in deltas] == ["你好"]
    assert last == {
        "error": {
            "message": "out of memory (hint: buy more)",
            "type": "server_error",
            "param": None,
            "code": "model_unavailable",
        }
    }


def test_a_bad_file_is_the_clients_fault_and_a_full_server_says_when() -> None:
    bad = AudioError("cut off", reason="truncated")
    assert error_response(bad).status_code == 400
    assert error_document(bad)["error"] == {
        "message": "cut off", "type": "invalid_request_error", "param": "file", "code": "truncated"
    }  # fmt: skip
    full = error_response(Overloaded("full", retry_after_s=2.3))
    assert (full.status_code, full.headers["Retry-After"]) == (503, "3")


# ---- event streams ------------------------------------------------------------------------------------------------


class Stream:
    """A transcript stream as a server runs it: what was sent, and what its stack released."""

    def __init__(self, segments: AsyncIterator[Segment]) -> None:
        self.body, self.released, self.disconnected = b"", 0, asyncio.Event()
        self.headers: dict[bytes, bytes] = {}
        self.pinged = asyncio.Event()
        stack = AsyncExitStack()
        stack.callback(self._release)
        self.response = TranscriptStream(transcript_events(segments), stack, {"k2d-model": "a"})

    def _release(self) -> None:
        self.released += 1

    async def receive(self) -> Message:
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.headers |= dict(message.get("headers", []))
        self.body += message.get("body", b"")
        if self.body.count(b": ping") == 3:
            self.pinged.set()

    def run(self) -> "Stream":
        scope = {"type": "http", "method": "POST"}
        asyncio.run(asyncio.wait_for(self.response(scope, self.receive, self.send), 60))
        return self


async def _segments(texts: Sequence[str]) -> AsyncIterator[Segment]:
    for text in texts:
        yield replace(SEGMENT, text=text)


def test_events_are_the_bytes_that_openais_clients_read() -> None:
    stream = Stream(_segments([" 你好", " Kafka\u2028"])).run()
    assert stream.body.decode() == (
        'data: {"type": "transcript.text.delta", "delta": "你好"}\n\n'
        'data: {"type": "transcript.text.delta", "delta": " Kafka"}\n\n'
        'data: {"type": "transcript.text.done", "text": "你好 Kafka"}\n\n'
    )
    assert stream.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert (stream.headers[b"cache-control"], stream.headers[b"k2d-model"]) == (b"no-cache", b"a")
    assert stream.released == 1


def test_comments_while_the_engine_works_are_nothing_to_openais_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_api, "PING_S", 0.01)

    async def slow() -> AsyncIterator[Segment]:
        await stream.pinged.wait()
        yield SEGMENT

    stream = Stream(slow())
    stream.run()
    events = [json.loads(event.data) for event in SSEDecoder().iter_bytes(iter([stream.body]))]
    assert [event["type"] for event in events] == ["transcript.text.delta", "transcript.text.done"]


def test_a_client_that_leaves_ends_the_work_and_releases_what_the_stream_holds() -> None:
    ended = []

    async def endless() -> AsyncIterator[Segment]:
        try:
            yield SEGMENT
            stream.disconnected.set()
            await asyncio.sleep(600)
        finally:
            ended.append(True)

    stream = Stream(endless())
    stream.run()
    assert b"delta" in stream.body
    assert b"done" not in stream.body
    assert (ended, stream.released) == ([True], 1)


def test_a_client_that_left_before_the_first_event_releases_too() -> None:
    stream = Stream(_segments([" 你好"] * 100))
    stream.disconnected.set()
    assert stream.run().released == 1


def test_a_bug_in_the_stream_releases_too() -> None:
    async def broken() -> AsyncIterator[Segment]:
        yield SEGMENT
        raise ZeroDivisionError

    stream = Stream(broken())
    with pytest.raises(ZeroDivisionError):
        stream.run()
    assert stream.released == 1


# ---- patience -----------------------------------------------------------------------------------------------------


class Queue:
    """Stands for a micro-batcher whose queue is full at certain calls."""

    retry_after_s = 0.01

    def __init__(self, full_at: set[int]) -> None:
        self.calls, self.full_at, self.clients = 0, full_at, set[str]()

    async def transcribe(self, window: Window, options: DecodeOptions, *, client: str) -> WindowResult:
        self.calls += 1
        self.clients.add(client)
        if self.calls in self.full_at:
            raise Overloaded("full")
        return WindowResult(str(self.calls), (), (), None, -0.1, 0.0, 1.0, 0.0, "en")


def turns(queue: Queue, count: int, patience_s: float) -> list[str]:
    async def run() -> list[str]:
        transcriber = PatientTranscriber(queue, client="10.0.0.7", patience_s=patience_s)  # type: ignore[arg-type]
        window = Window(np.zeros(160, np.int16))
        return [(await transcriber.transcribe(window, DecodeOptions())).text for _ in range(count)]

    return asyncio.run(run())


def test_a_full_queue_refuses_a_recording_at_its_first_window_only() -> None:
    with pytest.raises(Overloaded):
        turns(Queue({1}), 1, patience_s=10)
    queue = Queue({2, 3, 5})
    assert turns(queue, 3, patience_s=10) == ["1", "4", "6"]
    assert queue.clients == {"10.0.0.7"}


def test_patience_ends() -> None:
    with pytest.raises(Overloaded):
        turns(Queue(set(range(2, 1000))), 2, patience_s=0.05)
