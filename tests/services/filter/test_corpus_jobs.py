"""Jobs over a corpus in a real queue: the index a part, a dataset in slices; whoever is killed, whatever is lost."""

import random
from pathlib import Path

import pytest
from lakes import batch, put_recording
from local_client import LocalClient

from k2d.corpus import index
from k2d.corpus.batch_index import BatchIndex
from k2d.datasets.freeze import freeze
from k2d.filtering.policy import PAPER
from k2d.settings import Settings
from k2d.store import Lake, batches
from k2d.store.reviews import Review, ReviewVerdict
from services.filter import jobs
from services.filter.app import create_app
from services.filter.queue import CORPUS

pytestmark = pytest.mark.integration
BATCH = "b_0123456789abcdef"
REQUEST = {"name": "talks", "batches": ["lectures"], "policy": PAPER.model_dump(mode="json")}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Six recordings in three parts; nothing of the index is stored. Slices are as short as they can be."""
    for module in (batches, index):
        monkeypatch.setattr(module, "PART_RECORDINGS", 2)
    monkeypatch.setattr("k2d.datasets.freeze.FLAC_BYTES_PER_S", 10**12)
    monkeypatch.setattr(jobs, "SLICES_IN_PLAN", 0)
    lake = Lake(str(tmp_path / "lake"))
    lake.batches.put(batch(6))
    for number in range(6):
        lake.batches.put_result(BATCH, put_recording(lake, number, [(0.0, 0.4), (0.5, 0.9)]))
    return lake


@pytest.fixture
def api(lake: Lake, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> LocalClient:
    settings = Settings(store=lake.files.root, redis_url=redis_url, _env_file=None)
    monkeypatch.setattr(jobs, "load", lambda: settings)
    app = create_app(settings)
    app.state.queue.redis.flushall()
    return LocalClient(app)


def waiting(api: LocalClient, function: str) -> list:
    queued = api.app.state.queue.waiting(CORPUS)
    return [job for job in queued if job.func_name.endswith(function) and job.get_status() == "queued"]


def work(job) -> None:
    getattr(jobs, job.func_name.rpartition(".")[2])(*job.args)
    job.set_status("finished")


def content(lake: Lake) -> dict[str, bytes]:
    return {path: lake.files.read(path) for path in lake.files.listing("datasets/talks") if path.endswith(".parquet")}


def test_a_request_makes_no_large_index_but_queues_it_a_part_a_job_once(api: LocalClient, lake: Lake) -> None:
    for _ in range(2):
        status = api.get("/v1/batches/lectures").json()
        assert (status["state"], status["ledger"]["recordings"]["pending"]) == ("queued", 6)
        answer = api.get("/v1/chunks", params={"batch": "lectures"})
        assert (answer.status_code, answer.json()["code"]) == (503, "index_incomplete")
        assert api.post("/v1/policies/preview", json={"batches": ["lectures"]}).status_code == 503
    queued = waiting(api, "index_part")
    assert [job.args for job in queued] == [[BATCH, number] for number in range(3)]
    assert BatchIndex(lake, lake.batches.get(BATCH)).unmade == [0, 1, 2]
    for job in queued:
        work(job)
    assert api.get("/v1/batches/lectures").json()["state"] == "done"
    assert len(api.get("/v1/chunks", params={"batch": "lectures"}).json()["chunks"]) == 12


def test_a_dataset_is_written_by_jobs_in_any_order(api: LocalClient, lake: Lake) -> None:
    assert api.post("/v1/datasets", json=REQUEST).json()["state"] == "building"
    (plan,) = waiting(api, "freeze_dataset")
    work(plan)
    slices = waiting(api, "freeze_slices")
    assert len(slices) == 6
    assert api.get("/v1/datasets/talks").json()["state"] == "building"
    random.Random(0).shuffle(slices)
    work(slices[0])
    slices[1].set_status("failed")  # and given up
    slices[1].meta["error"] = "the disk is full"
    slices[1].save_meta()
    state = api.get("/v1/datasets/talks").json()
    assert (state["state"], state["error"]) == ("building", "the disk is full")
    for job in slices[2:]:
        work(job)
    state = api.get("/v1/datasets/talks").json()
    assert (state["state"], state["error"]) == ("failed", "the disk is full")
    assert api.post("/v1/datasets", json=REQUEST).json()["state"] == "building"
    work(waiting(api, "freeze_dataset")[-1])
    left = [job for job in waiting(api, "freeze_slices") if job.id not in {job.id for job in slices}]
    assert [job.args for job in left] == [slices[1].args]  # all others are there
    work(left[0])
    assert api.get("/v1/datasets/talks").json()["state"] == "ready"
    written = content(lake)
    lake.datasets.delete("talks")
    freeze(lake, name="talks", batches=["lectures"], policy=PAPER, threads=1)
    assert content(lake) == written


def test_a_freeze_goes_on_after_redis_was_flushed(api: LocalClient, lake: Lake) -> None:
    api.post("/v1/datasets", json=REQUEST)
    work(waiting(api, "freeze_dataset")[0])
    first, *others = waiting(api, "freeze_slices")
    work(first)
    api.app.state.queue.redis.flushall()
    assert api.get("/v1/datasets/talks").status_code == 404
    api.post("/v1/datasets", json=REQUEST)
    work(waiting(api, "freeze_dataset")[0])
    again = waiting(api, "freeze_slices")
    assert [job.args for job in again] == [job.args for job in others]
    for job in again:
        work(job)
    for job in again:  # what is delivered twice does nothing
        jobs.freeze_slices(*job.args)
    assert api.get("/v1/datasets/talks").json()["state"] == "ready"


def test_a_batch_that_changed_fails_the_freeze_and_says_so(api: LocalClient, lake: Lake) -> None:
    api.post("/v1/datasets", json=REQUEST)
    work(waiting(api, "freeze_dataset")[0])
    lake.batches.delete_result(BATCH, 3)
    with pytest.raises(Exception, match="changed while"):
        work(next(job for job in waiting(api, "freeze_slices") if job.args[2][0][0] == 1))
    assert lake.files.listing("datasets") == []
    for job in waiting(api, "freeze_slices"):
        work(job)  # the plan is gone: nothing is done
    assert lake.datasets.names() == []


def test_a_dataset_with_reviewed_texts_is_that_of_its_reviews(api: LocalClient, lake: Lake) -> None:
    def say(segment: int, text: str) -> None:
        key = str(lake.batches.result(BATCH, 1).label_key)
        lake.reviews.put(Review(f"review-{segment}", key, 0, segment, "甲", ReviewVerdict.TEXT, text, "ada", ""))

    assert api.post("/v1/datasets", json=REQUEST | {"gold": True}).json()["code"] == "bad_request"  # none is reviewed
    say(0, "改了")
    assert api.post("/v1/datasets", json=REQUEST | {"gold": True}).status_code == 202
    assert api.post("/v1/datasets", json=REQUEST).status_code == 409  # the same name without reviews
    (plan,) = waiting(api, "freeze_dataset")
    work(plan)
    for job in waiting(api, "freeze_slices"):
        work(job)
    state = api.get("/v1/datasets/talks").json()
    assert (state["state"], state["manifest"]["reviews"]["corrected"]) == ("ready", 1)
    assert state["manifest"]["origins"]["review"] > 0
    assert api.post("/v1/datasets", json=REQUEST | {"gold": True}).status_code == 202
    say(1, "也改了")
    assert api.post("/v1/datasets", json=REQUEST | {"gold": True}).status_code == 409
    assert api.post("/v1/datasets", json=REQUEST).status_code == 409
