"""How long the console's pages take over a store of a million chunks, one reader at a time and fifty at once.

The store is that of bench/corpus_store.py, as labeling leaves it. Pages are asked for over HTTP from a server process
of their own.

    python bench/console.py --chunks 1000000 --readers 50
"""

import argparse
import asyncio
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import corpus_store
import httpx

from k2d.corpus.index import read_index
from k2d.store import Lake
from services.local.redis_server import EmbeddedRedis

NAME = "lectures"
CHUNKS_A_RECORDING = 85  # half an hour of speech
ASKED = {
    "batches": "",
    "explorer": "batches/lectures/explore",
    "curve (slider data)": "batches/lectures/explore/curve.json",
    "curve, other α": "batches/lectures/explore/curve.json?alpha=0.17",
    "curve, one rule off": "batches/lectures/explore/curve.json?rules=1&on=empty&on=salvage",
    "curves of all measures": "batches/lectures/explore/measures.json",
    "nearest to α": "batches/lectures/explore/panel",
    "nearest to another α": "batches/lectures/explore/panel?alpha=0.1",
    "yield": "batches/lectures/explore/panel?show=yield",
    "two policies": "batches/lectures/explore/panel?show=flips&other=paper",
    "CSV": "batches/lectures/explore/curve.csv",
    "chunks": "batches/lectures/chunks",
    "rejected chunks": "batches/lectures/chunks?verdict=rejected&reason=substitution",
    "chunk": "chunks/{chunk}?batch=lectures",
    "chunk, batch unknown": "chunks/{chunk}",
}
LOOK_S = 3.0  # chosen: short, for somebody who reads a page of texts
READ_BY_MANY = ("batches", "explorer", "curve (slider data)", "nearest to α", "chunks", "chunk")


def build(folder: Path, chunks: int) -> str:
    """A store with about this many chunks; the id of a chunk that can be opened."""
    lake = Lake(str(folder))
    corpus_store.build(lake, corpus_store.Size(recordings=max(1, chunks // CHUNKS_A_RECORDING)), NAME)
    return next(iter(read_index(lake, NAME, ["id"])["id"])).as_py()


async def alone(client: httpx.AsyncClient, pages: dict[str, str], server: int, rounds: int) -> None:
    """One reader. Core time is the server's own, which other work on the machine hardly stretches."""
    print(f"{'page':24} {'first':>8} {'median':>8} {'first, core':>12} {'later, core':>12}  ms")
    for name, address in pages.items():
        before = _core_ms(server)
        times = [await _time(client, address)]
        between = _core_ms(server)
        times += [await _time(client, address) for _ in range(rounds)]
        later = (_core_ms(server) - between) / rounds
        print(f"{name:24} {times[0]:8.0f} {statistics.median(times[1:]):8.0f} {between - before:12.0f} {later:12.0f}")


async def together(
    client: httpx.AsyncClient, pages: Sequence[str], server: int, *, readers: int, rounds: int, look_s: float
) -> None:
    """Every reader asks for one page after another, each beginning with another one, and looks at each for `look_s` on
    average, by chance between nothing and twice that."""
    chance = random.Random(7)

    async def read(number: int) -> list[float]:
        times = []
        for turn in range(rounds):
            await asyncio.sleep(2 * look_s * chance.random())
            times.append(await _time(client, pages[(number + turn) % len(pages)]))
        return times

    before = _core_ms(server)
    times = sorted(time_ms for own in await asyncio.gather(*map(read, range(readers))) for time_ms in own)
    late = times[int(0.95 * (len(times) - 1))]
    core = (_core_ms(server) - before) / len(times)
    who = f"{readers} readers who look at a page for {look_s:g} s" if look_s else f"{readers} readers without a pause"
    print(f"{who}: median {statistics.median(times):.0f} ms, 95 % {late:.0f} ms, most {times[-1]:.0f} ms")
    print(f"core time of the server: {core:.1f} ms a page")


def _core_ms(pid: int) -> float:
    """The time that a process has spent on all cores together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _time(client: httpx.AsyncClient, address: str) -> float:
    started = time.perf_counter()
    answer = await client.get(address)
    answer.raise_for_status()
    return 1000 * (time.perf_counter() - started)


async def measure(port: int, pages: dict[str, str], server: int, *, readers: int, rounds: int) -> None:
    limits = httpx.Limits(max_connections=readers)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/", timeout=600, limits=limits) as client:
        for _ in range(600):
            try:
                await client.get("healthz")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.2)  # it is starting
        await alone(client, pages, server, rounds)
        many = [pages[name] for name in READ_BY_MANY]
        for look_s in (LOOK_S, 0.0):
            await together(client, many, server, readers=readers, rounds=rounds, look_s=look_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "k2d-console")
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the folder for another run")
    asked = parser.parse_args()
    chunk = build(asked.folder, asked.chunks)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedRedis(asked.folder) as redis:
        settings = {"K2D_STORE": str(asked.folder), "K2D_REDIS_URL": redis.url, "K2D_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", "uvicorn", "--factory", "services.filter.app:create_app", "--port", str(port)]
        server = subprocess.Popen([*command, "--log-level", "warning"], env=os.environ | settings)
        try:
            pages = {name: address.format(chunk=chunk) for name, address in ASKED.items()}
            asyncio.run(measure(port, pages, server.pid, readers=asked.readers, rounds=asked.rounds))
        finally:
            server.terminate()
            server.wait(20)
    if not asked.keep:
        shutil.rmtree(asked.folder)


if __name__ == "__main__":
    main()
