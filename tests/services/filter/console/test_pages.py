"""Pages of batches, datasets, runs, the fleet and access, over a real lake and a real Redis."""

import csv
import io
import json
import re
import tarfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from factories import finished_batch
from local_client import LocalClient
from rq.job import Job
from rq.serializers import JSONSerializer

from k2d.corpus.calibration.draws import make_draw
from k2d.corpus.calibration.review import FEWEST
from k2d.datasets.freeze import freeze
from k2d.documents import BatchOptions
from k2d.errors import NotFound
from k2d.filtering.policy import PAPER
from k2d.keys import chunk_id
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessRole
from k2d.store.reviews import Review, ReviewOrder, ReviewVerdict
from k2d.store.runs import EvaluatedLine, EvaluatedModel, PublishedRun, Rate, RunCurves, RunEvaluation
from services.filter import jobs
from services.filter.app import create_app
from services.filter.console.words import table
from services.filter.fleet import ErrorKind, InRedis, QueueLoad, ServerEntry, WorkerEntry, entry_of, judge
from services.filter.queue import CONTROL, CORPUS, JobRequest, request_plan

MEASURED = ("loss", "ce", "kl", "learning_rate", "gradient_norm", "tokens_per_s")
pytestmark = pytest.mark.integration

EVIL = "<img src=x onerror=alert(1)>"
SHOWN = "&lt;img src=x onerror=alert(1)&gt;"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(store=str(tmp_path / "lake"), redis_url=redis_url, _env_file=None)


@pytest.fixture
def console(settings: Settings) -> Iterator[LocalClient]:
    app = create_app(settings)
    app.state.queue.redis.flushall()
    with LocalClient(app) as client:
        client.headers["X-CSRF-Token"] = token(client)
        yield client


def token(client: LocalClient) -> str:
    found = re.search(r'data-csrf="([0-9a-f]+)"', client.get("/").text)
    assert found is not None
    return found[1]


def as_role(lake: Lake, settings: Settings, role: AccessRole) -> LocalClient:
    _, secret = lake.access.create(f"a {role}", role, created_by="test")
    client = LocalClient(create_app(settings))
    assert client.post("/sign-in", data={"key": secret}, follow_redirects=False).status_code == 303
    client.headers["X-CSRF-Token"] = token(client)
    return client


def unfinished(lake: Lake):
    source = Source("a.wav", "lake://uploads/a", "key-a")
    batch = make_batch([source], BatchOptions(name="waiting"), Settings(_env_file=None))
    lake.batches.put(batch)
    return batch


def run_record(name: str = "first", **changes: object) -> PublishedRun:
    known = {
        "name": name, "run_id": "1", "state": "done", "started_at": "2026-11-22T10:00:00+00:00",
        "updated_at": "2026-11-22T10:00:00+00:00", "steps": 10, "step": 10, "dataset": "talks", "teacher": "t",
    }  # fmt: skip
    return PublishedRun(**known | changes)


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_the_list_shows_lengths_once_it_is_asked_for_them(lake, console):
    batch = finished_batch(lake)
    first = console.get("/").text
    assert batch.name in first
    assert 'hx-get="?hours=true"' in first
    assert "50.0 s" not in first
    page = console.get("/?hours=true").text
    assert "50.0 s" in page
    assert "hx-trigger" not in page  # nothing moves


def test_a_done_batch_is_not_asked_again(lake, console):
    batch = finished_batch(lake)
    page = console.get(f"/batches/{batch.id}").text
    assert "z-broken.mp3" in page
    assert "garbage" in page
    assert "hx-trigger" not in page
    shares = re.findall(r"<small>([\d.]+) %</small>", page)
    assert len(shares) == 6
    assert sum(int(share.replace(".", "")) for share in shares) == 1000


def test_waits_grow_while_nothing_changes(lake, console):
    batch = unfinished(lake)
    page = console.get(f"/batches/{batch.id}").text
    waits = []
    for _ in range(12):
        found = re.search(r'hx-get="(batches/[^"]+)"', page)
        waits.append(float(re.search(r"wait=([\d.]+)", page)[1]))
        page = console.get("/" + found[1].replace("&amp;", "&")).text
    assert waits[:3] == [2.0, 3.0, 4.5]
    assert waits[-1] == 30.0
    request_plan(console.app.state.queue, batch.id)  # something happens
    page = console.get("/" + found[1].replace("&amp;", "&")).text
    assert "wait=2.0" in page


def test_cancel_and_retry_from_the_page(lake, console):
    batch = unfinished(lake)
    page = console.post(f"/batches/{batch.id}/cancel").text
    assert lake.batches.is_cancelled(batch.id)
    assert "cancelled" in page
    page = console.post(f"/batches/{batch.id}/retry").text
    assert not lake.batches.is_cancelled(batch.id)
    assert "queued" in page
    assert [entry["action"] for entry in lake.audit_log.entries()] == ["cancel", "retry"]


def test_without_the_sessions_token_nothing_is_changed(lake, console):
    batch = unfinished(lake)
    answer = console.post(f"/batches/{batch.id}/cancel", headers={"X-CSRF-Token": "0" * 64})
    assert answer.status_code == 403
    assert not lake.batches.is_cancelled(batch.id)


@pytest.mark.parametrize(
    "path",
    ["/batches/none", "/batches/none/progress", "/batches/none/chunks.csv", "/datasets/none",
     "/runs/none", "/runs/none/state", "/runs/none/curves", "/batches/none/subtitles/srt", "/datasets/none/export/nemo",
     "/runs/none/evaluations/x/clips/0", "/datasets/none/rows/0/0"],
)  # fmt: skip
def test_what_is_gone_is_said_on_a_page(console, path):
    answer = console.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


def test_the_batch_as_files(lake, console):
    batch = finished_batch(lake)
    subtitles = console.get(f"/batches/{batch.id}/subtitles/srt")
    with tarfile.open(fileobj=io.BytesIO(subtitles.content)) as tar:
        assert tar.getnames() == ["talk-0.wav.srt", "talk-1.wav.srt"]
    assert console.get(f"/batches/{batch.id}/subtitles/exe").status_code == 400
    rows = list(csv.DictReader(io.StringIO(console.get(f"/batches/{batch.id}/chunks.csv?verdict=rejected").text)))
    assert rows
    assert {row["verdict"] for row in rows} == {"rejected"}


def test_a_new_batch_needs_an_operator(lake, settings):
    with as_role(lake, settings, AccessRole.VIEWER) as viewer:
        assert viewer.get("/batches/new").status_code == 403
        assert "batches/new" not in viewer.get("/").text
    with as_role(lake, settings, AccessRole.OPERATOR) as operator:
        page = operator.get("/batches/new").text
        assert f'"bytes": {settings.max_upload_bytes}' in page
        assert operator.get("/keys").status_code == 403


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def test_a_browser_gets_a_page_for_what_is_not_there_and_other_clients_a_problem(lake, settings, console):
    answer = console.get("/nope", headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Error 404" in answer.text
    assert "Accept" in answer.headers["vary"]
    for accept in ("*/*", "application/json", "application/problem+json"):
        answer = console.get("/nope", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.json()["code"] == "not_found"
    assert console.post("/nope", headers=BROWSER).headers["content-type"] == "application/problem+json"
    answer = console.get("/v1/policies/preview", headers=BROWSER)
    assert (answer.status_code, "Error 405" in answer.text, answer.headers["allow"]) == (405, True, "POST")
    viewer = as_role(lake, settings, AccessRole.VIEWER)
    answer = viewer.get("/nope", headers=BROWSER)
    assert answer.status_code in (403, 404)
    assert "<h1>Error 40" in answer.text
    stranger = LocalClient(create_app(settings))
    answer = stranger.get("/nope", headers=BROWSER, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fnope")
    assert stranger.get("/nope").headers["content-type"] == "application/problem+json"


def test_a_batch_is_deleted_with_what_was_shown_and_nothing_else(lake, console):
    batch = finished_batch(lake)
    freeze(lake, name="talks", batches=[batch.id], policy=PAPER)
    address = f"/batches/{batch.id}/delete"
    assert "for review" not in console.get(address).text
    make_draw(lake, [batch], PAPER, count=FEWEST, seed=1, order=ReviewOrder.RANDOM)
    assert "1 draw for review came from it, and cannot be calibrated" in console.get(address).text
    assert address.lstrip("/") in console.get(f"/batches/{batch.id}").text
    page = console.get(address).text
    for folder, size in (("labels", 2), ("facts", 2), ("hypotheses", 2)):
        assert re.search(rf'{folder}</th><td class="number">{size}<', page)
    assert 'href="datasets/talks"' in page
    assert lake.batches.find("lectures")  # looking deletes nothing
    plan = re.search(r'name="plan" value="([0-9a-f]+)"', page)[1]
    assert console.post(address, data={"plan": plan}, headers={"X-CSRF-Token": "0" * 64}).status_code == 403
    answer = console.post(address, data={"plan": "another"})
    assert "has changed meanwhile" in answer.text
    assert lake.batches.find("lectures")
    answer = console.post(address, data={"plan": plan})
    assert answer.headers["hx-redirect"] == "/"
    assert lake.batches.find("lectures") is None
    assert not lake.files.listing("labels")
    assert lake.datasets.manifest("talks").batches == [batch.id]
    entries = [(entry["action"], entry["target"], entry["status"]) for entry in lake.audit_log.entries()]
    assert entries[-1] == ("delete batch", f"/batches/{batch.id}", 200)
    assert console.get(address).status_code == 404


def test_a_batch_that_is_not_finished_is_not_chosen_for_review(lake, console):
    done, waiting = finished_batch(lake), unfinished(lake)  # the newer one is not finished
    page = console.get("/review").text
    found = re.findall(r'name="batch" value="(\w+)"( checked)?', page)
    assert sorted(found) == sorted([(waiting.id, ""), (done.id, " checked")])
    assert "waiting <small>stalled, 0 of 1 recording</small>" in page
    assert "drawn from what is labeled now" in page
    assert " checked> <span>waiting" not in console.get("/review?batch=waiting").text
    assert "drawn from what is labeled now" not in console.get("/review?batch=lectures").text


def test_a_batch_that_a_worker_may_be_at_is_not_deleted(lake, console):
    batch = unfinished(lake)
    assert "/delete" not in console.get(f"/batches/{batch.id}").text
    assert "is unfinished" in console.get(f"/batches/{batch.id}/delete").text
    lake.batches.cancel(batch.id)
    queue = console.app.state.queue
    request_plan(queue, batch.id)
    Job.fetch(queue.job_ids(CONTROL)[0], queue.redis, serializer=JSONSerializer).set_status("started")
    answer = console.get(f"/batches/{batch.id}/delete")
    assert (answer.status_code, "A worker may still be at this batch" in answer.text) == (409, True)
    queue.redis.flushall()
    with lake.heartbeats.beating(batch.id):
        (own,) = lake.heartbeats.of(batch.id)
        answer = console.get(f"/batches/{batch.id}/delete")
    assert f"A process is at work on this batch, so it cannot be deleted: {own.command}" in unescape(answer.text)
    assert f"(process {own.pid} on {own.host})" in answer.text
    assert console.get(f"/batches/{batch.id}/delete").status_code == 200


def test_who_may_add_and_who_may_delete(lake, settings):
    batch = finished_batch(lake)
    with as_role(lake, settings, AccessRole.OPERATOR) as operator:
        page = operator.get(f"/batches/{batch.id}").text
        assert ("?add=lectures" in page, "/delete" in page) == (True, False)
        assert operator.get(f"/batches/{batch.id}/delete").status_code == 403
        assert operator.post(f"/batches/{batch.id}/delete").status_code == 403
    with as_role(lake, settings, AccessRole.VIEWER) as viewer:
        assert "?add=lectures" not in viewer.get(f"/batches/{batch.id}").text
    assert lake.batches.find("lectures")


def test_a_batch_is_added_to_with_its_own_options(lake, console):
    finished_batch(lake)
    page = console.get("/batches/new?add=lectures").text
    assert "Add recordings to lectures" in page
    assert 'data-query="add=true"' in page
    assert 'id="teacher"' not in page  # they are the batch's
    assert console.get("/batches/new?add=nothing").status_code == 404


# ---- datasets --------------------------------------------------------------------------------------------------------


def test_a_dataset_is_shown_heard_and_taken_away(lake, console):
    batch = finished_batch(lake)
    manifest = freeze(lake, name="talks", batches=[batch.id], policy=PAPER)
    assert "talks" in console.get("/datasets").text
    page = console.get("/datasets/talks?seed=1").text
    assert manifest.digest in page
    clips = re.findall(r'<audio[^>]* src="([^"]+)"', page)
    assert clips
    assert console.get("/" + clips[0]).content.startswith(b"fLaC")
    part = console.get("/" + clips[0], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"fLaC")
    assert console.get("/datasets/talks/rows/0/999999").status_code == 404
    tar = console.get("/datasets/talks/export/nemo").content
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert "talks/manifest.jsonl" in archive.getnames()
    answer = console.post("/datasets/talks/delete")
    assert answer.headers["hx-redirect"] == "/datasets"
    with pytest.raises(NotFound):
        lake.datasets.manifest("talks")


def test_a_dataset_has_one_number_for_one_share(lake, console):
    freeze(lake, name="talks", batches=[finished_batch(lake).id], policy=PAPER)
    manifest = json.loads(lake.files.read("datasets/talks/manifest.json"))
    manifest["seconds"] |= {"input": 60.0, "accepted": 20.0, "rejected": 20.0, "silence": 20.0}
    lake.files.write("datasets/talks/manifest.json", json.dumps(manifest).encode())
    page = console.get("/datasets/talks").text
    assert "accepted</dt><dd>20.0 s <small>33.4 %" in page  # the parts of the bar sum to 100 %
    assert "of the audio</dt><dd>33.4 %" in page


def test_a_dataset_with_reviewed_texts_says_so(lake, console, settings, monkeypatch):
    monkeypatch.setattr(jobs, "load", lambda: settings)
    batch = finished_batch(lake)
    result = next(iter(lake.batches.results(batch.id)))
    lake.reviews.put(
        Review("review-1", result.label_key, 1, 0, "甲", ReviewVerdict.TEXT, "把 gradient 算出來", "ada", "")
    )
    form = {"name": "gold", "policy": "evidence", "gold": "1"}
    assert "Dataset gold: building" in console.post(f"/batches/{batch.id}/explore/freeze", data=form).text
    (job,) = console.app.state.queue.waiting(CORPUS)
    jobs.freeze_dataset(*job.args)
    page = console.get("/datasets/gold").text
    assert "of 1 segment: 0 confirmed, 1 corrected, 0 left out" in page
    assert "text from: review" in page


def test_a_dataset_on_its_way_and_one_that_failed_are_listed(lake, console):
    queue = console.app.state.queue
    for name in ("coming", "broken"):
        queue.enqueue(CONTROL, JobRequest("freeze_dataset", [name, [], {}, [], "as heard"], slot=f"freeze:{name}"))
    job = Job.fetch(queue.redis.get("k2d:slot:freeze:broken").decode(), queue.redis, serializer=JSONSerializer)
    job.meta["error"] = f"no batch {EVIL}"
    job.save_meta()
    queue._queue(CONTROL).failed_job_registry.add(job, ttl=60)
    job.set_status("failed")
    queue._queue(CONTROL).remove(job)
    page = console.get("/datasets").text
    assert "building" in page
    assert "failed" in page
    assert "It is being frozen" in console.get("/datasets/coming").text
    assert SHOWN in console.get("/datasets/broken").text


# ---- runs ------------------------------------------------------------------------------------------------------------


def published(lake: Lake, **changes: object) -> None:
    lake.runs.put(run_record(**changes))
    lake.runs.put_curves("first", RunCurves(training={"step": [1, 2], **{key: [4.0, 3.0] for key in MEASURED}}))
    rates = {"MER": Rate(value=0.25, low=0.2, high=0.3), "English WER": Rate(value=None)}
    lines = [
        EvaluatedLine(name=f"u{n}", language="zh-en", seconds=3.0, reference="今天 review 一下", has_clip=n == 0,
                      hypotheses=["今天 review 一下", f"今天 view {EVIL}"], edits=[0, 2], tokens=[4, 4])
        for n in range(12)
    ]  # fmt: skip
    models = [
        EvaluatedModel(reference=name, rates=rates, repetitions=0, real_time=5.0, parameters=70_000_000)
        for name in ("teacher", "student")
    ]
    lake.runs.put_evaluation(
        "first", "dev", RunEvaluation(name="dev", created_at="2026-11-23", language="zh-en", utterances=12,
                                      seconds=36.0, models=models, lines=lines)
    )  # fmt: skip
    lake.runs.put_clip("first", "dev", 0, b"fLaC audio")


def test_a_run_with_teacher_and_student_side_by_side(lake, console):
    published(lake)
    assert "first" in console.get("/runs").text
    page = console.get("/runs/first").text
    assert "25.0" in page
    assert "[20.0–30.0]" in page
    assert page.count('<article class="card side">') == 10
    assert 'class="del"' in page
    assert "<img" not in page
    assert console.get("/runs/first/evaluations/dev/clips/0").content == b"fLaC audio"
    assert console.get("/runs/first/evaluations/dev/clips/1").status_code == 404
    assert console.get("/runs/first?start=10").text.count('<article class="card side">') == 2
    assert console.get("/runs/first/curves").json()["training"]["loss"] == [4.0, 3.0]


def test_a_run_without_news_is_said_to_be_silent(lake, console):
    published(lake, state="running", step=3, step_s=1.0)
    assert "No news since" in console.get("/runs/first/state").text
    assert "no news for long" in console.get("/runs").text
    published(lake, state="running", step=3, step_s=1e9)
    assert "No news since" not in console.get("/runs/first/state").text


def test_a_damaged_run_leaves_the_others(lake, console):
    published(lake)
    lake.files.write("runs/second/run.json", b"{")
    page = console.get("/runs").text
    assert "first" in page
    assert "damaged" in page


# ---- fleet -----------------------------------------------------------------------------------------------------------


def test_the_fleet_says_what_is_wrong_in_one_sentence(lake, console):
    assert "No worker is running. Nothing waits." in console.get("/fleet").text
    request_plan(console.app.state.queue, unfinished(lake).id)
    assert "No worker is running. Waiting jobs: 1." in console.get("/fleet/state").text


def test_the_fleet_without_redis_is_a_page(tmp_path):
    settings = Settings(store=str(tmp_path / "lake"), redis_url="redis://127.0.0.1:1/0", _env_file=None)
    with LocalClient(create_app(settings)) as console:
        assert "Redis does not answer: no job can be queued or run." in console.get("/fleet").text


def test_a_model_server_that_does_not_answer_is_named(tmp_path, redis_url):
    settings = Settings(
        store=str(tmp_path / "lake"), redis_url=redis_url, teacher="http://127.0.0.1:1", grafana_url="http://g/",
        _env_file=None,
    )  # fmt: skip
    with LocalClient(create_app(settings)) as console:
        console.app.state.queue.redis.flushall()
        page = console.get("/fleet").text
    assert "No model server is ready." in page
    assert "no answer (ConnectError)" in page
    assert 'href="http://g/"' in page


FAILED = ErrorKind("label_group", "x", 1, None)


def load(**changes: float) -> QueueLoad:
    return QueueLoad("k2d-label", **{"waiting": 0, "started": 0, "failed": 0, "oldest_s": 0.0} | changes)


def worker(state: str = "idle") -> WorkerEntry:
    return WorkerEntry("w", "h", state, None, None, None, None, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("in_redis", "servers", "health", "start"),
    [
        (InRedis((load(),), (worker(),)), [], "good", "All is well. Workers"),
        (InRedis((load(waiting=2),), (worker("busy"),)), [], "good", "All is well. Busy"),
        (InRedis((load(waiting=2, oldest_s=3600),), (worker("busy"),)), [], "attention", "The oldest job"),
        (InRedis((load(),), (worker(),)), [True, False], "attention", "A model server is not ready"),
        (InRedis((load(),), (worker(),)), [False], "bad", "No model server"),
        (InRedis(error="x"), [True], "bad", "Redis"),
        (
            InRedis((load(),), (worker(),), (ErrorKind("label_group", "x", 1, None),)),
            [],
            "attention",
            "Jobs have failed",
        ),
        (InRedis((load(waiting=1),)), [], "bad", "No worker is running. Waiting"),
        (InRedis((load(),)), [], "attention", "No worker is running. Nothing"),
    ],
)
def test_the_gravest_finding_is_the_sentence(in_redis, servers, health, start):
    entries = [ServerEntry("teacher", f"http://{number}", up, "") for number, up in enumerate(servers)]
    found, sentence, values = judge(in_redis, entries, None)
    assert found == health
    assert sentence.startswith(start)
    assert sentence.format(**values)
    assert sentence in table("zh-Hant")
    assert judge(in_redis, entries, "full")[0] == "bad"
    assert judge(in_redis, entries, "full")[1] in table("zh-Hant")


# ---- keys and the audit log ------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_revoked(lake, settings):
    with as_role(lake, settings, AccessRole.ADMIN) as admin:
        made = admin.post("/keys", data={"name": "ada", "role": "viewer"})
        secret = re.search(r'id="secret">(k2d_\w[^<]+)<', made.text)[1]
        assert secret not in admin.get("/keys").text
        key = next(key for key in lake.access.all() if key.name == "ada")
        assert admin.post("/keys", data={"name": EVIL, "role": "viewer"}).status_code == 400
        assert admin.post("/keys", data={"name": "x", "role": "emperor"}).status_code == 422
        assert "revoked" in admin.post(f"/keys/{key.id}/revoke").text
        assert admin.post(f"/keys/{key.id}/revoke").status_code == 404
        page = admin.get("/audit-log").text
        assert f"/keys/{key.id}" in page
        assert "create key" in page
        assert secret not in page
        assert "create key" not in re.sub(r"<option.*?</option>", "", admin.get("/audit-log?action=revoke+key").text)
        assert admin.get("/audit-log?day=../x").status_code == 400
        assert "No such change" in admin.get("/audit-log?day=2001-01-01").text


# ---- hostile names, both languages -----------------------------------------------------------------------------------


def test_hostile_names_are_shown_and_not_run(lake, console):
    batch = finished_batch(lake, names=[EVIL, f"a/{EVIL}"], texts=[(f"{EVIL} 今天", f"{EVIL} 今天")])
    freeze(lake, name="talks", batches=[batch.id], policy=PAPER)
    published(lake, dataset=EVIL, teacher=EVIL, error=EVIL, recipe={EVIL: EVIL})
    lake.audit_log.record(EVIL, by=EVIL, target=EVIL)
    for path in ("/", f"/batches/{batch.id}", "/datasets", "/datasets/talks", "/runs", "/runs/first", "/audit-log"):
        page = console.get(path).text
        assert "<img" not in page, path
    assert SHOWN in console.get("/datasets/talks").text
    assert SHOWN in console.get("/runs/first").text


def test_every_page_in_chinese(lake, console):
    batch = finished_batch(lake)
    freeze(lake, name="talks", batches=[batch.id], policy=PAPER)
    published(lake)
    chunk = chunk_id(next(result.facts_key for result in lake.batches.results(batch.id) if result.facts_key), 0)
    console.get("/preferences?language=zh-Hant&next=/")
    for path in ("/", "/?hours=true", f"/chunks/{chunk}", "/batches/lectures/explore/panel?show=yield",
                 "/batches/new", "/batches/new?add=lectures", "/batches/lectures", "/batches/lectures/delete",
                 "/datasets", "/datasets/talks", "/runs", "/runs/first", "/fleet", "/keys", "/audit-log"):  # fmt: skip
        page = console.get(path)
        assert page.status_code == 200, path
        assert 'lang="zh-Hant"' in page.text or "<html" not in page.text
        text = re.sub(r'<(\w+)[^>]* lang="en".*?</\1>|<[^>]*>', " ", page.text, flags=re.DOTALL)
        assert not re.search(r"\d (s|min|h|d)\b", text), path


METRICS = """
# TYPE k2d_batch_size histogram
k2d_batch_size_bucket{le="16.0"} 4.0
k2d_batch_size_count 4.0
k2d_batch_size_sum 50.0
# TYPE k2d_engine_seconds histogram
k2d_engine_seconds_count 4.0
k2d_engine_seconds_sum 10.0
# TYPE k2d_audio_seconds counter
k2d_audio_seconds_total 250.0
# TYPE k2d_waiting gauge
k2d_waiting 3.0
# TYPE k2d_refused counter
k2d_refused_total{reason="busy"} 2.0
"""


def test_a_model_server_by_its_own_figures():
    ready = httpx.Response(200, json={"status": "ok", "model": {"reference": "openai/whisper-large-v2"}})
    entry = entry_of("teacher", "http://gpu:8001", ready, METRICS)
    assert (entry.is_up, entry.detail) == (True, "openai/whisper-large-v2")
    assert (entry.batch_size, entry.real_time, entry.waiting, entry.refused) == (12.5, 25.0, 3, (("busy", 2),))


@pytest.mark.parametrize("metrics", ["", "<html>", "k2d_batch_size_count x"])
def test_a_server_without_figures_of_ours_is_shown_without_them(metrics):
    ready = httpx.Response(503, text="<html>")
    entry = entry_of("teacher", "http://gpu:8001", ready, metrics)
    assert (entry.is_up, entry.detail, entry.batch_size, entry.real_time) == (False, "HTTP 503", None, None)
