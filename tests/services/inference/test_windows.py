"""The FastAPI host as a process, with real weights: the same texts, clear refusals, and what happens when it dies."""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from lakes import flac
from places import EXAMPLES
from servers import AUTHORIZED, TOKEN, Server
from weights import open_base

from k2d.audio import blocks
from k2d.errors import BadRequest, ModelError
from k2d.inference import golden
from k2d.inference.batcher import MicroBatcher
from k2d.inference.http_endpoint import HttpEndpoint
from k2d.inference.open import open_transcriber
from k2d.inference.remote import connect
from k2d.inference.wire import Head, pack
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, Samples, Window
from k2d.settings import load

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

GREEDY = DecodeOptions(temperatures=(0.0,))
SHORT = DecodeOptions(temperatures=(0.0,), max_new_tokens=4, without_timestamps=True)
TRANSCRIBE = "/v1/windows:transcribe"


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=AUTHORIZED, timeout=120) as client:
        yield client


def samples(seconds: float = 1.0) -> Samples:
    return np.random.default_rng(7).integers(-3000, 3000, int(16_000 * seconds)).astype(np.int16)


def clip() -> Samples:
    return golden.windows()[0][0].samples


async def test_the_same_windows_give_the_same_results_as_in_process(server: Server) -> None:
    remote = await open_transcriber(server.url, load(api_token=TOKEN))
    local = MicroBatcher(open_base(), batch_size=4)
    speech = [window for window, _ in golden.windows()]
    assert remote.model.fingerprint == local.model.fingerprint
    for windows, options in (
        ([*speech, Window(clip(), prompt=(1219, 3503))], GREEDY),
        (speech[:1], DecodeOptions(language="auto", initial_prompt="今天 review")),
    ):
        ours = await asyncio.gather(*(local.transcribe(window, options) for window in windows))
        theirs = await asyncio.gather(*(remote.transcribe(window, options) for window in windows))
        assert theirs == ours
    score = await local.score(speech[0], "我週末想要去 IKEA", GREEDY)
    assert await remote.score(speech[0], "我週末想要去 IKEA", GREEDY) == score  # type: ignore[attr-defined]
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
    assert {TRANSCRIBE, "/v1/score"} <= set(http.get("/openapi.json").json()["paths"])


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
        (b"{}\n\x00\x00\x00", 400, "not a whole number of int16 samples"),
        (b"{}\n" + bytes(2 * 31 * 16_000), 400, "31.0 s of audio; a window has at most 30 s"),
        (b'{"options": {"langauge": "zh"}}\n\x00\x00', 400, "unknown option: langauge"),
        (b'{"options": {"language": "klingon"}}\n\x00\x00', 400, "unknown language"),
        (b'{"options": {"temperatures": []}}\n\x00\x00', 400, "impossible temperatures"),
        (b'{"prompt": [99999999]}\n\x00\x00', 400, "prompt token"),
        (b"{}\n" + bytes(4_000_000), 413, "larger than"),
    ],
)
def test_bad_input_gets_a_clear_error(http: httpx.Client, body: bytes, status: int, why: str) -> None:
    answer = http.post(TRANSCRIBE, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert why in answer.json()["detail"]
    assert answer.json()["hint"]


def test_scoring_needs_a_text_and_room_for_it(http: httpx.Client) -> None:
    assert "needs a text" in http.post("/v1/score", content=pack(Head(), samples())).json()["detail"]
    endless = http.post("/v1/score", content=pack(Head(text="重複 " * 900), samples()))
    assert endless.status_code == 400, endless.text


def test_silence_is_no_error(http: httpx.Client) -> None:
    answer = http.post(TRANSCRIBE, content=pack(Head(options=GREEDY), np.zeros(16_000, np.int16)))
    assert answer.status_code == 200
    assert answer.json()["no_speech_prob"] > 0


def test_a_bad_window_leaves_its_neighbours_alone(http: httpx.Client) -> None:
    good = pack(Head(options=GREEDY), clip())
    bad = b'{"options": {"language": "klingon"}}\n\x00\x00'
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: http.post(TRANSCRIBE, content=body), (good, bad, good, bad)))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400]
    assert "要不要一起去" in answers[0].json()["text"]


def test_a_deadline_ends_the_waiting(server: Server, http: httpx.Client) -> None:
    answer = http.post(TRANSCRIBE, content=pack(Head(options=GREEDY, timeout_s=0.02), samples(30.0)))
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    wait_idle(server)


def test_a_client_that_leaves_takes_its_windows_along(server: Server, http: httpx.Client) -> None:
    before = server.metric("k2d_batch_size_sum")
    # full fallback: long work; never the same window, whose encoder output would be remembered
    bodies = [pack(Head(), np.roll(samples(30.0), 1000 * n)) for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(_leave_early, server.url, body) for body in bodies]
        assert all(isinstance(call.exception(), httpx.TimeoutException) for call in calls)
    wait_idle(server)
    assert http.post(TRANSCRIBE, content=pack(Head(options=SHORT), samples())).status_code == 200
    # this one, and what the engine had begun; the rest was never decoded
    assert server.metric("k2d_batch_size_sum") - before <= 6 + 1


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(server: Server) -> None:
    logged, left = len(server.log.read_text()), clients_that_left(server)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST {TRANSCRIBE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\n{{}}\n".encode() + bytes(5000))
    server.wait_for(lambda: clients_that_left(server) > left, "an end of the request")
    assert "error" not in server.log.read_text()[logged:]


def clients_that_left(server: Server) -> float:
    return server.metric("k2d_http_requests_total", status=499)


def _leave_early(url: str, body: bytes) -> None:
    httpx.post(url + TRANSCRIBE, content=body, headers=AUTHORIZED, timeout=0.4)


def wait_idle(server: Server) -> None:
    server.wait_for(lambda: server.metric("k2d_waiting") == 0, "an empty queue")


async def test_a_thousand_at_once_are_answered_or_told_when_to_come_back(server: Server) -> None:
    """Over bare sockets: a thousand connections of an HTTP client's pool would be its own test."""
    body = pack(Head(options=SHORT), samples(0.5))
    head = f"POST {TRANSCRIBE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    before = server.metric("k2d_refused_total")

    async def call() -> tuple[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        answer = (await reader.read()).decode()
        writer.close()
        return answer.split()[1], answer

    answers = await asyncio.wait_for(asyncio.gather(*(call() for _ in range(1000))), 120)
    codes = Counter(code for code, _ in answers)
    assert set(codes) == {"200", "503"}
    refused = next(answer for code, answer in answers if code == "503")
    headers = dict(line.split(": ", 1) for line in refused.split("\r\n\r\n")[0].lower().split("\r\n")[1:])
    assert int(headers["retry-after"]) >= 1
    assert '"code":"overloaded"' in refused
    assert server.metric("k2d_refused_total") - before == codes["503"]


async def test_all_arrive_through_a_queue_that_is_too_small(server: Server) -> None:
    """What a full queue refuses comes again, until it is done."""
    remote = await open_transcriber(server.url, load(api_token=TOKEN, server_patience_s=5))
    results = await asyncio.gather(*(remote.transcribe(Window(samples(0.5)), SHORT) for _ in range(24)))
    assert len({result.text for result in results}) == 1
    assert remote.refusals > 0  # type: ignore[attr-defined]
    await remote.close()


async def test_a_refused_request_is_the_callers_fault_and_not_tried_again(server: Server) -> None:
    remote = await open_transcriber(server.url, load(api_token=TOKEN))
    with pytest.raises(BadRequest, match="unknown language"):
        await remote.transcribe(Window(samples()), DecodeOptions(language="klingon"))
    assert remote.retries == 0  # type: ignore[attr-defined]
    await remote.close()


async def test_killed_in_the_middle_of_a_batch_the_work_goes_on_elsewhere_and_there_again(
    server: Server, killable: Server
) -> None:
    patient = load(api_token=TOKEN, server_patience_s=60)
    both = await open_transcriber(f"{server.url},{killable.url}", patient)
    alone = await open_transcriber(killable.url, patient)
    window = Window(samples(30.0))
    calls = [asyncio.create_task(remote.transcribe(window, GREEDY)) for remote in [both] * 4 + [alone]]
    await asyncio.sleep(0.5)  # in the engine by then, for a second and more
    killable.kill()
    elsewhere = await asyncio.gather(*calls[:4])
    killable.restart()
    there_again = await calls[4]
    assert {result.tokens for result in elsewhere} == {there_again.tokens}
    assert both.retries > 0  # type: ignore[attr-defined]
    assert alone.retries > 0  # type: ignore[attr-defined]
    await both.close()
    await alone.close()


def test_idle_weights_are_freed_and_loaded_again(killable: Server) -> None:
    killable.wait_for(lambda: killable.metric("k2d_model_loaded") == 0, "freeing the weights")
    assert httpx.get(killable.url + "/readyz").status_code == 200
    body = pack(Head(options=GREEDY), clip())
    answer = httpx.post(killable.url + TRANSCRIBE, content=body, headers=AUTHORIZED, timeout=60)
    assert "要不要一起去" in answer.json()["text"]


def test_sigterm_lets_what_is_in_flight_finish(killable: Server) -> None:
    """A window, and a stream of several windows."""
    body = pack(Head(options=GREEDY), samples(30.0))
    url = killable.url + "/v1/audio/transcriptions"
    file = flac(np.concatenate(list(blocks(EXAMPLES / "lecture.ogg")))[: 75 * SAMPLE_RATE_HZ])
    with ThreadPoolExecutor(1) as pool, httpx.Client(headers=AUTHORIZED, timeout=60) as http:
        with http.stream("POST", url, data={"stream": "true"}, files={"file": file}) as stream:
            lines = stream.iter_lines()
            assert "transcript.text.delta" in next(lines)  # of the first window
            call = pool.submit(httpx.post, killable.url + TRANSCRIBE, content=body, headers=AUTHORIZED, timeout=60)
            killable.wait_for(lambda: killable.metric("k2d_waiting") > 0, "waiting")  # one of the two, for the other
            killable.process.send_signal(signal.SIGTERM)
            assert "transcript.text.done" in [line for line in lines if line][-1]
        assert call.result().status_code == 200
    assert killable.stop() == 0
