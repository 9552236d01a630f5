"""What a corpus costs to look at, to freeze and to export: seconds, memory, requests to store and Redis of each act.

Builds a store as labeling leaves it (bench/corpus_store.py), then does each act in a process of its own: through the
API where there is one (with a real Redis, in process), else as the command does. Freezes run real workers' jobs, each
worker a process. With --s3, the store lies in moto's S3 server on this machine: its requests count, its seconds do not.

    python bench/corpus.py --recordings 3000                  # minutes
    python bench/corpus.py --recordings 120000                # 10 million chunks
    python bench/corpus.py --recordings 200 --audio real      # freezes and exports at the size of speech
    python bench/corpus.py --recordings 2048 --chunks 5 --s3
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpus_store import Size, build

from k2d.corpus import batch_index
from k2d.corpus.audit import audit
from k2d.corpus.calibration.review import review
from k2d.datasets.formats import export
from k2d.datasets.freeze import plan_freeze
from k2d.datasets.slices import FreezePlan, Slice, SliceWriter, finish, read_plan
from k2d.filtering.policy import DEFAULT
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.files import Files

NAME = "corpus"
REQUESTS = ("read", "open", "parquet", "listing", "folders", "exists", "write", "create", "remove", "put")
WORKERS = (1, 2, 4)


# ---- acts ---------------------------------------------------------------------------------------------------------


def _api(settings: Settings) -> Any:
    from fastapi.testclient import TestClient

    from services.filter.app import create_app

    return TestClient(create_app(settings), base_url="http://127.0.0.1")


def _get(path: str, **query: Any) -> Callable[[Settings], Callable[[], Any]]:
    """An act that asks the API, once it is up."""

    def prepare(settings: Settings) -> Callable[[], Any]:
        client = _api(settings)
        client.get("/healthz")

        def ask() -> Any:
            answer = client.get(path, params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()

        return ask

    return prepare


def _preview(settings: Settings) -> Callable[[], Any]:
    client = _api(settings)

    def ask() -> Any:
        answer = client.post("/v1/policies/preview", json={"batches": [NAME]})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def _post(settings: Settings) -> Callable[[], Any]:
    """POST of as many references as the corpus has; the files are empty ones of this machine."""
    lake = Lake(settings.store)
    recordings = len(lake.batches.get(NAME).sources)
    folder = Path(settings.allowed_sources[0].removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    uris = []
    for number in range(recordings):
        path = folder / f"talk-{number}.flac"
        path.touch()
        uris.append(path.as_uri())
    client = _api(settings)

    def ask() -> Any:
        answer = client.post("/v1/batches", json={"sources": uris, "name": f"posted-{time.time_ns()}"})
        assert answer.status_code == 202, answer.text

    return ask


def _lake_act(act: Callable[[Lake], Any]) -> Callable[[Settings], Callable[[], Any]]:
    return lambda settings: lambda: act(_lake(settings))


def _lake(settings: Settings) -> Lake:
    options = json.loads(os.environ.get("K2D_BENCH_STORE_OPTIONS", "{}"))
    return Lake(settings.store, **options)


def _settle(lake: Lake) -> None:
    """Make the index of the first part anew, from facts."""
    index = batch_index.BatchIndex(lake, lake.batches.get(NAME))
    index._remade(0, batch_index.stem(index._batch.id, 0, []))


def _plan(lake: Lake) -> None:
    plan = plan_freeze(lake, name=f"plan-{time.time_ns()}", batches=[NAME], policy=DEFAULT)
    assert isinstance(plan, FreezePlan)


def _export(lake: Lake) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("K2D_BENCH_SCRATCH")) as folder:
        export(lake, "frozen-1", "webdataset", Path(folder) / "out")


ACTS: dict[str, Callable[[Settings], Callable[[], Any]]] = {
    "POST to 202": _post,
    "status": _get(f"/v1/batches/{NAME}"),
    "list of batches": _get("/v1/batches"),
    "first page": _get("/v1/chunks", batch=NAME),
    "preview": _preview,
    "audit": _lake_act(lambda lake: audit(lake, [lake.batches.get(NAME)], DEFAULT)),
    "review draw": _lake_act(lambda lake: review(lake, [lake.batches.get(NAME)], DEFAULT, count=300, seed=0)),
    "index of a part": _lake_act(_settle),
    "freeze plan": _lake_act(_plan),
}


def measure(what: str, settings: Settings, *, rounds: int) -> dict[str, Any]:
    """Do an act in this process: first and best seconds, peak memory, requests to the store and to Redis."""
    act = ACTS[what](settings)
    import redis

    server = redis.Redis.from_url(settings.redis_url.get_secret_value())
    times, counts, calls = [], Counter[str](), 0
    for turn in range(rounds):
        before = server.info("stats")["total_reads_processed"]
        with counted() as requests:
            started = time.perf_counter()
            act()
            times.append(time.perf_counter() - started)
        if turn == 0:
            counts = requests
            calls = server.info("stats")["total_reads_processed"] - before - 1
    return {
        "first_s": times[0],
        "best_s": min(times),
        "mb": _peak_mb(),
        "requests": sum(counts.values()),
        "by": dict(counts),
        "redis": calls,
    }


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of the store's files: each is one request of an object store, or a few."""
    counts: Counter[str] = Counter()
    own = {name: getattr(Files, name) for name in REQUESTS}

    def wrapped(name: str) -> Callable[..., Any]:
        def call(self: Files, *args: Any, **options: Any) -> Any:
            counts[name] += 1
            return own[name](self, *args, **options)

        return call

    for name in REQUESTS:
        setattr(Files, name, wrapped(name))
    try:
        yield counts
    finally:
        for name, function in own.items():
            setattr(Files, name, function)


# ---- freezes and exports ------------------------------------------------------------------------------------------


def freeze(settings: Settings, *, workers: int) -> dict[str, Any]:
    """Freeze with this many worker processes, each with every n-th run of slices; they start at the same moment."""
    lake = _lake(settings)
    plan = plan_freeze(lake, name=f"frozen-{workers}", batches=[NAME], policy=DEFAULT)
    assert isinstance(plan, FreezePlan), "this store was frozen already: use a new folder"
    slices = list(plan.slices())
    started = time.perf_counter()
    processes = [
        _child("--slices", json.dumps([f"frozen-{workers}", plan.digest, slices[number::workers]]), settings)
        for number in range(workers)
    ]
    outputs = [json.loads(process.communicate()[0]) for process in processes]
    manifest = lake.datasets.manifest(f"frozen-{workers}")
    seconds = max(output["ended"] for output in outputs) - min(output["began"] for output in outputs)
    size = sum(shard.bytes for shard in manifest.shards)
    return {
        "first_s": seconds,
        "best_s": seconds,
        "all_s": time.perf_counter() - started,
        "mb": max(output["mb"] for output in outputs),
        "requests": sum(output["requests"] for output in outputs),
        "redis": 0,
        "bytes": size,
        "rows": manifest.counts.rows,
        "slices": len(slices),
    }


def write_slices(settings: Settings, name: str, digest: str, slices: list[list[int]]) -> dict[str, Any]:
    """One worker's share of a freeze."""
    lake = _lake(settings)
    began = time.time()
    with counted() as requests:
        writer = SliceWriter(lake, read_plan(lake, name, digest))
        for slice_ in slices:
            writer.write(Slice(*slice_))
        finish(lake, name, digest)
    return {"began": began, "ended": time.time(), "mb": _peak_mb(), "requests": sum(requests.values())}


def _peak_mb() -> float:
    """Peak memory of this process in MB. Not getrusage: what that tells begins with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def copy_speed(settings: Settings) -> float | None:
    """MB/s at which this disk copies a dataset's shards, with an fsync each: the ceiling of a freeze."""
    lake = _lake(settings)
    if not lake.files.local:
        return None
    shards = [Path(path) for path in _shards(lake)][:8]
    with tempfile.TemporaryDirectory(dir=settings.store) as folder:
        started, size = time.perf_counter(), 0
        for path in shards:
            with open(path, "rb") as source, open(Path(folder) / path.name, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())
            size += path.stat().st_size
        return size / 1e6 / (time.perf_counter() - started)


def _shards(lake: Lake) -> list[str]:
    manifest = lake.datasets.manifest("frozen-1")
    return [lake.datasets.shard_path("frozen-1", shard.number) for shard in manifest.shards]


# ---- the table ----------------------------------------------------------------------------------------------------


def _child(flag: str, value: str, settings: Settings) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, flag, value, "--store", settings.store]
    command += ["--redis", settings.redis_url.get_secret_value(), "--allowed", settings.allowed_sources[0]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _run(flag: str, value: str, settings: Settings) -> dict[str, Any]:
    process = _child(flag, value, settings)
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{value} failed")
    result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return result


def table(settings: Settings, acts: list[str], workers: tuple[int, ...], parts: int) -> None:
    """Do every act, and print a row for each."""
    print(f"{'act':<22}{'first s':>9}{'best s':>9}{'MB':>7}{'store':>8}{'/ part':>8}{'Redis':>7}  notes")
    rows: dict[str, dict[str, Any]] = {}

    def show(name: str, row: dict[str, Any], note: str = "") -> None:
        rows[name] = row
        print(
            f"{name:<22}{row['first_s']:>9.2f}{row['best_s']:>9.2f}{row['mb']:>7.0f}{row['requests']:>8}"
            f"{row['requests'] / parts:>8.1f}{row['redis']:>7}  {note}",
            flush=True,
        )

    for act in acts:
        show(act, _run("--one", act, settings))
    for number in workers:
        row = freeze(settings, workers=number)
        alone = rows.get(f"freeze, {workers[0]}", row)["first_s"] / row["first_s"]
        speed = row["bytes"] / 1e6 / row["first_s"]
        show(
            f"freeze, {number}",
            row,
            f"{speed:.0f} MB/s, {alone:.2f} × one, {row['rows']:,} rows in {row['slices']} slices",
        )
    if workers:
        speed = copy_speed(settings)
        if speed is not None:
            print(f"{'copy of its shards':<22}{'':>31}  {speed:.0f} MB/s with an fsync a file")
        ACTS["export"] = _lake_act(_export)
        show("export", _run("--one", "export", settings), "webdataset")
    print(json.dumps(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=120_000)
    parser.add_argument("--chunks", type=int, default=85, help="of a recording")
    parser.add_argument("--different", type=int, default=6, help="recordings made for real; the others are copies")
    parser.add_argument("--audio", choices=("tiny", "real"), default="tiny")
    parser.add_argument("--folder", type=Path, help="a store of an earlier run, or where to keep this one")
    parser.add_argument("--acts", nargs="*", default=list(ACTS), help="which; none for freezes only")
    parser.add_argument(
        "--workers", nargs="*", type=int, default=list(WORKERS), help="of the freezes; none for no freeze"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--s3", action="store_true", help="in moto's S3 server")
    for hidden in ("--one", "--slices", "--store", "--redis", "--allowed"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one or asked.slices:
        settings = Settings(
            store=asked.store,
            redis_url=asked.redis,
            allowed_sources=(asked.allowed,),
            log_level="error",
            _env_file=None,
        )
        ACTS["export"] = _lake_act(_export)
        result = (
            measure(asked.one, settings, rounds=asked.rounds)
            if asked.one
            else write_slices(settings, *json.loads(asked.slices))
        )
        print(json.dumps(result))
        return
    from services.local.redis_server import EmbeddedRedis

    size = Size(asked.recordings, chunks=asked.chunks, different=asked.different, audio=asked.audio)
    with (
        tempfile.TemporaryDirectory(prefix="k2d-corpus-") as scratch,
        EmbeddedRedis(Path(scratch) / "redis") as server,
        _place(asked, Path(scratch)) as root,
    ):
        allowed = ((Path(scratch) / "sources").as_uri() + "/",)
        settings = Settings(store=root, redis_url=server.url, allowed_sources=allowed, _env_file=None)
        lake = Lake(root)
        if not lake.batches.ids():
            started = time.perf_counter()
            build(lake, size, NAME)
            print(f"built in {time.perf_counter() - started:.0f} s")
        parts = len(batch_index.BatchIndex(lake, lake.batches.get(NAME)).sizes)
        print(f"{asked.recordings:,} recordings, {asked.recordings * asked.chunks:,} chunks, {parts} parts, {root}")
        table(settings, asked.acts, tuple(asked.workers), parts)


@contextmanager
def _place(asked: argparse.Namespace, scratch: Path) -> Iterator[str]:
    """Where the store lies."""
    if not asked.s3:
        yield str(asked.folder or scratch / "store")
        return
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    boto3.client("s3").create_bucket(Bucket="corpus")
    try:
        yield "s3://corpus/store"
    finally:
        server.stop()


if __name__ == "__main__":
    main()
