"""OpenAI's shapes without a model: what a form may ask, deltas that add up, errors, and a recording's patience."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.errors import AudioError, BadRequest, K2DError, ModelError, Overloaded
from k2d.schema import DecodeOptions, Segment, Window, WindowResult
from k2d.settings import Settings
from services.inference.openai_api import Asked, error_document, events, heard, refusal, rendered
from services.inference.transcriptions import Turn, _place

SEGMENT = Segment(0.0, 1.5, " 你好", (1, 2), -0.2, 0.01, 0.9, 0.0, "zh")
SETTINGS = Settings(_env_file=None, language="zh-en", vad=True)


# ---- the form -----------------------------------------------------------------------------------------------------


def test_an_empty_form_means_the_servers_own_way() -> None:
    options = Asked.of([("model", "whisper-1"), ("language", ""), ("prompt", ""), ("stream", "false")]).longform(
        SETTINGS
    )
    assert options.decode == DecodeOptions(language="zh-en")
    assert options.vad
    assert not options.condition_on_previous_text


def test_what_is_asked_reaches_the_decoder() -> None:
    asked = Asked.of([("language", "EN"), ("prompt", "IKEA"), ("temperature", "0.5"), ("response_format", "srt")])
    decode = asked.longform(SETTINGS).decode
    assert (decode.language, decode.initial_prompt, decode.temperatures) == ("en", "IKEA", (0.5, 0.6, 0.8, 1.0))
    assert Asked.of([("temperature", "1")]).longform(SETTINGS).decode.temperatures == (1.0,)


def test_lists_come_with_and_without_brackets() -> None:
    for name in ("timestamp_granularities[]", "timestamp_granularities"):
        asked = Asked.of([(name, "segment"), ("response_format", "verbose_json")])
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
        Asked.of(fields)
    assert caught.value.details["param"] == param
    assert caught.value.hint


# ---- answers ------------------------------------------------------------------------------------------------------


def test_auto_reports_what_was_heard_longest() -> None:
    segments = [SEGMENT, replace(SEGMENT, start_s=1.5, end_s=4.0, language="en"), replace(SEGMENT, language="zh")]
    assert heard(segments, "auto") == "zh"
    assert heard(segments[:2], "auto") == "en"
    assert heard(segments, "zh-en") == "zh-en"
    assert heard([], "auto") == "auto"


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
    answer = rendered(Asked.of([("response_format", kind)]), [], language="auto", duration_s=2.2)
    assert (bytes(answer.body).decode(), answer.headers["content-type"]) == (body, media_type)


async def _stream(texts: Sequence[str], error: K2DError | None = None) -> list[dict[str, object]]:
    async def segments() -> AsyncIterator[Segment]:
        for text in texts:
            yield replace(SEGMENT, text=text)
        if error is not None:
            raise error

    return [json.loads(event.removeprefix("data: ")) async for event in events(segments())]


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
    assert refusal(bad).status_code == 400
    assert error_document(bad)["error"] == {
        "message": "cut off", "type": "invalid_request_error", "param": "file", "code": "truncated"
    }  # fmt: skip
    full = refusal(Overloaded("full", retry_after_s=2.3))
    assert (full.status_code, full.headers["Retry-After"]) == (503, "3")


# ---- patience -----------------------------------------------------------------------------------------------------


class Queue:
    """A micro-batcher's face: full at the calls it is told."""

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
        turn = Turn(queue, client="10.0.0.7", patience_s=patience_s)  # type: ignore[arg-type]
        window = Window(np.zeros(160, np.int16))
        return [(await turn.transcribe(window, DecodeOptions())).text for _ in range(count)]

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


def test_recordings_leave_half_of_the_places_to_single_windows() -> None:
    host = SimpleNamespace(admitted=0, settings=Settings(_env_file=None, max_waiting=2), batcher=Queue(set()))
    with _place(host), _place(host):  # type: ignore[arg-type]
        assert host.admitted == 2
        with pytest.raises(Overloaded) as caught, _place(host):  # type: ignore[arg-type]
            pass
        assert "retry_after_s" in caught.value.details
        assert host.admitted == 2
    assert host.admitted == 0
