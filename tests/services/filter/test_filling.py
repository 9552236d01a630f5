"""Batches that are opened, filled file by file and closed; lists of URIs that jobs look at; additions to a batch."""

import asyncio
import base64
import hashlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from local_client import LocalClient

from k2d.client import Client, http
from k2d.client.uploads import Uploader
from k2d.documents import BatchOptions
from k2d.errors import K2DError, SourceUnreachable
from k2d.labeling.request import extended
from k2d.schema import BatchState, Outcome, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake
from services.filter import filling, jobs
from services.filter.app import create_app
from services.filter.queue import CONTROL

pytestmark = pytest.mark.integration

DATA = b"".join(bytes([n]) * 1000 for n in range(200))  # 200 kB


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    return tmp_path / "audio"


@pytest.fixture
def app(tmp_path: Path, redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    allowed = folder.as_uri() + "/"
    for name, value in (("STORE", str(tmp_path / "lake")), ("REDIS_URL", redis_url), ("ALLOWED_SOURCES", allowed)):
        monkeypatch.setenv(f"K2D_{name}", value)  # as the jobs' workers have them
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(http, "FORM_FILES", 0)
    app = create_app(Settings(_env_file=None))
    app.state.queue.redis.flushall()
    return app


@pytest.fixture
def api(app: FastAPI) -> Iterator[LocalClient]:
    with LocalClient(app) as client:
        yield client


@pytest.fixture
def client(api: LocalClient) -> Client:
    client = Client("http://127.0.0.1")
    client.http = api
    return client


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def open_batch(api: LocalClient, **options: object) -> str:
    answer = api.post("/v1/batches", params={"open": True}, json=options)
    assert answer.status_code == 201
    return str(answer.json()["id"])


def run_jobs(app: FastAPI) -> None:
    """Run what waits, as a worker does, once each."""
    for job in app.state.queue.waiting(CONTROL):
        getattr(jobs, job.func_name.rpartition(".")[2])(*job.args)


def put_in_pieces(app: FastAPI, path: str, blocks: list[bytes], headers: dict[str, str]) -> list[int]:
    """PUT a body whose connection breaks after these blocks; returns the statuses that were answered."""
    statuses: list[int] = []
    left = iter(blocks)

    async def receive() -> dict[str, Any]:
        block = next(left, None)
        if block is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": block, "more_body": True}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    raw = [(b"host", b"127.0.0.1"), *((name.lower().encode(), value.encode()) for name, value in headers.items())]
    scope = {"type": "http", "method": "PUT", "path": path, "headers": raw, "query_string": b""}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 60))
    return statuses


# ---- by hand ------------------------------------------------------------------------------------------------------


def test_a_batch_is_opened_filled_and_closed_by_its_name(api: LocalClient, lake: Lake) -> None:
    open_batch(api, name="talks", language="zh")
    for name, data in (("week 1/講座.wav", b"one"), ("b.wav", b"two")):
        answer = api.put(f"/v1/batches/talks/sources/{name}", content=data)
        assert (answer.status_code, answer.json()["sha256"]) == (201, hashlib.sha256(data).hexdigest())
        assert (answer.headers["upload-offset"], answer.headers["upload-complete"]) == ("3", "?1")
    status = api.get("/v1/batches/talks").json()
    assert (status["state"], status["recordings"]) == ("open", 2)
    closed = api.post("/v1/batches/talks/close")
    assert (closed.status_code, closed.json()["state"], closed.json()["language"]) == (202, "queued", "zh")
    batch = lake.batches.get("talks")
    assert {source.name for source in batch.sources} == {"week 1/講座.wav", "b.wav"}
    assert {lake.open(source.uri).read() for source in batch.sources} == {b"one", b"two"}
    again = api.post("/v1/batches/talks/close")  # a second time
    assert again.json()["id"] == batch.id
    late = api.put("/v1/batches/talks/sources/c.wav", content=b"three")
    assert (late.status_code, late.json()["code"]) == (409, "conflict")


def test_it_is_the_batch_that_one_request_with_the_same_files_makes(api: LocalClient) -> None:
    whole = api.post("/v1/batches", files=[("files", ("a.wav", b"one"))]).json()
    batch = open_batch(api)
    api.put(f"/v1/batches/{batch}/sources/a.wav", content=b"one")
    assert api.post(f"/v1/batches/{batch}/close").json()["id"] == whole["id"]


def test_an_upload_that_breaks_off_goes_on_where_it_stopped(app: FastAPI, api: LocalClient, lake: Lake) -> None:
    batch = open_batch(api)
    path = f"/v1/batches/{batch}/sources/a.wav"
    for headers in ({}, {"Repr-Digest": digest(DATA)}):
        put_in_pieces(app, path, [DATA[:70_000], DATA[70_000:90_000]], headers)
        state = api.get(path, headers=headers)
        assert (state.json()["offset"], state.json()["complete"]) == (90_000, False)
        assert api.head(path, headers=headers).headers["upload-offset"] == "90000"
        wrong = api.put(path, content=b"x", headers={"Upload-Offset": "5", **headers})
        assert (wrong.status_code, wrong.json()["code"], wrong.json()["offset"]) == (409, "wrong_offset", 90_000)
        more = {"Upload-Offset": "90000", "Upload-Complete": "?0", **headers}
        assert api.put(path, content=DATA[90_000:100_000], headers=more).json()["offset"] == 100_000
        rest = api.put(path, content=DATA[100_000:], headers={"Upload-Offset": "100000", **headers})
        assert (rest.status_code, rest.json()["complete"], rest.json()["offset"]) == (201, True, len(DATA))
        assert api.get(path).json()["sha256"] == hashlib.sha256(DATA).hexdigest()
        assert lake.files.listing("partial") == []
    assert api.post(f"/v1/batches/{batch}/close").status_code == 202


def test_another_draft_goes_on_with_a_file_that_broke_off(app: FastAPI, api: LocalClient) -> None:
    first = open_batch(api)
    put_in_pieces(app, f"/v1/batches/{first}/sources/a.wav", [DATA[:50_000]], {"Repr-Digest": digest(DATA)})
    second = open_batch(api)
    row = {"name": "other.wav", "sha256": hashlib.sha256(DATA).hexdigest(), "size_bytes": len(DATA)}
    [missing] = api.post(f"/v1/batches/{second}/sources", json={"sources": [row]}).json()["missing"]
    assert missing["offset"] == 50_000


def test_what_is_wrong_with_a_file_is_said_and_nothing_of_it_stays(api: LocalClient, lake: Lake) -> None:
    batch = open_batch(api)
    path = f"/v1/batches/{batch}/sources/a.wav"
    differs = api.put(path, content=b"other", headers={"Repr-Digest": digest(b"announced")})
    assert (differs.status_code, differs.json()["code"]) == (409, "content_differs")
    for headers in ({"Repr-Digest": "md5=:x:"}, {"Upload-Offset": "-1"}, {"Upload-Complete": "yes"}):
        assert api.put(path, content=b"x", headers=headers).status_code == 400
    assert lake.files.listing("uploads") == lake.files.listing("partial") == []
    assert api.get(path).status_code == 404
    assert api.put("/v1/batches/none/sources/a.wav", content=b"x").status_code == 404
    assert api.put(path, content=b"one").status_code == 201
    twice = api.put(path, content=b"two")
    assert (twice.status_code, twice.json()["code"]) == (409, "conflict")
    assert api.put(path, content=b"one").status_code == 201


def test_a_batch_with_nothing_or_with_files_missing_is_not_closed(api: LocalClient) -> None:
    batch = open_batch(api)
    assert api.post(f"/v1/batches/{batch}/close").status_code == 400
    row = {"name": "a.wav", "sha256": hashlib.sha256(b"one").hexdigest(), "size_bytes": 3}
    other = row | {"sha256": hashlib.sha256(b"two").hexdigest()}
    assert api.post(f"/v1/batches/{batch}/sources", json={"sources": [row, other]}).status_code == 409
    assert len(api.post(f"/v1/batches/{batch}/sources", json={"sources": [row]}).json()["missing"]) == 1
    refused = api.post(f"/v1/batches/{batch}/close")
    assert (refused.status_code, refused.json()["missing"]) == (409, 1)
    assert "a.wav" in refused.json()["detail"]
    assert api.delete(f"/v1/batches/{batch}").json()["state"] == "cancelled"
    assert api.get(f"/v1/batches/{batch}").status_code == 404


@pytest.mark.parametrize("options", [{"language": "klingon"}, {"teacher": "openai/whisper-large-v3"}, {"x": 1}])
def test_options_are_checked_before_a_file_is_sent(api: LocalClient, options: dict[str, object]) -> None:
    assert api.post("/v1/batches", params={"open": True}, json=options).status_code in (400, 403)


# ---- the client ---------------------------------------------------------------------------------------------------


def test_the_client_sends_every_content_once_and_nothing_a_second_time(
    client: Client, api: LocalClient, folder: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (folder / f"{number}.wav").write_bytes(f"recording {number % 3}".encode())
    sent: list[str] = []
    put = Uploader._put

    def count(self: Uploader, file: Any, offset: int) -> None:
        sent.append(file.name)
        put(self, file, offset)

    monkeypatch.setattr(Uploader, "_put", count)
    first = client.label([str(folder)], BatchOptions(name="talks"))
    assert (first.recordings, len(sent)) == (5, 3)
    assert client.label([str(folder)], BatchOptions(name="talks")).id == first.id
    assert len(sent) == 3
    assert len(lake.files.listing("uploads")) == 3


def test_more_files_than_a_process_may_open_are_sent(client: Client, folder: Path) -> None:
    for number in range(300):
        (folder / f"{number:04d}.wav").write_bytes(str(number).encode())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 100, hard))
    try:
        assert client.label([str(folder)], BatchOptions()).recordings == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_changes_while_it_is_sent_is_sent_as_it_is_then(
    client: Client, folder: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a.wav"
    path.write_bytes(b"before")
    change_once(monkeypatch, lambda: path.write_bytes(b"after it was hashed"))
    status = client.label([str(folder)], BatchOptions(name="talks"))
    [source] = lake.batches.get(status.id).sources
    assert lake.open(source.uri).read() == b"after it was hashed"
    assert len(lake.files.listing("uploads")) == 1


def test_a_file_that_vanishes_is_named_and_the_others_are_kept(
    client: Client, folder: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (folder / f"{name}.wav").write_bytes(name.encode())
    monkeypatch.setattr("k2d.client.uploads.AT_ONCE", 1)
    change_once(monkeypatch, (folder / "b.wav").unlink)
    with pytest.raises(K2DError, match=r"b\.wav.*cannot be read any more"):
        client.label([str(folder)], BatchOptions(name="talks"))
    assert len(lake.files.listing("uploads")) == 1
    assert client.label([str(folder)], BatchOptions(name="talks")).recordings == 1


def change_once(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something after the files were hashed and declared, before the first is sent."""
    send_all = Uploader._send_all
    done: list[bool] = []

    def changed(self: Uploader, files: Any) -> None:
        if not done:
            done.append(True)
            act()
        send_all(self, files)

    monkeypatch.setattr(Uploader, "_send_all", changed)


def test_a_connection_that_breaks_in_the_middle_costs_only_what_was_on_its_way(
    client: Client, folder: Path, lake: Lake, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.wav").write_bytes(DATA)
    monkeypatch.setattr("k2d.client.uploads.RETRIES_S", (0.0, 0.0))
    offsets: list[int] = []
    send = client._send

    def breaking(method: str, path: str, **arguments: Any) -> dict[str, Any]:
        if method == "PUT":
            offsets.append(int(arguments["headers"]["Upload-Offset"]))
            if len(offsets) == 1:
                put_in_pieces(app, path.replace("%2F", "/"), [DATA[:60_000]], arguments["headers"])
                raise http.Unreachable("no API answers")
        return send(method, path, **arguments)

    monkeypatch.setattr(client, "_send", breaking)
    status = client.label([str(folder)], BatchOptions())
    assert offsets == [0, 60_000]
    [source] = lake.batches.get(status.id).sources
    assert lake.open(source.uri).read() == DATA


# ---- URIs ---------------------------------------------------------------------------------------------------------


def test_a_list_of_uris_is_looked_at_by_jobs_in_parts(
    api: LocalClient, app: FastAPI, client: Client, folder: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k2d.store.drafts.PART", 8)
    monkeypatch.setattr(filling, "PART", 8)
    for number in range(20):
        (folder / f"{number:02d}.wav").write_bytes(str(number).encode())
    uris = [(folder / f"{number:02d}.wav").as_uri() for number in range(20)]
    gone, refused = (folder / "gone.wav").as_uri(), "file:///etc/passwd"
    looked = []
    monkeypatch.setattr("k2d.sources.uris.path_status", lambda path: looked.append(path))
    answer = api.post("/v1/batches", json={"name": "talks", "sources": [*uris, gone, refused]})
    monkeypatch.undo()
    assert (answer.status_code, answer.json()["state"], answer.json()["recordings"]) == (202, "preparing", 22)
    assert looked == []
    draft = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/batches/{draft}"
    assert len(app.state.queue.waiting(CONTROL)) == 3
    assert api.get("/v1/batches/talks").json()["state"] == "preparing"


def test_uris_become_a_batch_when_their_last_part_is_described(
    api: LocalClient, app: FastAPI, folder: Path, lake: Lake
) -> None:
    for number in range(20):
        (folder / f"{number:02d}.wav").write_bytes(str(number).encode())
    uris = [path.as_uri() for path in sorted(folder.iterdir())]
    lost = [(folder / "gone.wav").as_uri(), "file:///etc/passwd"]
    posted = api.post("/v1/batches", json={"name": "talks", "sources": [*uris, *lost]})
    draft = posted.json()["id"]
    for again in (f"/v1/batches/{draft}/retry", "/v1/resume"):
        app.state.queue.redis.flushall()
        assert api.get(f"/v1/batches/{draft}").json()["state"] == "stalled"
        assert api.post(again).status_code == 202
        assert api.get(f"/v1/batches/{draft}").json()["state"] == "preparing"
    run_jobs(app)
    batch = lake.batches.get("talks")
    assert {source.uri for source in batch.sources} == {*uris, *lost}
    assert len({source.key for source in batch.sources}) == 22
    assert api.get(posted.headers["location"]).json()["id"] == batch.id
    once_more = api.post("/v1/batches", json={"name": "talks", "sources": [*uris, *lost]})
    run_jobs(app)
    assert api.get(once_more.headers["location"]).json()["id"] == batch.id


def test_a_storage_that_does_not_answer_is_asked_again_and_nothing_is_lost(
    api: LocalClient, app: FastAPI, folder: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(17):
        (folder / f"{number:02d}.wav").write_bytes(str(number).encode())
    uris = [path.as_uri() for path in sorted(folder.iterdir())]
    draft = api.post("/v1/batches", json={"sources": uris}).json()["id"]
    part = lake.drafts.uris(draft, 0)
    describe, failures = filling.sources.describe_lenient, [2]

    def unsteady(uri: str, *arguments: Any, patient: bool, **named: Any) -> Any:
        if failures[0]:
            failures[0] -= 1
            raise SourceUnreachable("503 Slow Down")
        return describe(uri, *arguments, patient=patient, **named)

    monkeypatch.setattr(filling.sources, "describe_lenient", unsteady)
    with pytest.raises(SourceUnreachable):
        filling.describe_uris(part, app.state.settings, True)
    failures[0] = 0
    assert len(filling.describe_uris(part, app.state.settings, True)) == 17
    assert SourceUnreachable.status >= 500  # so that the queue tries the job again


# ---- additions ----------------------------------------------------------------------------------------------------


def test_adding_a_folder_with_one_new_lecture_labels_one_lecture(
    client: Client, api: LocalClient, folder: Path, lake: Lake
) -> None:
    (folder / "monday.wav").write_bytes(b"monday")
    first = client.label([str(folder)], BatchOptions(name="talks", language="zh"), add=True)
    (folder / "tuesday.wav").write_bytes(b"tuesday")
    second = client.label([str(folder)], BatchOptions(name="talks"), add=True)
    assert (second.recordings, second.language, second.id == first.id) == (2, "zh", False)
    assert lake.batches.get("talks").id == second.id
    assert lake.batches.get(first.id).id == first.id
    (folder / "copy of monday.wav").write_bytes(b"monday")
    assert client.label([str(folder)], BatchOptions(name="talks"), add=True).id == second.id
    assert client.label([str(folder)], BatchOptions(name="talks", language="zh")).id == second.id
    assert {row.name for row in client.batches()} == {"talks", first.id}


def test_one_request_adds_too(api: LocalClient, lake: Lake, app: FastAPI, folder: Path) -> None:
    for data in (b"one", b"two"):
        form = {"files": [("files", ("a.wav", data))], "data": {"name": "talks"}, "params": {"add": "true"}}
        assert api.post("/v1/batches", **form).status_code == 202  # type: ignore[arg-type]
    (folder / "b.wav").write_bytes(b"three")
    uri = (folder / "b.wav").as_uri()
    form = {"files": [("files", ("a.wav", b"one"))], "data": {"name": "talks"}}
    again = api.post("/v1/batches", **form)  # type: ignore[arg-type]
    assert again.json()["id"] == lake.batches.get("talks").id  # all of it is there
    posted = api.post("/v1/batches", json={"name": "talks", "sources": [uri]}, params={"add": True})
    run_jobs(app)
    assert api.get(posted.headers["location"]).json()["id"] == lake.batches.get("talks").id
    assert len(lake.batches.get("talks").sources) == 3
    assert api.post("/v1/batches", params={"add": True, "open": True}, json={}).status_code == 400


def test_of_two_additions_at_once_none_is_lost(api: LocalClient, lake: Lake) -> None:
    names = {}
    for data in (b"zero", b"one", b"two"):
        batch = open_batch(api)
        api.put(f"/v1/batches/{batch}/sources/{data.decode()}.wav", content=data)
        names[data] = lake.drafts.sources(batch)
    form = {"files": [("files", ("zero.wav", b"zero"))], "data": {"name": "talks"}}
    api.post("/v1/batches", **form)  # type: ignore[arg-type]
    before = lake.batches.get("talks")
    first, second = (extended(before, names[data]) for data in (b"one", b"two"))
    lake.batches.put_extended(first, of=before)
    with pytest.raises(K2DError) as caught:
        lake.batches.put_extended(second, of=before)
    assert caught.value.status == 409
    assert lake.batches.get("talks").id == first.id
    lake.batches.put_extended(extended(first, names[b"two"]), of=first)
    assert len(lake.batches.get("talks").sources) == 3


def test_a_stalled_state_is_not_what_an_open_batch_has(api: LocalClient) -> None:
    batch = open_batch(api, name="talks")
    status = api.get(f"/v1/batches/{batch}").json()
    assert BatchState(status["state"]) is BatchState.OPEN
    assert status["ledger"]["recordings"]["total"] == 0


def test_results_of_the_old_batch_stay_its_own(api: LocalClient, lake: Lake, client: Client, folder: Path) -> None:
    (folder / "a.wav").write_bytes(b"a")
    first = client.label([str(folder)], BatchOptions(name="talks"))
    lake.batches.put_result(first.id, RecordingResult(0, "a.wav", Outcome.QUARANTINED, 1.0, reason="silent"))
    (folder / "b.wav").write_bytes(b"b")
    second = client.label([str(folder)], BatchOptions(name="talks"), add=True)
    assert second.ledger.recordings.pending == 2  # found again by their keys, without labeling
    assert client.status(first.id).state is BatchState.DONE
