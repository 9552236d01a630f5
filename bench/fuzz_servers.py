"""The two APIs on this machine, over a store that has something to find, for bench/fuzz.py."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from factories import finished_batch

from k2d.datasets.freeze import freeze
from k2d.filtering.policy import PAPER
from k2d.settings import Settings
from k2d.store import Lake
from services.filter import app as labeling
from services.inference import app as inference
from services.local.redis_server import EmbeddedRedis, free_port

READY_S = 600.0


@dataclass(frozen=True)
class Api:
    """A server, and path parameters that lead somewhere."""

    name: str
    url: str
    app: Any
    known: dict[str, list[str]]


@contextmanager
def labeling_api(folder: Path) -> Iterator[Api]:
    """The labeling API over a finished batch, another one to be cancelled and retried, and a dataset."""
    with EmbeddedRedis(folder / "redis") as redis:
        (folder / "allowed").mkdir(parents=True)
        settings = Settings(
            store=str(folder / "lake"),
            redis_url=redis.url,
            allowed_sources=((folder / "allowed").as_uri() + "/",),
            max_upload_bytes=20_000_000,
            log_level="error",
            _env_file=None,
        )
        lake = Lake(settings.store)
        finished_batch(lake, name="finished")  # which no request may change: its events end
        batch = finished_batch(lake, name="lectures")
        freeze(lake, name="v1", batches=["finished"], policy=PAPER)
        chunk = f"{lake.batches.result(batch.id, 0).facts_key}-00000"  # type: ignore[union-attr]
        known = {"batch": ["lectures", batch.id], "chunk_id": [chunk], "name": ["v1"], "number": ["0", "1", str(2**70)]}
        app = labeling.create_app(settings)
        with serving(app) as url:
            yield Api("labeling", url, app, known)


@contextmanager
def inference_api(folder: Path, model: str | None) -> Iterator[Api]:
    """An inference server with this model; without one it answers, but is never ready."""
    settings = Settings(
        store=str(folder / "lake"),
        teacher=model or "packaged:whisper-base",
        engine="transformers",
        device="cpu",
        threads=1,
        beam_size=1,
        golden="off",
        max_upload_bytes=20_000_000,
        log_level="error",
        _env_file=None,
    )
    app = inference.create_app("teacher", settings)
    if model is None:
        app.state.host.start = lambda: None  # nothing is loaded
    with serving(app) as url:
        deadline = time.monotonic() + READY_S
        while model is not None and httpx.get(f"{url}/readyz").status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                raise SystemExit(f"the model is not ready after {READY_S:.0f} s: {httpx.get(f'{url}/readyz').text}")
            time.sleep(0.2)
        yield Api("inference", url, app, {})


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app on loopback in a thread; yields its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise SystemExit("the server did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def tiny_model(folder: Path) -> str:
    """Whisper's architecture with random weights: a window costs milliseconds."""
    from tiny import tiny_teacher

    return str(tiny_teacher(folder / "tiny"))
