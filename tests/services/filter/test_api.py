"""The labeling API over a real lake and a real Redis. No worker runs: what is queued stays queued."""

import io
import json
import wave

import pytest
from factories import finished_batch, tone
from fastapi.testclient import TestClient

from k2d.filtering.policy import PAPER
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app

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
    with TestClient(app) as client:
        yield client


def wav(seconds=1.0):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(tone(seconds).tobytes())
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


def test_odd_file_names_survive(api, lake):
    names = ["line\nbreak 🎧.wav", 'quo"te.wav', "../../etc/passwd.wav", "講座.wav"]
    batch = upload(api, *((name, wav(1 + n / 10)) for n, name in enumerate(names))).json()
    assert {source.name for source in lake.batches.get(batch["id"]).sources} == set(names)


def test_dry_run_forecasts_and_stores_nothing(api, lake):
    answer = upload(api, ("a.wav", wav(3)), ("b.wav", b"garbage"), params={"dry_run": True})
    assert answer.status_code == 200
    forecast = answer.json()
    assert (forecast["recordings"], forecast["unknown"], forecast["windows"]) == (2, 1, 1)
    assert forecast["estimated_s"] > 0
    assert "assumed" in forecast["basis"]
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

    headers = {"content-type": "multipart/form-data; boundary=x"}  # chunked: no claim at all
    assert_problem(api.post("/v1/batches", content=endless(), headers=headers), 413, "too_large")
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
    assert api.post(f"/v1/batches/{batch}/retry").json()["state"] == "queued"


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
    assert api.post("/v1/resume").json() == {"batches": {batch: 2}}
    assert api.get(f"/v1/batches/{batch}").json()["state"] == "queued"


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
        found = api.get("/v1/chunks", params=query).json()
        paged += found["chunks"]
        cursor = found["next"]
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
    ],
)
def test_chunk_filters(api, lake, query, count):
    finished_batch(lake)
    asked = {"batch": "lectures", "policy": "paper", **query}
    assert len(api.get("/v1/chunks", params=asked).json()["chunks"]) == count


def test_chunk_detail_and_audio_ranges(api, lake):
    finished_batch(lake)
    row = api.get("/v1/chunks", params={"batch": "lectures", "verdict": "rejected"}).json()["chunks"][0]
    chunk = api.get(f"/v1/chunks/{row['id']}").json()
    assert chunk["teacher_text"] == row["teacher_text"]
    assert {step["op"] for step in chunk["hypotheses"][0]["diff"]} > {"equal"}
    assert chunk["distances"]["per"] == row["per"]
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


# ---- policies and datasets ----------------------------------------------------------------------------------------


def test_preview_and_its_curve(api, lake):
    finished_batch(lake)
    paper = PAPER.model_dump(mode="json")
    found = api.post("/v1/policies/preview", json={"batches": ["lectures"], "policy": paper}).json()
    assert found["chunks"] == {"accepted": 4, "salvaged": 0, "rejected": 4}
    assert set(found["curve"]) == {"composite"}
    asked = {"batches": ["lectures"], "curve": ["mer", "evidence"]}
    assert set(api.post("/v1/policies/preview", json=asked).json()["curve"]) == {"mer", "evidence"}
    assert found["reasons"]["teacher_repetition"] == {"chunks": 2, "seconds": 10.0}
    for points in found["curve"].values():
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


def test_a_dataset_is_frozen_by_a_job_and_pulled_with_nothing_but_the_api(api, lake, settings, tmp_path, monkeypatch):
    from k2d.datasets.pull import pull
    from services.filter import jobs
    from services.filter.queue import CONTROL

    finished_batch(lake)
    loose = {"batches": ["lectures"], "policy": {"name": "loose", "metric": "mer", "alpha": 1.0}}
    gone = api.get("/v1/chunks", params={"batch": "lectures"}).json()["chunks"][0]["id"]
    asked = api.post("/v1/datasets", json={"name": "v1", **loose, "without": [gone]})
    assert (asked.status_code, asked.json()["state"]) == (202, "building")
    assert_problem(api.post("/v1/datasets", json={"name": "v1", **loose}), 409, "conflict")
    assert_problem(api.post("/v1/datasets", json={"name": "v2", **loose, "without": ["x"]}), 400, "bad_request")
    other = {"name": "v1", "batches": ["lectures"], "policy": {"name": "x", "metric": "mer", "alpha": 0.1}}
    assert_problem(api.post("/v1/datasets", json=other), 409, "conflict")
    job = api.app.state.queue.waiting(CONTROL)[0]
    monkeypatch.setattr(jobs, "load", lambda: settings)
    jobs.freeze_dataset(*job.args)
    ready = api.get("/v1/datasets/v1").json()
    assert ready["state"] == "ready"
    assert ready["manifest"]["without"]["found"] == 1
    assert ready["manifest"]["counts"]["rejected"] == 3  # it, and two that loop
    assert_problem(api.post("/v1/datasets", json=other), 409, "conflict")
    assert_problem(api.post("/v1/datasets", json={"name": "v1", **loose}), 409, "conflict")
    assert api.post("/v1/datasets", json={"name": "v1", **loose, "without": [gone]}).status_code == 202
    assert [row["name"] for row in api.get("/v1/datasets").json()["datasets"]] == ["v1"]

    class Remote:
        def manifest(self, name):
            return api.get(f"/v1/datasets/{name}").json()["manifest"]

        def shard(self, name, number):
            yield api.get(f"/v1/datasets/{name}/shards/{number}").content

    mine = Lake(str(tmp_path / "mine"))
    assert pull(Remote(), "v1", mine) == lake.datasets.manifest("v1")
    assert mine.open_shard("v1", 0).read() == lake.datasets.open_shard("v1", 0).read()
    assert_problem(api.get("/v1/datasets/v1/shards/7"), 404, "not_found")


# ---- operations ---------------------------------------------------------------------------------------------------


def test_health_readiness_and_metrics(api):
    assert api.get("/healthz").json()["status"] == "ok"
    assert api.get("/readyz").status_code == 200
    upload(api, ("a.wav", wav()))
    text = api.get("/metrics").text
    assert 'k2d_queue_jobs{queue="k2d-control"} 1.0' in text
    assert 'k2d_http_requests_total{method="POST",route="/v1/batches",status="202"}' in text


def test_without_redis_the_api_says_so_and_loses_nothing(settings, lake):
    with TestClient(
        create_app(settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://127.0.0.1:1/0")}))
    ) as api:
        assert_problem(api.get("/readyz"), 503, "queue_unavailable")
        assert api.get("/healthz").status_code == 200
        assert_problem(upload(api, ("a.wav", wav())), 503, "queue_unavailable")
        assert len(list(lake.batches.all())) == 1  # stored: `resume` will queue it
        assert api.get("/v1/batches").json()["batches"][0]["state"] == "stalled"
        assert "k2d_queue_up 0.0" in api.get("/metrics").text


def test_a_token_guards_everything_but_health(settings):
    guarded = settings.model_copy(update={"api_token": type(settings.redis_url)("s3cret")})
    with TestClient(create_app(guarded)) as api:
        assert_problem(api.get("/v1/batches"), 401, "unauthorized")
        assert_problem(api.get("/v1/batches", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")
        assert api.get("/v1/batches", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert api.get("/healthz").status_code == 200


def test_unknown_paths_and_methods_are_problems(api):
    assert_problem(api.get("/v2/nothing"), 404, "not_found")
    assert_problem(api.put("/v1/batches"), 405, "method_not_allowed")


def test_openapi_is_complete(api):
    spec = api.get("/openapi.json").json()
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert set(operation["responses"]) - {"422"}, (method, path)
    assert set(spec["paths"]["/v1/batches"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }
