"""The client of OpenAI's transcription endpoint, against a scripted server on this machine: faults that real servers
show only when they are overloaded or broken. Real servers: tests/k2d/validators/test_openai_validator.py."""

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
import soundfile

from k2d.errors import BadRequest, ModelError
from k2d.inference import openai_endpoint
from k2d.inference.openai_endpoint import OpenAIEndpoint, OpenAIModel, key_of, parse

SAMPLES = np.zeros(16_000, np.int16)
KEY = "sk-a-secret"
OK = (200, {}, {"text": " 我們 use Kafka \n"})
Answer = tuple[int, dict[str, str], object]


class Script:
    """A server that gives these answers in turn, the last one for ever, and remembers the requests."""

    def __init__(self, *answers: Answer, models: Callable[[int], Answer] = lambda _: (404, {}, {})) -> None:
        self.answers, self.models = list(answers), models
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.in_flight = self.most_in_flight = 0
        self.hold_s = 0.0
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def do_GET(self) -> None:
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                with lock:
                    script.in_flight += 1
                    script.most_in_flight = max(script.most_in_flight, script.in_flight)
                    script.requests.append((self.path, dict(self.headers), body))
                    posts = sum(path.endswith("transcriptions") for path, *_ in script.requests)
                    lists = len(script.requests) - posts
                if self.path.endswith("/models"):
                    status, headers, document = script.models(lists)
                else:
                    status, headers, document = script.answers[min(posts, len(script.answers)) - 1]
                time.sleep(script.hold_s)
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                with lock:
                    script.in_flight -= 1

            def log_message(self, *_: object) -> None:
                return None

        script = self
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def model(self) -> OpenAIModel:
        return parse(f"http://127.0.0.1:{self.server.server_port}/v1#small")

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(*answers: Answer, **options: object) -> Script:
        scripts.append(Script(*answers, **options))  # type: ignore[arg-type]
        return scripts[-1]

    yield start
    for script in scripts:
        script.stop()


def ask(script: Script, *, times: int = 1, key: str | None = None, language: str | None = None, **options) -> list[str]:
    async def run() -> list[str]:
        endpoint = OpenAIEndpoint(script.model, key=key, **{"timeout_s": 10.0, "patience_s": 20.0, **options})
        try:
            return await asyncio.gather(*(endpoint.transcribe(SAMPLES, language=language) for _ in range(times)))
        finally:
            await endpoint.close()

    return asyncio.run(run())


def version(script: Script) -> dict[str, object]:
    async def run() -> dict[str, object]:
        endpoint = OpenAIEndpoint(script.model, timeout_s=10.0, patience_s=5.0)
        try:
            return await endpoint.version()
        finally:
            await endpoint.close()

    return asyncio.run(run())


# ---- references and keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "base_url", "name"),
    [
        ("http://gpu1:8000/v1#whisper-1", "http://gpu1:8000/v1", "whisper-1"),
        ("https://API.openai.com/v1/#gpt-4o-transcribe", "https://api.openai.com/v1", "gpt-4o-transcribe"),
        ("http://[::1]:8000/v1#iic/SenseVoiceSmall", "http://[::1]:8000/v1", "iic/SenseVoiceSmall"),
        ("http://a/x/v1#small%2Bfast", "http://a/x/v1", "small+fast"),
        ("http://a#org/model:tag", "http://a", "org/model:tag"),
    ],
)
def test_a_reference_is_a_url_and_a_model(reference: str, base_url: str, name: str) -> None:
    assert parse(reference) == OpenAIModel(base_url, name)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "whisper-1",
        "http://a/v1",
        "http://a/v1#",
        "ftp://a/v1#m",
        "file:///etc/passwd#m",
        "http:///v1#m",
        "http://a:port/v1#m",
        "http://a:0/v1#m",
        "http://a /v1#m",
        "http://a/v1#m\nHost: b",
        "http://a\\@b/v1#m",
        "http://user@a/v1#m",
        "http://user:key@a/v1#m",
        "http://a/v1?key=k#m",
    ],
)
def test_what_is_no_endpoint_is_refused_without_repeating_a_key(reference: str) -> None:
    with pytest.raises(BadRequest) as error:
        parse(reference)
    assert error.value.hint
    assert "key@" not in error.value.message


def test_a_key_goes_to_its_host_and_port_only() -> None:
    keys = f"api.openai.com={KEY}, 127.0.0.1:8000=other="
    assert key_of("api.openai.com", keys) == KEY
    assert key_of("127.0.0.1:8000", keys) == "other="
    for host in ("api.openai.com:8000", "127.0.0.1", "evil.api.openai.com", "api.openai.com.evil"):
        assert key_of(host, keys) is None
    with pytest.raises(BadRequest) as error:
        key_of("a", f"a=b,{KEY}")
    assert KEY not in str(error.value)


# ---- requests -----------------------------------------------------------------------------------------------------


def test_a_request_has_the_audio_the_model_and_the_key(scripted) -> None:
    script = scripted(OK)
    assert ask(script, key=KEY, language="en") == ["我們 use Kafka"]
    ((path, headers, body),) = script.requests
    assert path == "/v1/audio/transcriptions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    for field in (
        b'name="model"\r\n\r\nsmall\r\n',
        b'name="language"\r\n\r\nen\r\n',
        b'name="temperature"\r\n\r\n0\r\n',
    ):
        assert field in body
    start = body.index(b"RIFF")
    sound, rate = soundfile.read(io.BytesIO(body[start:]), dtype="int16", frames=len(SAMPLES))
    assert (rate, len(sound)) == (16_000, len(SAMPLES))


def test_without_a_language_or_key_none_is_sent(scripted) -> None:
    script = scripted(OK)
    ask(script)
    ((_, headers, body),) = script.requests
    assert "Authorization" not in headers
    assert b'name="language"' not in body


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504, 500])
def test_what_may_pass_is_tried_again(scripted, status: int) -> None:
    script = scripted((status, {}, {"error": {"message": "busy"}}), OK)
    assert ask(script) == ["我們 use Kafka"]
    assert len(script.requests) == 2


def test_a_lost_server_is_given_up_after_the_patience(scripted) -> None:
    script = scripted(OK)
    script.stop()
    with pytest.raises(ModelError, match="no answer within 0 s") as error:
        ask(script, patience_s=0.0)
    assert script.model.base_url in error.value.message
    assert "K2D_SERVER_PATIENCE_S" in str(error.value.hint)


def test_an_answer_that_does_not_come_is_a_timeout(scripted) -> None:
    script = scripted(OK)
    script.hold_s = 1.0
    with pytest.raises(ModelError, match="no answer within"):
        ask(script, timeout_s=0.2, patience_s=0.0)


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_waited_for_by_every_request(scripted, date: bool) -> None:
    wait = formatdate(time.time() + 2, usegmt=True) if date else "1"
    script = scripted((429, {"Retry-After": wait}, {}), OK)
    started = time.monotonic()
    assert ask(script, times=3, concurrency=1) == ["我們 use Kafka"] * 3
    assert time.monotonic() - started >= 0.9
    assert len(script.requests) == 4


def test_a_wait_beyond_the_patience_is_not_waited_for(scripted) -> None:
    script = scripted((429, {"Retry-After": "3600"}, {"error": {"message": "rate limit"}}))
    with pytest.raises(ModelError, match=r"rate limit.*asks to wait 3600 s"):
        ask(script, patience_s=5.0)
    assert len(script.requests) == 1


def test_a_server_that_fails_at_one_chunk_is_not_asked_for_ever(scripted) -> None:
    script = scripted((500, {}, {"error": {"message": "CUDA error"}}))
    with pytest.raises(ModelError, match="HTTP 500: CUDA error"):
        ask(script)
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), "the key is refused"),
        ((403, {}, {}), "the key is refused"),
        ((404, {}, {"error": {"message": "no model small"}}), "404: no model small"),
        ((400, {}, {"detail": f"bad {KEY}"}), "400: bad …"),
        ((422, {}, {"detail": [{"loc": ["file"]}]}), "HTTP 422"),
        ((429, {}, {"error": {"message": "no credit", "code": "insufficient_quota"}}), "no credit"),
        ((200, {}, b"<html>"), "not as OpenAI's transcription endpoint"),
        ((200, {}, {"text": None}), "not as OpenAI's transcription endpoint"),
        ((200, {}, ["text"]), "not as OpenAI's transcription endpoint"),
    ],
)
def test_what_will_not_pass_says_what_to_do_and_never_the_key(scripted, answer: Answer, message: str) -> None:
    script = scripted(answer)
    with pytest.raises(ModelError, match=message) as error:
        ask(script, key=KEY)
    assert len(script.requests) == 1
    assert error.value.hint
    assert KEY not in f"{error.value} {error.value.hint} {error.value.details}"


def test_a_redirect_is_not_followed(scripted) -> None:
    elsewhere = scripted(OK)
    location = f"{elsewhere.model.base_url}/audio/transcriptions"
    script = scripted((307, {"Location": location}, {}))
    with pytest.raises(ModelError, match="redirects elsewhere"):
        ask(script, key=KEY)
    assert not elsewhere.requests


def test_requests_in_flight_are_bounded(scripted) -> None:
    script = scripted(OK)
    script.hold_s = 0.05
    ask(script, times=12, concurrency=3)
    assert script.most_in_flight <= 3
    assert len(script.requests) == 12


def test_audio_shorter_than_servers_take_is_padded(scripted) -> None:
    script = scripted(OK)

    async def run() -> None:
        endpoint = OpenAIEndpoint(script.model, timeout_s=10.0, patience_s=0.0)
        await endpoint.transcribe(np.ones(100, np.int16))
        await endpoint.close()

    asyncio.run(run())
    body = script.requests[0][2]
    sound, _ = soundfile.read(io.BytesIO(body[body.index(b"RIFF") :]), dtype="int16", frames=1600)
    assert len(sound) == 1600
    assert sound.sum() == 100


# ---- versions -----------------------------------------------------------------------------------------------------


def listed(*entries: dict[str, object]) -> Callable[[int], Answer]:
    return lambda _: (200, {}, {"object": "list", "data": list(entries)})


SMALL = {"id": "small", "object": "model", "owned_by": "us", "digest": "sha256:1"}


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (listed(SMALL, {"id": "large", "digest": "sha256:2"}), {"owned_by": "us", "digest": "sha256:1"}),
        (listed({"id": "whatever", "digest": "sha256:3"}), {"digest": "sha256:3"}),  # the only one
        (listed({"id": "a"}, {"id": "b"}), {}),
        (
            listed({**SMALL, "created": 1_700_000_000}),
            {"owned_by": "us", "digest": "sha256:1", "created": 1_700_000_000},
        ),
        # the time of the request
        (lambda n: (200, {}, {"data": [{**SMALL, "created": n}]}), {"owned_by": "us", "digest": "sha256:1"}),
        (lambda _: (404, {}, {}), {}),
        (lambda _: (200, {}, b"hello"), {}),
        (lambda _: (200, {}, {"data": "none"}), {}),
    ],
)
def test_a_version_is_what_the_server_tells_and_what_stays(scripted, models, told) -> None:
    assert version(scripted(OK, models=models)) == told


@pytest.mark.parametrize("ahead_s", [-7200, 0, 7200])
def test_a_wait_until_a_date_is_reckoned_by_the_servers_clock(ahead_s: int) -> None:
    now = time.time() + ahead_s
    headers = {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now + 90, usegmt=True)}
    assert openai_endpoint._retry_after(httpx.Response(503, headers=headers)) == pytest.approx(90, abs=1)
