"""How long the console's pages take over a store of a million chunks, one reader at a time and fifty at once.

The store is that of bench/preview.py with texts in it, so that lists have something to show, and one recording whose
facts and audio lie where a chunk's page reads them. Pages are asked for over HTTP from a server process of their own.

    python bench/console.py --chunks 1000000 --readers 50
"""

import argparse
import asyncio
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import preview
import pyarrow as pa

from k2d.corpus.gather import SCHEMA
from k2d.corpus.part import FACTS, ROWS_PER_GROUP
from k2d.schema import Batch
from k2d.store import Lake
from k2d.store.batches import PART_RECORDINGS
from k2d.store.parquet import describe, writer
from services.local.redis_server import EmbeddedRedis

sys.path.append(str(Path(__file__).parent.parent / "tests/support"))
from lakes import put_recording

SENTENCES = (
    "今天這堂課我們先來 review 一下上禮拜的內容",
    "把 gradient 算出來之後更新 weight",
    "這個 deadline 是下禮拜五請大家不要遲交",
    "我覺得這個 model 的 performance 還可以再好一點",
)
ASKED = {
    "batches": "",
    "explorer": "batches/preview/explore",
    "curve (slider data)": "batches/preview/explore/curve.json",
    "curve, other α": "batches/preview/explore/curve.json?alpha=0.17",
    "curve, one rule off": "batches/preview/explore/curve.json?rules=1&on=empty&on=salvage",
    "curves of all measures": "batches/preview/explore/measures.json",
    "nearest to α": "batches/preview/explore/panel",
    "nearest to another α": "batches/preview/explore/panel?alpha=0.1",
    "yield": "batches/preview/explore/panel?show=yield",
    "two policies": "batches/preview/explore/panel?show=flips&other=paper",
    "CSV": "batches/preview/explore/curve.csv",
    "chunks": "batches/preview/chunks",
    "rejected chunks": "batches/preview/chunks?verdict=rejected&reason=substitution",
    "chunk": "chunks/{chunk}?batch=preview",
    "chunk, batch unknown": "chunks/{chunk}",
}
READ_BY_MANY = ("batches", "explorer", "curve (slider data)", "nearest to α", "chunks", "chunk")


def build(folder: Path, chunks: int) -> tuple[Batch, str]:
    """A store with this many chunks, and the id of a chunk that can be opened."""
    batch = preview.build(folder, chunks)
    lake = Lake(str(folder))
    spans = [(3.0 * n, 3.0 * n + 2.5) for n in range(preview.CHUNKS_A_RECORDING)]
    key = str(put_recording(lake, 1, spans).facts_key)
    made: Path | None = None
    for path in sorted(Path(lake.files.full(f"batches/{batch.id}/index")).glob(f"*{FACTS}")):
        temporary = path.with_suffix(".new")
        if made is None:
            temporary.write_bytes(texts(key))
            made = path
        else:
            os.link(made, temporary)
        temporary.replace(path)
    return batch, f"{key}-00003"


def texts(facts_key: str) -> bytes:
    """A part's Parquet file with texts, names and ids; the first recording has facts at `facts_key`."""
    rng = np.random.default_rng(1)
    rows = PART_RECORDINGS * preview.CHUNKS_A_RECORDING
    position, index = np.divmod(np.arange(rows), preview.CHUNKS_A_RECORDING)
    keys = [facts_key, *(rng.bytes(16).hex() for _ in range(PART_RECORDINGS - 1))]
    labels = [
        f"{SENTENCES[a]} {b}" for a, b in zip(rng.integers(0, 4, rows), rng.integers(0, 10**6, rows), strict=True)
    ]
    columns = {
        "position": position,
        "index": index,
        "recording": [f"talks/{n % 8}/{n}.flac" for n in position],
        "recording_id": [f"rec_{n:024x}" for n in position],
        "facts_key": [keys[n] for n in position],
        "label_key": [keys[n] for n in position],
        "id": [f"{keys[n]}-{i:05d}" for n, i in zip(position, index, strict=True)],
        "start_s": index * 20.0,
        "end_s": index * 20.0 + 18.0,
        "teacher_text": labels,
        "validators": ["model:small"] * rows,
        "perturbations": [["as is"]] * rows,
        "validator_texts": [[f"{label} 啊"] for label in labels],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type) for f in SCHEMA]
    file = io.BytesIO()
    with writer(file, describe(SCHEMA, {})) as out:
        out.write_table(pa.table(arrays, schema=SCHEMA), row_group_size=ROWS_PER_GROUP)
    return file.getvalue()


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


async def together(client: httpx.AsyncClient, pages: Sequence[str], readers: int, rounds: int) -> None:
    """Every reader asks for one page after another, each beginning with another one."""

    async def read(number: int) -> list[float]:
        wanted = [pages[(number + turn) % len(pages)] for turn in range(rounds)]
        return [await _time(client, address) for address in wanted]

    times = sorted(time_ms for own in await asyncio.gather(*map(read, range(readers))) for time_ms in own)
    late = times[int(0.95 * (len(times) - 1))]
    print(f"{readers} readers: median {statistics.median(times):.0f} ms, 95 % {late:.0f} ms, most {times[-1]:.0f} ms")


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
        await together(client, [pages[name] for name in READ_BY_MANY], readers, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "k2d-console")
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the folder for another run")
    asked = parser.parse_args()
    _, chunk = build(asked.folder, asked.chunks)
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
