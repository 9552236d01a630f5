"""The labeling API over a real lake and a real Redis. No worker runs: what is queued stays queued."""

import asyncio
import io
import json
import wave
from pathlib import Path

import pytest
from factories import finished_batch, tone
from local_client import LocalClient

from k2d.client import Client, Embedded
from k2d.datasets.pull import pull
from k2d.documents import ChunkFilter
from k2d.errors import K2DError
from k2d.filtering.policy import PAPER
from k2d.schema import Outcome, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.manifest import Manifest
from services.filter import batches, events, jobs
from services.filter.app import create_app
from services.filter.queue import CORPUS

pytestmark = pytest.mark.integration


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def settings(tmp_path, redis_url):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    return Settings(
        store=str(tmp_path / "lake"),
        redis_url=redis_url,
        allowed_sources=(allowed.as_uri() + "/",),
        max_upload_bytes=3_000_000,
        _env_file=None,
    )


@pytest.fixture
def api(settings):
    app = create_app(settings)
    app.state.queue.redis.flushall()
    with LocalClient(app) as client:
        yield client


def wav(seconds=1.0, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(tone(seconds).repeat(channels).tobytes())
    return file.getvalue()


def upload(api, *files, **arguments):
    parts = [("files", (name, data, "audio/wav")) for name, data in files]
    return api.post("/v1/batches", files=parts, **arguments)


def assert_problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert {"type", "title", "status", "code", "detail"} <= set(document)
    assert (document["status"], document["code"]) == (status, code), document
    return document


# ---- batches ------------------------------------------------------------------------------------------------------


def test_post_files_is_accepted_queued_and_idempotent(api):
    first = upload(api, ("a.wav", wav()), ("b.wav", wav(2)), data={"name": "talks", "language": "zh"})
    assert first.status_code == 202
    batch = first.json()
    assert first.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["state"], batch["name"], batch["language"], batch["recordings"]) == ("queued", "talks", "zh", 2)
    again = upload(api, ("b.wav", wav(2)), ("a.wav", wav()), data={"language": "zh"}).json()
    assert again["id"] == batch["id"]
    assert again["jobs"]["jobs_queued"] == 1  # not queued twice
    assert api.get("/v1/batches/talks").json()["id"] == batch["id"]
    assert [row["state"] for row in api.get("/v1/batches").json()["batches"]] == ["queued"]


def test_a_batch_that_is_done_is_answered_200_and_one_with_missing_results_is_queued_again(api, lake):
    batch = upload(api, ("a.wav", wav())).json()["id"]
    lake.batches.put_result(batch, RecordingResult(0, "a.wav", Outcome.QUARANTINED, 1.0, reason="silent"))
    again = upload(api, ("a.wav", wav()))
    assert (again.status_code, again.json()["state"]) == (200, "done")
    assert again.headers["location"] == f"/v1/batches/{batch}"
    lake.batches.delete_result(batch, 0)
    api.app.state.queue.redis.flushall()
    once_more = upload(api, ("a.wav", wav()))
    assert (once_more.status_code, once_more.json()["state"]) == (202, "queued")


def test_listing_asks_redis_about_unfinished_batches_only(api, lake, monkeypatch):
    finished_batch(lake)
    batch = upload(api, ("a.wav", wav())).json()["id"]
    asked = []
    monkeypatch.setattr(api.app.state.queue, "live_many", lambda ids: asked.extend(ids) or {})
    states = {row["id"]: row["state"] for row in api.get("/v1/batches").json()["batches"]}
    assert states.pop(batch) == "stalled"
    assert set(states.values()) == {"done"}
    assert asked == [batch]


def test_batches_page_by_page(api):
    ids = [upload(api, ("a.wav", wav(1 + n / 10))).json()["id"] for n in range(3)]
    first = api.get("/v1/batches", params={"limit": 2}).json()
    rest = api.get("/v1/batches", params={"limit": 2, "cursor": first["next"]}).json()
    assert len(first["batches"]) == 2
    assert rest["next"] is None
    assert {row["id"] for row in first["batches"] + rest["batches"]} == set(ids)


def test_odd_file_names_survive(api, lake):
    names = ["line\nbreak 🎧.wav", 'quo"te.wav', "../../etc/passwd.wav", "講座.wav"]
    batch = upload(api, *((name, wav(1 + n / 10)) for n, name in enumerate(names))).json()
    assert {source.name for source in lake.batches.get(batch["id"]).sources} == set(names)


def test_dry_run_forecasts_and_stores_nothing(api, lake):
    answer = upload(api, ("a.wav", wav(3)), ("b.wav", b"garbage"), params={"dry_run": True})
    assert answer.status_code == 200
    forecast = answer.json()
    assert (forecast["recordings"], forecast["unknown"], forecast["windows"]) == (2, 1, 1)
    assert forecast["not_audio"] == ["b.wav"]
    assert forecast["estimated_s"] is None
    assert "has not measured" in forecast["basis"]
    assert list(lake.batches.all()) == []


def test_a_dry_run_counts_each_channel_that_would_be_labeled(api):
    files = (("call.wav", wav(3, channels=2)), ("talk.wav", wav(3)))
    for channels, recordings in (("mix", 2), ("each", 3)):
        answer = upload(api, *files, params={"dry_run": True}, data={"channels": channels})
        assert (answer.status_code, answer.json()["recordings"]) == (200, recordings)
        assert answer.json()["not_audio"] == []
    forecast = upload(api, *files, params={"dry_run": True}, data={"channels": "2"}).json()
    assert (forecast["recordings"], forecast["windows"], forecast["not_audio"]) == (2, 1, [])
    assert forecast["no_channel"] == {"talk.wav": "The file has 1 channel; channel 2 was asked for."}


def test_dry_run_by_reference_reads_headers_and_stores_nothing(api, lake, tmp_path):
    (tmp_path / "allowed" / "a.wav").write_bytes(wav(3))
    (tmp_path / "allowed" / "b.wav").write_bytes(b"garbage")
    uris = [(tmp_path / "allowed" / name).as_uri() for name in ("a.wav", "b.wav")]
    answer = api.post("/v1/batches", json={"sources": uris}, params={"dry_run": True})
    assert (answer.status_code, answer.json()["recordings"], answer.json()["unknown"]) == (200, 2, 1)
    assert list(lake.batches.all()) == []


def test_post_by_reference_needs_an_allowed_prefix(api, settings, tmp_path):
    inside = tmp_path / "allowed" / "a.wav"
    inside.write_bytes(wav())
    (tmp_path / "secret.wav").write_bytes(wav())
    assert api.post("/v1/batches", json={"sources": [inside.as_uri()]}).status_code == 202
    for uri in (
        (tmp_path / "secret.wav").as_uri(),
        (tmp_path / "allowed").as_uri() + "/../secret.wav",
        "https://169.254.169.254/latest/meta-data",
        "s3://elsewhere/a.wav",
    ):
        assert_problem(api.post("/v1/batches", json={"sources": [uri]}), 403, "source_refused")
    assert_problem(
        api.post("/v1/batches", json={"sources": [(tmp_path / "allowed" / "no.wav").as_uri()]}), 404, "not_found"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "bad_request"),
        ({"json": {"sources": []}}, 400, "bad_request"),
        ({"json": {"sources": ["file:///x"], "langauge": "zh"}}, 400, "bad_request"),
        (
            {"data": {"language": "zh"}, "files": [("files", ("a.wav", b"x"))], "params": {"dry_run": "maybe"}},
            422,
            "invalid_request",
        ),
        ({"data": {"language": "klingon"}, "files": [("files", ("a.wav", b"x"))]}, 400, "bad_request"),
        ({"data": {"teacher": "none such"}, "files": [("files", ("a.wav", b"x"))]}, 400, "bad_request"),
        ({"data": {"files": "not a file"}, "files": [("other", ("a.wav", b"x"))]}, 400, "bad_request"),
        (
            {"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "bad_request",
        ),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_request"),
    ],
)
def test_bad_posts_are_problems_and_store_nothing(api, lake, arguments, status, code):
    assert_problem(api.post("/v1/batches", **arguments), status, code)
    assert list(lake.batches.all()) == []


def test_a_body_over_the_limit_is_refused_by_its_claim_and_by_its_bytes(api, lake):
    assert_problem(upload(api, ("a.wav", b"\0" * 3_000_001)), 413, "too_large")

    def endless():
        for _ in range(100):
            yield b"\0" * 100_000

    for kind in ("multipart/form-data; boundary=x", "application/json"):  # chunked: no claim at all
        answer = api.post("/v1/batches", content=endless(), headers={"content-type": kind})
        assert_problem(answer, 413, "too_large")
    assert list(lake.batches.all()) == []


def test_a_name_belongs_to_one_batch(api):
    upload(api, ("a.wav", wav()), data={"name": "talks"})
    assert_problem(upload(api, ("b.wav", wav(2)), data={"name": "talks"}), 409, "conflict")


def test_cancel_retry_and_events(api):
    batch = upload(api, ("a.wav", wav())).json()["id"]
    assert api.delete(f"/v1/batches/{batch}").json()["state"] == "cancelled"
    with api.stream("GET", f"/v1/batches/{batch}/events") as answer:
        lines = list(answer.iter_lines())
    assert lines[0] == "event: end"
    assert json.loads(lines[1].removeprefix("data: "))["state"] == "cancelled"
    retried = api.post(f"/v1/batches/{batch}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "queued")


def follow(api, batch, *, leave):
    """Follow a batch's events as a server would, and disconnect once `leave` says so; what was sent, as text."""
    sent, gone = [], asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message.get("body", b"").decode())
        if leave("".join(sent)):
            gone.set()

    path = f"/v1/batches/{batch}/events"
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    asyncio.run(asyncio.wait_for(api.app(scope, receive, send), 60))
    return "".join(sent)


def test_events_come_when_something_changes_with_comments_between_and_stop_when_the_client_leaves(
    api, lake, monkeypatch
):
    batch = upload(api, ("a.wav", wav())).json()["id"]
    monkeypatch.setattr(events, "EVENT_S", 0.01)
    monkeypatch.setattr(events, "PING_S", 0.05)
    monkeypatch.setattr(events, "REST_SHARE", 0)
    looks = []
    look = batches.batch_status
    monkeypatch.setattr(batches, "batch_status", lambda *arguments: looks.append(1) or look(*arguments))
    text = follow(api, batch, leave=lambda sent: sent.count(": ping") == 2)
    assert text.count("event: status\ndata: {") == 1  # nothing changed
    assert len(looks) > 1
    before = len(looks)
    done = RecordingResult(0, "a.wav", Outcome.QUARANTINED, 1.0, reason="silent")
    text = follow(api, batch, leave=lambda sent: lake.batches.put_result(batch, done) if "event: status" in sent else 0)
    assert [line for line in text.splitlines() if line.startswith("event")] == ["event: status", "event: end"]
    assert text.endswith("}\n\n")
    assert len(looks) > before


def test_retry_takes_quarantined_recordings_up_again(api, lake):
    batch = finished_batch(lake)
    assert api.get(f"/v1/batches/{batch.id}").json()["state"] == "done"
    status = api.post(f"/v1/batches/{batch.id}/retry").json()
    assert (status["state"], status["ledger"]["recordings"]["pending"]) == ("queued", 1)


def test_resume_after_redis_was_flushed_queues_exactly_what_is_missing(api, lake):
    finished_batch(lake)
    batch = upload(api, ("a.wav", wav()), ("b.wav", wav(2))).json()["id"]
    api.app.state.queue.redis.flushall()
    assert api.get(f"/v1/batches/{batch}").json()["state"] == "stalled"
    with lake.heartbeats.beating(batch):  # `k2d label` in another process
        left_out = api.post("/v1/resume").json()
    assert (left_out["batches"], list(left_out["at_work"])) == ({}, [batch])
    with lake.heartbeats.beating(batch, has_job=True):  # a worker, whose job went with Redis
        assert api.post("/v1/resume").json() == {"batches": {batch: 2}, "failed": {}, "at_work": {}}
    assert api.get(f"/v1/batches/{batch}").json()["state"] == "queued"


def test_a_damaged_record_stops_neither_the_list_nor_the_resuming_of_the_others(api, lake):
    damaged = finished_batch(lake, name="damaged").id
    batch = upload(api, ("a.wav", wav())).json()["id"]
    api.app.state.queue.redis.flushall()
    lake.files.write(f"batches/{damaged}/batch.json", b"{}")
    rows = {row["id"]: row for row in api.get("/v1/batches").json()["batches"]}
    assert (rows[damaged]["state"], rows[batch]["state"]) == ("damaged", "stalled")
    assert "k2d label" in rows[damaged]["error"]
    result = api.post("/v1/resume").json()
    assert result["batches"] == {batch: 1}
    assert list(result["failed"]) == [damaged]


def test_errors_are_the_same_from_an_api_and_in_this_process(api, lake, settings):
    finished_batch(lake)
    client = Client("http://testserver")
    client.http = api
    asks = (
        lambda backend: backend.status("nothing"),
        lambda backend: backend.manifest("nothing"),
        lambda backend: list(backend.chunks("lectures", where=ChunkFilter(recording="nothing.wav"))),
        lambda backend: backend.chunk("nothing"),
        lambda backend: backend.freeze("../x", ["lectures"]),
    )
    for ask in asks:
        errors = []
        for backend in (client, Embedded(settings)):
            with pytest.raises(K2DError) as caught:
                ask(backend)
            errors.append((caught.value.code, caught.value.status, caught.value.message, caught.value.hint))
        assert errors[0] == errors[1]


def test_ledger_adds_up(api, lake):
    finished_batch(lake)
    status = api.get("/v1/batches/lectures", params={"policy": "paper"}).json()
    seconds = status["ledger"]["seconds"]
    assert seconds == {
        "in": 50.0, "accepted": 20.0, "salvaged": 0.0, "rejected": 20.0, "quarantined": 0.0, "silence": 10.0
    }  # fmt: skip
    assert status["quarantined"] == [
        {"recording": "z-broken.mp3", "reason": "not_audio", "detail": "garbage", "duration_s": 0.0}
    ]
    everything = api.get("/v1/batches/lectures", params={"metric": "mer_bounded", "alpha": 1}).json()
    assert everything["ledger"]["seconds"]["accepted"] > 20.0


# ---- chunks -------------------------------------------------------------------------------------------------------


def test_chunks_page_by_page_equal_all_at_once(api, lake):
    finished_batch(lake, recordings=3)
    whole = api.get("/v1/chunks", params={"batch": "lectures"}).json()
    assert len(whole["chunks"]) == 12
    assert whole["next"] is None
    paged, cursor = [], None
    while True:
        query = {"batch": "lectures", "limit": 5} | ({"cursor": cursor} if cursor else {})
        page = api.get("/v1/chunks", params=query).json()
        paged += page["chunks"]
        cursor = page["next"]
        if cursor is None:
            break
    assert paged == whole["chunks"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"verdict": "accepted"}, 4),
        ({"reason": "teacher_repetition"}, 2),
        ({"recording": "talk-0.wav"}, 4),
        ({"text": "DEADLINE"}, 2),
        ({"min_distance": 0.5}, 4),
        ({"verdict": "rejected", "recording": "talk-1.wav"}, 2),
        ({"max_distance": 0.0}, 4),
    ],
)
def test_chunk_filters(api, lake, query, count):
    finished_batch(lake)
    asked = {"batch": "lectures", "policy": "paper", **query}
    assert len(api.get("/v1/chunks", params=asked).json()["chunks"]) == count


@pytest.mark.parametrize("query", [{"verdict": "good"}, {"text": "x" * 201}, {"min_distance": "far"}, {"limit": 0}])
def test_impossible_chunk_filters_are_refused(api, lake, query):
    finished_batch(lake)
    assert_problem(api.get("/v1/chunks", params={"batch": "lectures", **query}), 422, "invalid_request")


def test_chunk_detail_and_audio_ranges(api, lake):
    finished_batch(lake)
    row = api.get("/v1/chunks", params={"batch": "lectures", "verdict": "rejected"}).json()["chunks"][0]
    chunk = api.get(f"/v1/chunks/{row['id']}").json()
    assert chunk["teacher_text"] == row["teacher_text"]
    assert {step["op"] for step in chunk["hypotheses"][0]["diff"]} > {"equal"}
    assert chunk["distances"] == row["distances"]
    assert chunk["distances"]["per"] > 0
    whole = api.get(f"/v1/chunks/{row['id']}/audio")
    assert whole.headers["content-type"] == "audio/flac"
    assert whole.content[:4] == b"fLaC"
    size = len(whole.content)
    for header, expected in (
        ("bytes=0-99", whole.content[:100]),
        (f"bytes={size - 10}-", whole.content[-10:]),
        ("bytes=-10", whole.content[-10:]),
        (f"bytes=5-{size + 99}", whole.content[5:]),
    ):
        part = api.get(f"/v1/chunks/{row['id']}/audio", headers={"Range": header})
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["content-range"].endswith(f"/{size}")
    assert_problem(
        api.get(f"/v1/chunks/{row['id']}/audio", headers={"Range": f"bytes={size}-"}), 416, "range_not_satisfiable"
    )


@pytest.mark.parametrize(
    "path", ["/v1/batches/none", "/v1/chunks/none-00000", "/v1/chunks/x/audio", "/v1/datasets/none"]
)
def test_what_is_not_there_is_404(api, path):
    assert_problem(api.get(path), 404, "not_found")


def test_a_damaged_cursor_is_refused(api, lake):
    finished_batch(lake)
    assert_problem(api.get("/v1/chunks", params={"batch": "lectures", "cursor": "%%%"}), 400, "bad_request")
    assert_problem(api.get("/v1/batches", params={"cursor": "b_0"}), 400, "bad_request")


def test_a_batch_has_terms(api):
    plain = upload(api, ("a.wav", wav())).json()
    assert (plain["terms"], plain["terms_left_out"]) == ([], [])
    told = upload(api, ("a.wav", wav()), data={"terms": "NTU COOL\r\nloss, 反向傳播"})
    assert told.status_code == 202
    assert told.json()["terms"] == ["NTU COOL", "loss", "反向傳播"]
    assert told.json()["id"] != plain["id"]
    assert api.get(f"/v1/batches/{told.json()['id']}").json()["terms"] == ["NTU COOL", "loss", "反向傳播"]
    for bad in (",", "<|en|>", "a\x00b"):
        assert_problem(upload(api, ("a.wav", wav()), data={"terms": bad}), 400, "bad_request")


# ---- policies and datasets ----------------------------------------------------------------------------------------


def test_preview_and_its_curve(api, lake):
    finished_batch(lake)
    paper = PAPER.model_dump(mode="json")
    preview = api.post("/v1/policies/preview", json={"batches": ["lectures"], "policy": paper}).json()
    assert preview["chunks"] == {"accepted": 4, "salvaged": 0, "rejected": 4}
    assert set(preview["curve"]) == {"composite"}
    asked = {"batches": ["lectures"], "curve": ["mer", "evidence"]}
    assert set(api.post("/v1/policies/preview", json=asked).json()["curve"]) == {"mer", "evidence"}
    assert preview["reasons"]["teacher_repetition"] == {"chunks": 2, "seconds": 10.0}
    for points in preview["curve"].values():
        kept = [point["seconds"] for point in points]
        assert kept == sorted(kept)
        assert points[0]["alpha"] == 0.0
        assert points[-1]["alpha"] == 1.0


@pytest.mark.parametrize("policy", [{"metric": "composite", "alpha": 1.5}, {"metric": "wer"}, {"alhpa": 0.4}])
def test_impossible_policies_are_refused(api, lake, policy):
    finished_batch(lake)
    body = {"batches": ["lectures"], "policy": {"name": "mine", "metric": "mer", "alpha": 0.4} | policy}
    assert_problem(api.post("/v1/policies/preview", json=body), 422, "invalid_request")


def test_presets_explain_themselves(api):
    presets = api.get("/v1/policies").json()
    assert {preset["policy"]["name"] for preset in presets} == {"evidence", "paper"}
    assert all(len(preset["explanation"]) > 40 for preset in presets)


LOOSE = {"batches": ["lectures"], "policy": {"name": "loose", "metric": "mer", "alpha": 1.0}}
OTHER = {"batches": ["lectures"], "policy": {"name": "x", "metric": "mer", "alpha": 0.1}}


@pytest.fixture
def freeze(api, settings, monkeypatch):
    """Ask for a dataset and do the worker's part of it."""
    monkeypatch.setattr(jobs, "load", lambda: settings)

    def ask(name, **request):
        answer = api.post("/v1/datasets", json={"name": name, **LOOSE, **request})
        assert (answer.status_code, answer.json()["state"]) == (202, "building")
        assert answer.headers["location"] == f"/v1/datasets/{name}"
        job = api.app.state.queue.waiting(CORPUS)[-1]
        jobs.freeze_dataset(*job.args)
        job.set_status("finished")
        return api.get(f"/v1/datasets/{name}").json()

    return ask


def test_a_dataset_is_frozen_by_a_job_and_pulled_with_nothing_but_the_api(api, lake, freeze, tmp_path):
    finished_batch(lake)
    gone = api.get("/v1/chunks", params={"batch": "lectures"}).json()["chunks"][0]["id"]
    ready = freeze("v1", without=[gone])
    assert ready["state"] == "ready"
    assert ready["manifest"]["without"]["found"] == 1
    assert ready["manifest"]["counts"]["rejected"] == 3  # it, and two that loop
    again = api.post("/v1/datasets", json={"name": "v1", **LOOSE, "without": [gone]})
    assert (again.status_code, again.json()["state"]) == (202, "ready")
    assert again.headers["location"] == "/v1/datasets/v1"
    [row] = api.get("/v1/datasets").json()["datasets"]
    assert (row["name"], row["rows"]) == ("v1", ready["manifest"]["counts"]["rows"])

    class Remote:
        def manifest(self, name):
            return Manifest.model_validate(api.get(f"/v1/datasets/{name}").json()["manifest"])

        def shard(self, name, number):
            yield api.get(f"/v1/datasets/{name}/shards/{number}").content

    mine = Lake(str(tmp_path / "mine"))
    assert pull(Remote(), "v1", mine) == lake.datasets.manifest("v1")
    assert mine.datasets.open_shard("v1", 0).read() == lake.datasets.open_shard("v1", 0).read()
    assert_problem(api.get("/v1/datasets/v1/shards/7"), 404, "not_found")
    shard = Path(lake.datasets.shard_path("v1", 0))
    for damage in (shard.read_bytes()[:-100], shard.read_bytes()[:-1] + b"2"):
        shard.write_bytes(damage)
        assert_problem(api.get("/v1/datasets/v1/shards/0"), 503, "damaged_file")


def test_a_name_belongs_to_one_dataset_while_it_is_made_and_after(api, lake, freeze):
    finished_batch(lake)
    assert api.post("/v1/datasets", json={"name": "v1", **LOOSE}).status_code == 202
    for _ in range(2):
        assert_problem(api.post("/v1/datasets", json={"name": "v1", **OTHER}), 409, "conflict")
        assert api.post("/v1/datasets", json={"name": "v1", **LOOSE}).status_code == 202
        jobs.freeze_dataset(*api.app.state.queue.waiting(CORPUS)[0].args)
    assert len(api.app.state.queue.waiting(CORPUS)) == 1
    assert_problem(api.post("/v1/datasets", json={"name": "v2", **LOOSE, "without": ["x"]}), 400, "bad_request")
    assert_problem(api.post("/v1/datasets", json={"name": "../v2", **LOOSE}), 400, "bad_request")
    assert_problem(api.post("/v1/datasets", json={"name": "v2", "batches": ["none"]}), 404, "not_found")


def test_a_dataset_is_frozen_in_one_script(api, lake, freeze):
    finished_batch(lake)
    as_heard = freeze("v1")["manifest"]
    assert as_heard["script"] is None
    ready = freeze("v2", script="traditional")["manifest"]
    assert (ready["script"]["name"], ready["script"]["standard"]) == ("traditional", "s2tw")
    assert ready["digest"] != as_heard["digest"]
    assert api.post("/v1/datasets", json={"name": "v2", **LOOSE, "script": "traditional"}).json()["state"] == "ready"
    for script in ("simplified", "as-heard"):
        assert_problem(api.post("/v1/datasets", json={"name": "v2", **LOOSE, "script": script}), 409, "conflict")
    assert_problem(api.post("/v1/datasets", json={"name": "v3", **LOOSE, "script": "cyrillic"}), 422, "invalid_request")


def test_a_freeze_that_failed_says_why_and_may_be_asked_for_again(api, lake):
    finished_batch(lake)
    api.post("/v1/datasets", json={"name": "v1", **LOOSE})
    [job] = api.app.state.queue.waiting(CORPUS)
    job.meta["error"] = "the disk is full"
    job.save_meta()
    job.set_status("failed")
    state = api.get("/v1/datasets/v1").json()
    assert (state["state"], state["error"]) == ("failed", "the disk is full")
    assert api.post("/v1/datasets", json={"name": "v1", **OTHER}).json()["state"] == "building"


def test_a_deleted_dataset_is_gone_its_labels_stay_and_its_name_is_free(api, lake, freeze):
    batch = finished_batch(lake)
    manifest = freeze("v1")["manifest"]
    assert_problem(api.delete("/v1/datasets/v2"), 404, "not_found")
    deleted = api.delete("/v1/datasets/v1")
    assert (deleted.status_code, deleted.json()["digest"]) == (200, manifest["digest"])
    for path in ("/v1/datasets/v1", "/v1/datasets/v1/shards/0"):
        assert_problem(api.get(path), 404, "not_found")
    assert_problem(api.delete("/v1/datasets/v1"), 404, "not_found")
    assert api.get("/v1/datasets").json() == {"datasets": []}
    status = api.get(f"/v1/batches/{batch.id}").json()
    assert (status["state"], status["ledger"]["recordings"]["labeled"]) == ("done", 2)
    chunk = api.get("/v1/chunks", params={"batch": "lectures"}).json()["chunks"][0]["id"]
    assert api.get(f"/v1/chunks/{chunk}/audio").content[:4] == b"fLaC"
    assert freeze("v1", **OTHER)["manifest"]["policy"]["name"] == "x"


# ---- operations ---------------------------------------------------------------------------------------------------


def test_health_readiness_and_metrics(api):
    assert api.get("/healthz").json()["status"] == "ok"
    assert api.get("/readyz").status_code == 200
    upload(api, ("a.wav", wav()))
    text = api.get("/metrics").text
    assert 'k2d_queue_jobs{queue="k2d-control"} 1.0' in text
    assert 'k2d_http_requests_total{method="POST",route="/v1/batches",status="202"}' in text


def test_without_redis_the_api_says_so_and_loses_nothing(settings, lake):
    with LocalClient(
        create_app(settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://127.0.0.1:1/0")}))
    ) as api:
        assert_problem(api.get("/readyz"), 503, "queue_unavailable")
        assert api.get("/healthz").status_code == 200
        assert_problem(upload(api, ("a.wav", wav())), 503, "queue_unavailable")
        assert len(list(lake.batches.all())) == 1  # stored: `resume` will queue it
        assert api.get("/v1/batches").json()["batches"][0]["state"] == "stalled"
        assert_problem(
            api.post("/v1/batches/" + api.get("/v1/batches").json()["batches"][0]["id"] + "/retry"),
            503,
            "queue_unavailable",
        )
        assert_problem(api.get("/v1/datasets/v1"), 503, "queue_unavailable")
        assert "k2d_queue_up 0.0" in api.get("/metrics").text


def test_a_token_guards_everything_but_health(settings):
    guarded = settings.model_copy(update={"api_token": type(settings.redis_url)("s3cret-s3cret-s3cret")})
    with LocalClient(create_app(guarded)) as api:
        assert_problem(api.get("/v1/batches"), 401, "unauthorized")
        assert_problem(api.get("/v1/batches", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")
        assert api.get("/v1/batches", headers={"Authorization": "Bearer s3cret-s3cret-s3cret"}).status_code == 200
        assert api.get("/healthz").status_code == 200


@pytest.mark.parametrize("name", ["openai/whisper-large-v3", "/etc", "./lake"])
def test_a_client_chooses_no_model_that_the_operator_has_not_listed(api, lake, name):
    for field in ("teacher", "validator"):
        for dry_run in (False, True):
            answer = upload(api, ("a.wav", wav()), data={field: name}, params={"dry_run": dry_run})
            assert_problem(answer, 403, "model_refused")
    assert list(lake.batches.all()) == []
    assert lake.files.listing("uploads") == []


def test_unknown_paths_and_methods_are_problems(api):
    assert_problem(api.get("/v2/nothing"), 404, "not_found")
    assert_problem(api.put("/v1/batches"), 405, "method_not_allowed")


def test_openapi_is_complete(api):
    spec = api.get("/openapi.json").json()
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert set(operation["responses"]) - {"422"}, (method, path)
            assert not path.startswith("/v1") or {"401", "422", "503"} <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                assert status[0] != "4" or set(response["content"]) == {"application/problem+json"}, (method, path)
    described = {p["name"]: p.get("description") for p in spec["paths"]["/v1/chunks"]["get"]["parameters"]}
    assert described["text"] == "Substring of the teacher's text."
    assert set(described) >= {"batch", "limit", "cursor", "policy", "alpha", "verdict", "reason", "max_distance"}
    post = spec["paths"]["/v1/batches"]["post"]
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert post["responses"]["202"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/BatchStatus"
    }
    delete = spec["paths"]["/v1/datasets/{name}"]["delete"]
    assert set(delete["responses"]) == {"200", "400", "401", "403", "404", "408", "413", "422", "503"}
