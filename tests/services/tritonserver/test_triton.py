"""The real tritonserver with real Whisper weights: the same texts, one batch for many, and what happens when parts die.

One server serves all tests; the last of them kill parts of it. Making its environment takes half a minute, once.
"""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from weights import BASE, base, open_base

from k2d.audio import blocks
from k2d.errors import BadRequest, ModelError, ServerUnavailable
from k2d.inference import golden, wire
from k2d.inference.triton_endpoint import TritonEndpoint
from k2d.inference.wire import Head
from k2d.schema import WINDOW_SAMPLES, DecodeOptions, Samples, Window
from k2d.settings import load
from k2d.whisper import ct2_file
from services.local.redis_server import free_port
from services.tritonserver import shm
from services.tritonserver.healer import stubs
from services.tritonserver.repository import LINGER_SHARE
from services.tritonserver.runtime import TritonFailed
from services.tritonserver.server import TritonServer

pytestmark = [pytest.mark.integration]

BATCH, MAX_WAITING, LINGER_S = 8, 24, 0.3  # seconds that Triton waits for a batch to fill
GREEDY = DecodeOptions(temperatures=(0.0,))
SHORT = DecodeOptions(temperatures=(0.0,), max_new_tokens=4, without_timestamps=True)
NOTHING = np.zeros(1, np.int16)
HEAL_S = 90.0
T = TypeVar("T")


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with Whisper base as teacher."""
    base()
    settings = load(
        batch_size=BATCH, max_waiting=MAX_WAITING, linger_s=LINGER_S / LINGER_SHARE, threads=2, log_level="info"
    )
    server = TritonServer(settings, log_file=tmp_path_factory.mktemp("triton") / "log")
    there = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))  # the checkout must not be where the stub finds us by chance
    try:
        with server:
            os.chdir(there)
            yield server
    finally:
        os.chdir(there)


def samples(seconds: float = 1.0) -> Samples:
    return np.random.default_rng(7).integers(-3000, 3000, int(16_000 * seconds)).astype(np.int16)


def voice() -> Samples:
    return golden.windows()[0][0].samples


turns = itertools.count(10)


def voice_from(turn: int) -> Samples:
    """The voice from another place on: the engine keeps encoder outputs, and would answer too soon to be killed."""
    return np.roll(voice(), 4321 * turn)


def window_of(path: Path) -> Window:
    """A file's first 30 s."""
    return Window(np.concatenate(list(blocks(path)))[:WINDOW_SAMPLES])


def talk(server: TritonServer, conversation: Callable[[TritonEndpoint], Coroutine[Any, Any, T]]) -> T:
    """Run a conversation with the teacher over one endpoint."""

    async def run() -> T:
        endpoint = TritonEndpoint(server.address())
        try:
            return await conversation(endpoint)
        finally:
            await endpoint.close()

    return asyncio.run(run())


def statistics(server: TritonServer) -> tuple[int, int]:
    """Requests answered and calls of the model so far."""
    model = httpx.get(f"{server.http_url}/v2/models/teacher/stats").json()["model_stats"][0]
    return int(model["inference_count"]), int(model["execution_count"])


def metrics(server: TritonServer) -> dict[str, float]:
    lines = httpx.get(server.metrics_url).text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


# ---- the same as in process ---------------------------------------------------------------------------------------


def test_the_same_windows_give_the_same_results_as_in_process(triton: TritonServer, examples: Path) -> None:
    windows = [window_of(examples / "cs-clean-1.flac"), *(window for window, _ in golden.windows())]
    windows.append(Window(windows[0].samples, prompt=(1, 2, 3)))
    engine = open_base()
    try:
        expected = [wire.answer(result, engine.model) for result in engine.transcribe(windows, GREEDY)]
        [score] = engine.score(windows[:1], ["今天這堂課"], GREEDY)
    finally:
        engine.close()

    async def all_at_once(endpoint: TritonEndpoint) -> list[dict[str, Any]]:
        heads = [Head(options=GREEDY, prompt=window.prompt) for window in windows]
        heads.append(Head(act="score", options=GREEDY, text="今天這堂課"))
        audio = [window.samples for window in (*windows, windows[0])]
        calls = [endpoint.call(head, window, timeout_s=120) for head, window in zip(heads, audio, strict=True)]
        return await asyncio.gather(*calls)

    *answers, scored = talk(triton, all_at_once)
    for theirs, ours in zip(answers, expected, strict=True):
        assert wire.result(theirs) == wire.result(ours)  # to the last bit, though the stub's numpy is another
        assert theirs["model"] == ours["model"]
    assert wire.score(scored) == score


def test_windows_of_eight_lengths_meet_in_one_batch(triton: TritonServer) -> None:
    before = statistics(triton)
    audio = [samples(0.5 + 0.3 * n) for n in range(BATCH)]

    async def all_at_once(endpoint: TritonEndpoint) -> None:
        await asyncio.gather(*(endpoint.call(Head(options=SHORT), window, timeout_s=60) for window in audio))

    talk(triton, all_at_once)
    for _ in range(100):  # Triton counts a request after it has answered it
        after = statistics(triton)
        requests, calls = after[0] - before[0], after[1] - before[1]
        if requests >= BATCH:
            break
        time.sleep(0.1)
    assert requests == BATCH
    assert calls <= 2, f"{requests} requests needed {calls} calls"


def test_what_a_server_says_of_itself(triton: TritonServer) -> None:
    document = talk(triton, lambda endpoint: endpoint.call(Head(act="describe"), NOTHING, timeout_s=30))
    assert wire.model_of(document).reference == BASE
    assert document["batch_size"] == BATCH
    assert "三個" in document["golden"] or "three" in document["golden"]


def test_metrics_have_the_names_of_the_other_host(triton: TritonServer) -> None:
    talk(triton, lambda endpoint: endpoint.call(Head(options=SHORT), samples(), timeout_s=60))
    values = metrics(triton)
    label = '{model="teacher"}'
    assert values[f"k2d_batch_size_count{label}"] >= 1
    assert values[f"k2d_batch_size_sum{label}"] >= values[f"k2d_batch_size_count{label}"]
    assert values['k2d_batch_size_bucket{le="+Inf",model="teacher"}'] == values[f"k2d_batch_size_count{label}"]
    assert values[f"k2d_engine_seconds_sum{label}"] > 0
    assert values[f"k2d_model_loaded{label}"] == 1
    assert any(name.startswith("k2d_model_info{") and base().digest[:16] in name for name in values)


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_bad_requests_fail_alone_and_say_why(triton: TritonServer) -> None:
    bad = [
        (Head(options=SHORT), samples(31.0), "31.0 s"),
        (Head(options=SHORT), np.zeros(0, np.int16), "no samples"),
        (Head(options=DecodeOptions(language="xx")), samples(), "unknown language"),
        (Head(options=SHORT, prompt=(999_999,)), samples(), "999999"),
        (Head(act="score", options=SHORT), samples(), "text"),
    ]

    async def all_at_once(endpoint: TritonEndpoint) -> list[Any]:
        calls = [endpoint.call(head, audio, timeout_s=60) for head, audio, _ in bad]
        calls += [endpoint.call(Head(options=SHORT), samples(), timeout_s=60) for _ in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    *refused, first, second, third = talk(triton, all_at_once)
    for error, (_, _, why) in zip(refused, bad, strict=True):
        assert type(error) is BadRequest
        assert why in error.message
    assert first == second == third
    assert wire.result(first).text


def test_a_foreign_client_gets_clear_refusals_too(triton: TritonServer) -> None:
    """Wrong dtype, unknown options and a missing input, sent as anybody might."""

    def infer(head: str, data: list[Any], dtype: str = "INT16") -> tuple[int, str]:
        audio = {"name": "SAMPLES", "shape": [1, len(data)], "datatype": dtype, "data": data}
        line = {"name": "HEAD", "shape": [1, 1], "datatype": "BYTES", "data": [head]}
        answer = httpx.post(f"{triton.http_url}/v2/models/teacher/infer", json={"inputs": [line, audio]}, timeout=60)
        return answer.status_code, answer.text

    assert infer("{}", [0.5] * 100, "FP32")[0] == 400
    status, text = infer('{"options":{"beams":3}}', [0] * 100)
    assert status == 400
    assert "unknown option: beams" in text
    assert infer("no JSON", [0] * 100)[0] == 400
    assert infer("{}", [])[0] == 400
    only_head = {"inputs": [{"name": "HEAD", "shape": [1, 1], "datatype": "BYTES", "data": ["{}"]}]}
    assert httpx.post(f"{triton.http_url}/v2/models/teacher/infer", json=only_head).status_code == 400


def test_nobody_but_the_launcher_loads_models(triton: TritonServer) -> None:
    """Loading may carry code along."""
    for act in ("load", "unload"):
        answer = httpx.post(f"{triton.http_url}/v2/repository/models/teacher/{act}", json={})
        assert answer.status_code in (401, 403), answer.text
    talk(triton, lambda endpoint: endpoint.call(Head(act="describe"), NOTHING, timeout_s=30))


# ---- overload, deadlines, cancelling ------------------------------------------------------------------------------


async def occupied(endpoint: TritonEndpoint) -> "list[asyncio.Task[dict[str, Any]]]":
    """Keep the engine busy for some seconds with one full batch of windows it has not seen."""
    head = Head(options=GREEDY)
    tasks = [asyncio.create_task(endpoint.call(head, voice_from(next(turns)), timeout_s=120)) for _ in range(BATCH)]
    await asyncio.sleep(LINGER_S + 0.4)
    return tasks


async def settled(endpoint: TritonEndpoint) -> None:
    """Return when whatever was in queue or engine is through: one instance, first come, first served."""
    while True:
        try:
            await endpoint.call(Head(act="describe"), NOTHING, timeout_s=60)
            return
        except ServerUnavailable:  # withdrawn requests fill the queue until their turn comes
            await asyncio.sleep(0.2)


def test_a_full_queue_refuses_at_once_and_the_client_counts_it(triton: TritonServer) -> None:
    expected = 1000 - MAX_WAITING - 2 * BATCH  # those refused, whoever of the others is answered meanwhile

    async def flood(endpoint: TritonEndpoint) -> tuple[list[BaseException | None], int]:
        busy = await occupied(endpoint)
        calls = (endpoint.call(Head(options=SHORT), samples(), timeout_s=120) for _ in range(1000))
        waiting, done = {asyncio.ensure_future(call) for call in calls}, set[asyncio.Task[Any]]()
        async with asyncio.timeout(120):
            while sum(task.exception() is not None for task in done) < expected:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= ended
        counted = endpoint.queue_full
        for task in waiting:
            task.cancel()
        await asyncio.gather(*busy, *waiting, return_exceptions=True)
        await settled(endpoint)
        return [task.exception() for task in done], counted

    outcomes, counted = talk(triton, flood)
    refused = [error for error in outcomes if error is not None]
    assert {type(error) for error in refused} == {ServerUnavailable}
    assert all(error.busy for error in refused if isinstance(error, ServerUnavailable))
    assert counted == len(refused)


def test_a_deadline_ends_the_call_and_the_work_is_not_done(triton: TritonServer) -> None:
    before = metrics(triton)['k2d_batch_size_sum{model="teacher"}']

    async def late(endpoint: TritonEndpoint) -> None:
        busy = await occupied(endpoint)
        with pytest.raises(ServerUnavailable):
            await endpoint.call(Head(options=SHORT), samples(), timeout_s=0.3)
        assert not any(task.done() for task in busy), "it waited for the batch before it"
        await asyncio.gather(*busy)
        await settled(endpoint)

    talk(triton, late)
    assert metrics(triton)['k2d_batch_size_sum{model="teacher"}'] - before == BATCH


def test_cancelling_withdraws_the_request(triton: TritonServer) -> None:
    before = metrics(triton)['k2d_batch_size_sum{model="teacher"}']

    async def cancelled(endpoint: TritonEndpoint) -> None:
        busy = await occupied(endpoint)
        waiting = [asyncio.create_task(endpoint.call(Head(options=SHORT), samples(), timeout_s=60)) for _ in range(5)]
        await asyncio.sleep(0.3)
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        await asyncio.gather(*busy)
        await settled(endpoint)

    talk(triton, cancelled)
    assert metrics(triton)['k2d_batch_size_sum{model="teacher"}'] - before == BATCH


# ---- servers that do not start ------------------------------------------------------------------------------------


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(base().path, folder)
    return folder


def test_missing_weights_are_told_before_a_server_is_started(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "model.bin").unlink()
    with pytest.raises(ModelError, match="holds no model"):
        TritonServer(load(teacher=str(folder))).start()
    with pytest.raises(ModelError, match="no model at"):
        TritonServer(load(teacher="/nowhere/at/all")).start()


def test_models_that_are_not_fit_end_the_start_with_the_reason(tmp_path: Path) -> None:
    """Truncated weights as teacher; as validator not-a-number in one layer: it loads, and transcribes nonsense."""
    truncated, broken = copied(tmp_path / "truncated"), copied(tmp_path / "broken")
    os.truncate(truncated / "model.bin", 100_000_000)
    weights = bytearray((broken / "model.bin").read_bytes())
    with memoryview(weights) as view:
        start = ct2_file.tensors(view, file=broken)["decoder/layer_norm/gamma"].offset
    weights[start : start + 64] = np.full(32, np.nan, np.float16).tobytes()
    (broken / "model.bin").write_bytes(weights)
    settings = load(teacher=str(truncated), validator=str(broken), threads=1)
    server = TritonServer(settings, models=["teacher", "validator"], log_file=tmp_path / "log")
    with pytest.raises(TritonFailed) as caught:
        server.start()
    assert "model.bin" in caught.value.message
    assert "not fit to serve" in (tmp_path / "log").read_text("utf-8")


def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    base()
    server = TritonServer(load(), ready_s=0.5, log_file=tmp_path / "log")
    with pytest.raises(TritonFailed, match=r"did not become ready within 0\.5 s"):
        server.start()
    assert server.process is None


def test_nobody_listening_is_worth_another_attempt() -> None:
    async def call() -> None:
        endpoint = TritonEndpoint(f"grpc://127.0.0.1:{free_port()}/teacher")
        with pytest.raises(ServerUnavailable) as caught:
            await endpoint.call(Head(act="describe"), NOTHING, timeout_s=60)
        assert "deadline" not in caught.value.message.lower(), "it waited for nothing"
        await endpoint.close()
        with pytest.raises(ModelError, match="closed"):
            await endpoint.call(Head(act="describe"), NOTHING, timeout_s=10)

    asyncio.run(call())


# ---- parts that die: last, because they leave a new server behind ---------------------------------------------------


def folder_of(server: TritonServer) -> Path:
    assert server.folder is not None
    return server.folder / "repository"


def test_a_killed_stub_is_brought_back(triton: TritonServer) -> None:
    [pid] = stubs(folder_of(triton), "teacher")

    async def through_it(endpoint: TritonEndpoint) -> None:
        call = asyncio.create_task(endpoint.call(Head(options=GREEDY), voice_from(1), timeout_s=60))
        await asyncio.sleep(LINGER_S + 0.3)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerUnavailable):
            await call
        await answered(endpoint)

    talk(triton, through_it)
    [new] = stubs(folder_of(triton), "teacher")
    assert new != pid


def test_a_killed_server_is_worth_another_attempt_and_the_command_takes_its_place(
    triton: TritonServer, tmp_path: Path
) -> None:
    """The same channel finds the new server, which removes the shared memory of the old one, and drains at SIGTERM."""

    async def through_it(endpoint: TritonEndpoint) -> None:
        call = asyncio.create_task(endpoint.call(Head(options=GREEDY), voice_from(2), timeout_s=60))
        await asyncio.sleep(LINGER_S + 0.3)
        assert triton.process is not None
        before = regions()
        os.killpg(triton.process.pid, signal.SIGKILL)
        for lost in (call, endpoint.call(Head(act="describe"), NOTHING, timeout_s=5)):
            with pytest.raises(ServerUnavailable):
                await lost
        await asyncio.to_thread(triton.process.wait)
        left = before & regions()
        assert left
        await asyncio.to_thread(triton.stop)
        process = launch(tmp_path, grpc_port=triton.grpc_port)
        try:
            assert process.stdout is not None
            lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(2)]
            assert lines[1].decode() == f"validator: K2D_VALIDATOR=grpc://127.0.0.1:{triton.grpc_port}/validator\n"
            assert not left & regions()
            other = TritonEndpoint(lines[1].decode().strip().split("=")[1])
            await asyncio.gather(answered(endpoint), answered(other))
            in_flight = asyncio.create_task(other.call(Head(options=GREEDY), voice_from(3), timeout_s=60))
            await asyncio.sleep(0.6)  # in the engine by then
            process.send_signal(signal.SIGTERM)
            assert wire.result(await in_flight).text
            await other.close()
            assert await asyncio.to_thread(process.wait, 60) == 0, (tmp_path / "log").read_text("utf-8")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)

    talk(triton, through_it)


def launch(folder: Path, *, grpc_port: int) -> "subprocess.Popen[bytes]":
    """`k2d triton` with both models, whose log goes into the folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K2D_")}
    environment |= {"K2D_VALIDATOR": BASE, "K2D_CACHE": str(load().cache), "K2D_THREADS": "2"}
    ports = ["--grpc-port", str(grpc_port), "--http-port", str(free_port()), "--metrics-port", str(free_port())]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "k2d.cli", "triton", "--models", "teacher,validator", *ports],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def regions() -> set[str]:
    return {path.name for path in shm.SHM.glob(f"{shm.prefix()}*")}


async def answered(endpoint: TritonEndpoint) -> None:
    """Call until the model answers: a stub is replaced first, and a channel that lost its server waits for seconds."""
    async with asyncio.timeout(HEAL_S):
        while True:
            try:
                assert wire.result(await endpoint.call(Head(options=GREEDY), voice(), timeout_s=60)).text
            except ServerUnavailable:
                await asyncio.sleep(0.2)
            else:
                return
