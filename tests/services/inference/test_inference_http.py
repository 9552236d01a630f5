"""The FastAPI host as a process, with real weights: the same texts, clear refusals, and what happens when it dies."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from servers import Server, serve
from weights import open_base

from k2d.errors import BadRequest, ModelError, TryAgain
from k2d.inference import golden
from k2d.inference.batcher import MicroBatcher
from k2d.inference.http_endpoint import HttpEndpoint
from k2d.inference.open import open_transcriber
from k2d.inference.remote import connect
from k2d.inference.wire import Head, pack
from k2d.schema import DecodeOptions, Samples, Window
from k2d.settings import load

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

TOKEN = "a-token-for-tests"
GREEDY = DecodeOptions(temperatures=(0.0,))
SHORT = DecodeOptions(temperatures=(0.0,), max_new_tokens=4, without_timestamps=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = serve(tmp_path_factory.mktemp("server") / "log", api_token=TOKEN, max_waiting=8, batch_size=4)
    yield server
    assert server.stop() == 0


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
        yield client


def samples(seconds: float = 1.0) -> Samples:
    return np.random.default_rng(7).integers(-3000, 3000, int(16_000 * seconds)).astype(np.int16)


def clip() -> Samples:
    return golden.windows()[0][0].samples


async def test_the_same_windows_give_the_same_results_as_in_process(server: Server) -> None:
    remote = await open_transcriber(server.url, load(api_token=TOKEN))
    local = MicroBatcher(open_base(), batch_size=4)
    windows = [window for window, _ in golden.windows()] + [Window(samples()), Window(clip(), prompt=(1219, 3503))]
    assert remote.model.fingerprint == local.model.fingerprint
    for options in (GREEDY, DecodeOptions(language="auto", initial_prompt="今天 review")):
        ours = await asyncio.gather(*(local.transcribe(window, options) for window in windows))
        theirs = await asyncio.gather(*(remote.transcribe(window, options) for window in windows))
        assert theirs == ours
    score = await local.score(windows[0], "我週末想要去 IKEA", GREEDY)
    assert await remote.score(windows[0], "我週末想要去 IKEA", GREEDY) == score  # type: ignore[attr-defined]
    await remote.close()
    await local.close()


async def test_windows_of_many_clients_meet_in_one_engine_call(server: Server) -> None:
    before = server.metric("k2d_batch_size_sum"), server.metric("k2d_batch_size_count")
    pair = [await open_transcriber(server.url, load(api_token=TOKEN)) for _ in range(2)]
    windows = [Window(samples(seconds)) for seconds in (1.0, 2.5, 0.5, 30.0)]  # of any length
    await asyncio.gather(*(remote.transcribe(window, SHORT) for remote in pair for window in windows))
    windows_done = server.metric("k2d_batch_size_sum") - before[0]
    calls = server.metric("k2d_batch_size_count") - before[1]
    assert windows_done == 8
    assert calls <= 4
    for remote in pair:
        await remote.close()


def test_it_says_what_it_is(http: httpx.Client) -> None:
    ready = http.get("/readyz").json()
    assert ready["status"] == "ok"
    assert "要不要一起去" in ready["golden"]
    assert http.get("/v1/model").json()["fingerprint"] == ready["fingerprint"]
    assert http.get("/healthz").json()["status"] == "ok"
    assert {"/v1/windows:transcribe", "/v1/score"} <= set(http.get("/openapi.json").json()["paths"])


def test_the_token_is_asked_for_but_not_by_probes(server: Server) -> None:
    assert httpx.get(server.url + "/readyz").status_code == 200
    assert httpx.get(server.url + "/v1/model").status_code == 401
    with pytest.raises(ModelError, match="bearer token"):
        asyncio.run(_connected(server.url, token="another"))


async def _connected(url: str, *, token: str | None) -> None:
    await connect([HttpEndpoint(url, token=token)], timeout_s=5, patience_s=0)


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, "no head"),
        (b"{}\n", 400, "no samples"),
        (b"{}\n\x00\x00\x00", 400, "no whole number of int16 samples"),
        (b"{}\n" + bytes(2 * 31 * 16_000), 400, "31.0 s of audio; a window has at most 30 s"),
        (b'{"options": {"langauge": "zh"}}\n\x00\x00', 400, "unknown option: langauge"),
        (b'{"options": {"language": "klingon"}}\n\x00\x00', 400, "unknown language"),
        (b'{"options": {"temperatures": []}}\n\x00\x00', 400, "impossible temperatures"),
        (b'{"prompt": [99999999]}\n\x00\x00', 400, "prompt token"),
        (b"{}\n" + bytes(4_000_000), 413, "larger than"),
    ],
)
def test_bad_input_gets_a_clear_error(http: httpx.Client, body: bytes, status: int, why: str) -> None:
    answer = http.post("/v1/windows:transcribe", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert why in answer.json()["detail"]
    assert answer.json()["hint"]


def test_scoring_needs_a_text_and_room_for_it(http: httpx.Client) -> None:
    assert "which text" in http.post("/v1/score", content=pack(Head(), samples())).json()["detail"]
    endless = http.post("/v1/score", content=pack(Head(text="重複 " * 900), samples()))
    assert endless.status_code == 400, endless.text


def test_silence_is_no_error(http: httpx.Client) -> None:
    answer = http.post("/v1/windows:transcribe", content=pack(Head(options=GREEDY), np.zeros(16_000, np.int16)))
    assert answer.status_code == 200
    assert answer.json()["no_speech_prob"] > 0


def test_a_bad_window_leaves_its_neighbours_alone(http: httpx.Client) -> None:
    good = pack(Head(options=GREEDY), clip())
    bad = b'{"options": {"language": "klingon"}}\n\x00\x00'
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: http.post("/v1/windows:transcribe", content=body), (good, bad, good, bad)))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400]
    assert "要不要一起去" in answers[0].json()["text"]


def test_a_deadline_ends_the_waiting(http: httpx.Client) -> None:
    started = time.monotonic()
    answer = http.post("/v1/windows:transcribe", content=pack(Head(options=GREEDY, timeout_s=0.02), samples(30.0)))
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - started < 1.0


def test_a_client_that_leaves_takes_its_windows_along(server: Server, http: httpx.Client) -> None:
    wait_idle(server)
    before = server.metric("k2d_batch_size_sum")
    # full fallback: long work; never the same window, whose encoder output would be remembered
    bodies = [pack(Head(), np.roll(samples(30.0), 1000 * n)) for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        gone = [pool.submit(_leave_early, server.url, body) for body in bodies]
        assert all(isinstance(one.exception(), httpx.TimeoutException) for one in gone)
    wait_idle(server)
    assert server.metric("k2d_batch_size_sum") - before <= 6  # what the engine had begun; the rest was never decoded
    assert http.post("/v1/windows:transcribe", content=pack(Head(options=SHORT), samples())).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(server: Server) -> None:
    before, left = len(server.log.read_text()), clients_that_left(server)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/windows:transcribe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\n{{}}\n".encode() + bytes(5000))
    deadline = time.monotonic() + 10
    while clients_that_left(server) == left:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "error" not in server.log.read_text()[before:]


def clients_that_left(server: Server) -> float:
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if "k2d_http_requests_total" in line and 'status="499"' in line
    )


def _leave_early(url: str, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    httpx.post(url + "/v1/windows:transcribe", content=body, headers=headers, timeout=0.4)


def wait_idle(server: Server) -> None:
    deadline = time.monotonic() + 120
    while server.metric("k2d_waiting") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_a_thousand_at_once_are_answered_or_told_when_to_come_back(server: Server) -> None:
    body = pack(Head(options=SHORT), samples(0.5))
    limits = httpx.Limits(max_connections=1000)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=120, headers=headers) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/windows:transcribe", content=body) for _ in range(1000)), return_exceptions=True
        )
    codes = [answer.status_code if isinstance(answer, httpx.Response) else repr(answer) for answer in answers]
    assert set(codes) == {200, 503}
    refused = next(a for a in answers if isinstance(a, httpx.Response) and a.status_code == 503)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["code"] == "overloaded"
    assert server.metric("k2d_refused_total") >= codes.count(503)


async def test_all_arrive_through_a_queue_that_is_too_small(server: Server) -> None:
    """What a full queue refuses comes again, until it is done."""
    remote = await open_transcriber(server.url, load(api_token=TOKEN, server_patience_s=5))
    results = await asyncio.gather(*(remote.transcribe(Window(samples(0.5)), SHORT) for _ in range(24)))
    assert len({result.text for result in results}) == 1
    assert remote.refusals > 0  # type: ignore[attr-defined]
    await remote.close()


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that a test may kill."""
    server = serve(tmp_path_factory.mktemp("other") / "log", api_token=TOKEN, idle_unload_s=1)
    yield server
    server.stop()


async def test_killed_in_the_middle_of_a_batch_the_work_goes_on_elsewhere_and_there_again(
    server: Server, other: Server
) -> None:
    remote = await open_transcriber(f"{server.url},{other.url}", load(api_token=TOKEN, server_patience_s=60))
    calls = [asyncio.create_task(remote.transcribe(Window(samples(30.0)), GREEDY)) for _ in range(6)]
    await asyncio.sleep(0.5)
    other.kill()
    results = await asyncio.gather(*calls)
    assert len({result.tokens for result in results}) == 1
    await remote.close()

    other.restart()
    other.wait_ready()
    alone = await open_transcriber(other.url, load(api_token=TOKEN, server_patience_s=60))
    call = asyncio.create_task(alone.transcribe(Window(samples(30.0)), GREEDY))
    await asyncio.sleep(0.3)
    other.kill()
    await asyncio.sleep(0.5)
    other.restart()
    assert (await call).tokens == results[0].tokens
    await alone.close()
    weights_are_put_away_when_idle(other)
    sigterm_lets_what_is_in_flight_finish(other)


def weights_are_put_away_when_idle(other: Server) -> None:
    deadline = time.monotonic() + 20
    while other.metric("k2d_model_loaded") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert httpx.get(other.url + "/readyz").status_code == 200
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = pack(Head(options=GREEDY), clip())
    answer = httpx.post(other.url + "/v1/windows:transcribe", content=body, headers=headers, timeout=60)
    assert "要不要一起去" in answer.json()["text"]


def sigterm_lets_what_is_in_flight_finish(other: Server) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = pack(Head(options=GREEDY), samples(30.0))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(httpx.post, other.url + "/v1/windows:transcribe", content=body, headers=headers, timeout=60)
        time.sleep(0.2)
        other.process.send_signal(signal.SIGTERM)
        assert call.result().status_code == 200
    assert other.stop() == 0


async def test_a_server_that_hangs_is_given_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    validator = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = validator.sockets[0].getsockname()[1]
    endpoint = HttpEndpoint(f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(TryAgain):
        await endpoint.call(Head(), samples(), timeout_s=0.3)
    assert time.monotonic() - started < 2
    await endpoint.close()
    validator.close()


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", TryAgain, "HTTP 502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", ModelError, "not as an inference server"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ModelError, "HTTP 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{", TryAgain, ""),  # cut off in the middle
        (b"", TryAgain, ""),  # closed without a word
        (b"what?\r\n\r\n", TryAgain, ""),
    ],
)
async def test_whatever_answers_instead_is_an_error_with_a_reason(
    answer: bytes, error: type[Exception], why: str
) -> None:
    async def somebody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    validator = await asyncio.start_server(somebody, "127.0.0.1", 0)
    endpoint = HttpEndpoint(f"http://127.0.0.1:{validator.sockets[0].getsockname()[1]}")
    with pytest.raises(error, match=why):
        await endpoint.call(Head(), samples(0.01), timeout_s=5)
    await endpoint.close()
    validator.close()


async def test_a_refused_request_is_the_callers_fault_and_not_tried_again(server: Server) -> None:
    remote = await open_transcriber(server.url, load(api_token=TOKEN))
    with pytest.raises(BadRequest, match="unknown language"):
        await remote.transcribe(Window(samples()), DecodeOptions(language="klingon"))
    assert remote.retries == 0  # type: ignore[attr-defined]
    await remote.close()
