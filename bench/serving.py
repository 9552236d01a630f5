"""× real time and mean batch of the three ways to a model, against the number of recordings in flight.

    python bench/serving.py [--concurrency 1,4,16,64] [--hosts http,grpc] [--recordings 64]

Recordings are stretches of the measuring data's long ones (../shared/data/public), transcribed with the sequential
algorithm, greedy, without fallback, through: the engine in this process, the FastAPI host (`k2d serve teacher`) and
Triton (`k2d triton`), each started here on loopback with the same weights and settings. 100 % is the engine's own
ceiling on the very same windows: full batches, one after the other, no I/O. Fewer recordings are used where fewer are
in flight.

The last table asks each of them for the same windows in turn, one at a time: what the protocol costs per window.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import soundfile

from k2d.inference.batcher import MicroBatcher
from k2d.inference.longform import transcribe
from k2d.inference.open import engine_of, open_transcriber
from k2d.inference.transcriber import Transcriber
from k2d.logs import setup
from k2d.schema import SAMPLE_RATE_HZ, DecodeOptions, LongformOptions, ModelInfo, Samples, Window, WindowResult
from k2d.settings import Settings, load
from k2d.whisper.engine import Engine
from services.local.redis_server import free_port

DATA = Path(__file__).parents[2] / "shared" / "data" / "public"
OPTIONS = LongformOptions(decode=DecodeOptions(temperatures=(0.0,)))
FEWEST = 8  # recordings
RECORDINGS_EACH = 2  # per recording in flight, where that is fewer than all: taken evenly from all of them
OVERHEAD_WINDOWS = 24


class Held:
    """A recording in memory."""

    def __init__(self, held: Samples) -> None:
        self.held = held

    def read(self, start: int, stop: int) -> Samples:
        return self.held[start:stop]


class Kept:
    """A transcriber that keeps the windows it was asked for, in order."""

    def __init__(self, inner: Transcriber) -> None:
        self.inner = inner
        self.windows: list[Window] = []

    @property
    def model(self) -> ModelInfo:
        return self.inner.model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        self.windows.append(window)
        return await self.inner.transcribe(window, options)

    async def close(self) -> None:
        await self.inner.close()


class Counted:
    """Sizes of the batches of a micro-batcher in this process."""

    def __init__(self) -> None:
        self.windows = self.calls = 0.0

    def batch(self, *, size: int, waited_s: Sequence[float], engine_s: float) -> None:
        self.windows += size
        self.calls += 1

    def refused(self, reason: str) -> None:
        raise AssertionError(reason)


def recordings(count: int) -> list[Held]:
    """The long recordings, cut into `count` stretches of equal length."""
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text("utf-8").splitlines()]
    audio = [soundfile.read(DATA / row["audio"], dtype="int16")[0] for row in rows if row["kind"] == "longform"]
    length = sum(map(len, audio)) // count
    found: list[Held] = []
    while len(found) < count and length > SAMPLE_RATE_HZ:
        found = [Held(a[at : at + length]) for a in audio for at in range(0, len(a) - length + 1, length)]
        length = int(0.98 * length)  # the ends that are left over are not enough for one more
    return found[:count]


@contextmanager
def server(kind: str, settings: Settings, **variables: object) -> Iterator[tuple[str, str]]:
    """Start a server as a process; gives its address and where its metrics are. `variables`: more of its settings."""
    ports = [free_port() for _ in range(3)]
    main = [sys.executable, "-c", "from k2d.cli import main; main()"]
    if kind == "http":
        command = [*main, "serve", "teacher", "--port", str(ports[0])]
        address, metrics = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[0]}/metrics"
    else:
        flags = [f"--{name}-port={port}" for name, port in zip(("grpc", "http", "metrics"), ports, strict=True)]
        command = [*main, "triton", *flags]
        address, metrics = f"grpc://127.0.0.1:{ports[0]}/teacher", f"http://127.0.0.1:{ports[2]}/metrics"
    variables = {"teacher": settings.teacher, "batch_size": settings.batch_size, **variables}
    environment = os.environ | {f"K2D_{name.upper()}": str(value) for name, value in variables.items()}
    with tempfile.NamedTemporaryFile("wb", suffix=".log") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield address, metrics
        finally:
            process.terminate()
            process.wait(60)


def counters(metrics: str) -> tuple[float, float]:
    """Windows and engine calls so far, by a server's own metrics."""
    lines = httpx.get(metrics).text.splitlines()

    def total(name: str) -> float:
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    return total("k2d_batch_size_sum"), total("k2d_batch_size_count")


async def run(transcriber: Transcriber, audio: Sequence[Held], concurrency: int) -> float:
    """Seconds to transcribe all of `audio`, so many at once."""
    waiting = iter(audio)

    async def lane() -> None:
        for held in waiting:
            async for _ in transcribe(held, transcriber, OPTIONS, total_samples=len(held.held)):
                pass

    started = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(concurrency)))
    return time.perf_counter() - started


def ceiling(engine: Engine, windows: Sequence[Window], batch_size: int) -> float:
    """Seconds for these windows in full batches."""
    engine.transcribe(windows[:1], OPTIONS.decode)  # warm up
    started = time.perf_counter()
    for at in range(0, len(windows), batch_size):
        engine.transcribe(windows[at : at + batch_size], OPTIONS.decode)
    return time.perf_counter() - started


async def measure(arguments: argparse.Namespace, settings: Settings) -> None:
    every = recordings(arguments.recordings)
    levels = [int(n) for n in arguments.concurrency.split(",")]
    parts = {n: every[:: max(1, len(every) // max(FEWEST, RECORDINGS_EACH * n))] for n in levels}
    engine = await asyncio.to_thread(engine_of, settings.teacher, settings)
    counted = Counted()
    batcher = MicroBatcher(engine, batch_size=settings.batch_size, linger_s=settings.linger_s, observer=counted)
    local = Kept(batcher)
    print(
        f"{engine.model.reference} {engine.model.compute_type} on {engine.model.device}, batch {settings.batch_size}; "
        f"recordings of {len(every[0].held) / SAMPLE_RATE_HZ:.0f} s\n"
        "host    in flight   recordings   × real time   of ceiling   mean batch"
    )
    ceilings: dict[int, float] = {}
    for n in levels:
        local.windows.clear()
        counted.windows = counted.calls = 0.0
        took_s = await run(local, parts[n], n)
        batch = counted.windows / counted.calls
        ceilings[n] = await asyncio.to_thread(ceiling, engine, local.windows, settings.batch_size)
        row("ceiling", n, parts[n], ceilings[n], ceilings[n], min(settings.batch_size, len(local.windows)))
        row("local", n, parts[n], took_s, ceilings[n], batch)
    for kind in remote_hosts(arguments):
        with server(kind, settings) as (address, metrics):
            remote = await open_transcriber(address, settings)
            for n in levels:
                before = counters(metrics)
                took_s = await run(remote, parts[n], n)
                windows, calls = (now - then for now, then in zip(counters(metrics), before, strict=True))
                row(kind, n, parts[n], took_s, ceilings[n], windows / calls)
            await remote.close()
    await overhead(arguments, settings, local, local.windows[:OVERHEAD_WINDOWS])
    await local.close()


def remote_hosts(arguments: argparse.Namespace) -> list[str]:
    return [kind for kind in arguments.hosts.split(",") if kind]


async def overhead(
    arguments: argparse.Namespace, settings: Settings, local: Transcriber, windows: Sequence[Window]
) -> None:
    """The same windows, one at a time, everywhere in turn; medians of the paired differences.

    Without lingering, which is no cost of the protocol: Triton makes a lone request wait, the others do not.
    """
    print("protocol cost per window, median of paired differences to the engine in process")
    for kind in remote_hosts(arguments):
        with server(kind, settings, linger_s=0) as (address, _):
            remote = await open_transcriber(address, settings)
            pairs = []
            for window in windows:
                times = []
                for transcriber in (local, remote):
                    started = time.perf_counter()
                    await transcriber.transcribe(window, OPTIONS.decode)
                    times.append(time.perf_counter() - started)
                pairs.append(times)
            await remote.close()
        extra = statistics.median(b - a for a, b in pairs)
        compute = statistics.median(a for a, _ in pairs)
        print(f"{kind:7} {1000 * extra:+7.1f} ms of {1000 * compute:.0f} ms: {100 * extra / compute:+.1f} %")


def seconds_of(audio: Sequence[Held]) -> float:
    return sum(len(held.held) for held in audio) / SAMPLE_RATE_HZ


def row(kind: str, in_flight: int, audio: Sequence[Held], took_s: float, best_s: float, batch: float) -> None:
    speed, share = seconds_of(audio) / took_s, 100 * best_s / took_s
    print(f"{kind:7} {in_flight:9}   {len(audio):10}   {speed:11.1f}   {share:8.0f} %   {batch:10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concurrency", default="1,4,16,64")
    parser.add_argument("--hosts", default="http,grpc", help="beside the engine in this process")
    parser.add_argument("--recordings", type=int, default=64)
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the measuring data is not at {DATA}")
    settings = load(server_patience_s=180, log_level="error")
    setup(settings)
    asyncio.run(measure(arguments, settings))


if __name__ == "__main__":
    main()
