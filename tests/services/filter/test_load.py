"""What clients may not do to the API: hold its memory, its threads, its disk or its event streams."""

import asyncio
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from factories import finished_batch
from fastapi import FastAPI
from local_client import LocalClient

from k2d.documents import BatchOptions
from k2d.errors import NotFound
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake
from services.filter import events, intake
from services.filter.app import create_app
from services.filter.queue import CORPUS
from services.web import limits
from services.web.pools import FOREIGN, PREVIEWS, QUESTIONS, ThreadPool
from services.web.request_metrics import REGISTRY

pytestmark = pytest.mark.integration

MB = 1 << 20


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def app(tmp_path: Path, redis_url: str) -> FastAPI:
    settings = Settings(
        store=str(tmp_path / "lake"), redis_url=redis_url, allowed_sources=("https://",), _env_file=None
    )
    app = create_app(settings)
    app.state.queue.redis.flushall()
    return app


@pytest.fixture
def api(app: FastAPI) -> Iterator[LocalClient]:
    with LocalClient(app) as client:
        yield client


def uploaded(lake: Lake) -> list[str]:
    """All files of uploads, unfinished ones too."""
    folder = Path(lake.files.root) / "uploads"
    return [path.name for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def post_stream(app: FastAPI, body: Iterator[bytes]) -> int:
    """Post a form block by block, as a server passes it on; returns the status."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        block = next(body, None)
        return {"type": "http.request", "body": block or b"", "more_body": block is not None}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/v1/batches", "headers": headers, "query_string": b""}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 60))
    [status] = statuses
    return status


def test_many_files_of_a_megabyte_do_not_grow_memory(app: FastAPI, lake: Lake) -> None:
    files = 40

    def body(files: int) -> Iterator[bytes]:
        for number in range(files):
            yield f'--b\r\nContent-Disposition: form-data; name="files"; filename="{number}.wav"\r\n\r\n'.encode()
            yield from (bytes([number]) * 65536 for _ in range(16))
            yield b"\r\n"
        yield b"--b--\r\n"

    assert post_stream(app, body(1)) == 202  # what is loaded on the first request does not count
    tracemalloc.start()
    try:
        assert post_stream(app, body(files)) == 202
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(uploaded(lake)) == files
    assert peak < 12 * MB


def test_a_refused_upload_leaves_no_file(app: FastAPI, api: LocalClient, lake: Lake) -> None:
    file = ("files", ("a.wav", b"first"))
    assert api.post("/v1/batches", files=[file], data={"name": "taken"}).status_code == 202
    assert len(uploaded(lake)) == 1
    other = ("files", ("b.wav", b"x" * 300_000))
    refused = {
        409: {"data": {"name": "taken"}},
        400: {"data": {"language": "klingon"}},
        403: {"data": {"teacher": "openai/whisper-large-v3"}},
        422: {"params": {"dry_run": "maybe"}},
    }
    for status, arguments in refused.items():
        assert api.post("/v1/batches", files=[other], **arguments).status_code == status  # type: ignore[arg-type]
        assert len(uploaded(lake)) == 1, status
    cut = b'--b\r\nContent-Disposition: form-data; name="files"; filename="c.wav"\r\n\r\n' + b"x" * 600_000
    assert post_stream(app, iter([cut])) == 400
    assert api.post("/v1/batches", files=[other], params={"dry_run": "true"}).status_code == 200
    assert len(uploaded(lake)) == 1


def test_a_form_has_only_so_many_files(api: LocalClient, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_FILES", 2)
    files = [("files", (f"{number}.wav", b"x")) for number in range(3)]
    assert api.post("/v1/batches", files=files).status_code == 400
    assert uploaded(lake) == []


def test_documents_are_small_and_few_at_once(api: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCUMENT_BYTES", 1000)
    for path in ("/v1/batches", "/v1/datasets", "/v1/policies/preview"):
        answer = api.post(path, json={"sources": ["s3://" + "x" * 1000]})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large"), path
    monkeypatch.setattr(limits, "DOCUMENTS_BYTES", 100)
    answer = api.post("/v1/policies/preview", json={"batches": ["x" * 150]})
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    monkeypatch.undo()
    assert api.post("/v1/policies/preview", json={"batches": ["x" * 150]}).status_code == 404


def test_readiness_waits_for_no_foreign_host(api: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    release, asked = threading.Event(), threading.Semaphore(0)

    def hang(*_: object, **__: object) -> None:
        asked.release()
        release.wait(60)
        raise NotFound("the server never answered")

    monkeypatch.setattr(intake, "store_batch", hang)
    monkeypatch.setattr("services.filter.batches.store_batch", hang)
    with ThreadPoolExecutor(45) as pool:
        body = {"sources": ["https://slow.example/a.wav"]}
        posts = [pool.submit(api.post, "/v1/batches", json=body) for _ in range(45)]
        try:
            for _ in range(8):
                assert asked.acquire(timeout=30)
            for path in ("/readyz", "/healthz", "/metrics", "/v1/batches", "/v1/datasets"):
                assert api.get(path).status_code == 200, path
        finally:
            release.set()
        answers = sorted(post.result(60).status_code for post in posts)
    assert set(answers) == {404, 503}  # 8 in threads and 32 waiting; the others were told to come again
    assert answers.count(404) == FOREIGN.most


@pytest.mark.parametrize(
    ("path", "work", "pool"),
    [
        ("/v1/policies/audit", "services.filter.policies.audit", QUESTIONS),
        ("/v1/policies/preview", "services.filter.policies.views.preview", PREVIEWS),
        ("/v1/draws", "services.filter.reviews.make_draw", QUESTIONS),
    ],
)
def test_questions_over_corpora_hold_up_nobody_else(
    api: LocalClient, lake: Lake, monkeypatch: pytest.MonkeyPatch, path: str, work: str, pool: ThreadPool
) -> None:
    finished_batch(lake)
    release, asked = threading.Event(), threading.Semaphore(0)

    def take_long(*_: object, **__: object) -> None:
        asked.release()
        release.wait(60)
        raise NotFound("it took long")

    monkeypatch.setattr(work, take_long)
    assert pool.most is not None
    count = pool.most + 10  # more than the threads that all other requests share
    with ThreadPoolExecutor(count) as clients:
        posts = [clients.submit(api.post, path, json={"batches": ["lectures"]}) for _ in range(count)]
        try:
            assert asked.acquire(timeout=30)
            for other in ("/v1/batches", "/v1/batches/lectures", "/v1/datasets", "/readyz"):
                assert api.get(other).status_code == 200, other
        finally:
            release.set()
        answers = [post.result(60) for post in posts]
    assert {answer.status_code for answer in answers} == {404, 503}
    busy = [answer for answer in answers if answer.status_code == 503]
    assert {answer.json()["code"] for answer in busy} == {"busy"}
    assert all(answer.headers["Retry-After"] for answer in busy)


def test_ten_listeners_cost_one_look(app: FastAPI, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENT_S", 0.02)
    batch = finished_batch(lake)
    lake.batches.delete_result(batch.id, 0)
    looks = []
    feeds = events.BatchFeeds(lambda batch: looks.append(1) or app.state.feeds._look(batch))

    async def run() -> None:
        listeners = [feeds.listen(batch, "key") for _ in range(10)]
        stopping = events.anyio.Event()
        streams = [listener.events(stopping) for listener in listeners]
        firsts = await asyncio.gather(*(anext(stream) for stream in streams))
        assert {first.event for first in firsts} == {"status"}
        assert len(looks) == 1
        lake.batches.cancel(batch.id)
        ends = await asyncio.gather(*(anext(stream) for stream in streams))
        assert {end.event for end in ends} == {"end"}
        for listener in listeners:
            listener.close()
        assert feeds._feeds == {}
        assert not feeds._by_key

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_key_has_only_so_many_event_streams_and_all_keys_too(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_OF_A_KEY", 2)
    monkeypatch.setattr(events, "MOST", 3)
    batch = finished_batch(lake)

    async def run() -> None:
        feeds = events.BatchFeeds(lambda _: None)  # type: ignore[arg-type, return-value]
        listeners = [feeds.listen(batch, key) for key in ("a", "a", "b")]
        for key, status in (("a", 429), ("b", 503)):
            with pytest.raises(events.TooManyListeners) as caught:
                feeds.listen(batch, key)
            assert caught.value.status == status
        listeners.pop().close()
        listeners.append(feeds.listen(batch, "b"))
        for listener in listeners:
            listener.close()

    asyncio.run(run())


def test_a_batch_that_is_gone_ends_its_event_streams(lake: Lake) -> None:
    def look(_: object) -> None:
        raise NotFound("the batch is gone")

    async def run() -> None:
        feeds = events.BatchFeeds(look)  # type: ignore[arg-type]
        listener = feeds.listen(finished_batch(lake), "key")
        with pytest.raises(NotFound):
            await anext(listener.events(events.anyio.Event()))
        listener.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_metrics_have_a_fixed_set_of_labels(api: LocalClient) -> None:
    def series() -> int:
        return sum(len(metric.samples) for metric in REGISTRY.collect() if metric.name.startswith("k2d_http"))

    for path in ("/v1/batches", "/nothing"):
        api.request("MADEUP", path)
    api.get("/nothing")
    before = series()
    for number in range(50):
        api.request(f"MADEUP{number}", "/v1/batches")
        api.request(f"MADEUP{number}", f"/nothing/{number}")
        api.get(f"/nothing/{number}")
    assert series() == before


def test_of_many_freezes_of_one_name_at_once_one_is_accepted(api: LocalClient, lake: Lake) -> None:
    finished_batch(lake)
    barrier = threading.Barrier(20)

    def freeze(number: int) -> int:
        body = {"name": "v1", "batches": ["lectures"], "policy": {"name": f"p{number}", "alpha": number / 20}}
        barrier.wait(30)
        return api.post("/v1/datasets", json=body).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(freeze, range(20)))
    assert statuses == [202] + [409] * 19
    assert len(api.app.state.queue.waiting(CORPUS)) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 3000},
        {"validator": "+".join(f"packaged:whisper-tiny{n}" for n in range(17))},
        {"teacher": "x" * 2000},
        {"terms": "x" * 200_000},
        {"language": "x" * 200},
    ],
)
def test_options_have_bounds(api: LocalClient, lake: Lake, options: dict[str, object]) -> None:
    answer = api.post("/v1/batches", files=[("files", ("a.wav", b"x"))], data=options)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert uploaded(lake) == []


def test_a_source_with_an_endless_address_is_refused(api: LocalClient) -> None:
    assert api.post("/v1/batches", json={"sources": ["https://a.example/" + "x" * 9000]}).status_code == 400


def test_a_batch_of_staged_files_is_the_batch_of_stored_ones(lake: Lake) -> None:
    with lake.uploads.stage() as staged:
        staged.write(b"audio")
        staged.finish()
        file = intake.UploadedFile("a.wav", staged)
        source = file.source
        staged.commit()
    settings = Settings(store=str(lake.files.root), _env_file=None)
    uri, sha256, size = lake.uploads.put(__import__("io").BytesIO(b"audio"))
    assert source == Source("a.wav", uri, source.key, size, sha256=sha256)
    assert make_batch([source], BatchOptions(), settings).sources == (source,)
