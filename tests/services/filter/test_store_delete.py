"""`k2d store delete` asks the labeling API and the store whether a worker is at the batch."""

import sys
from pathlib import Path

import pytest
from console import serve
from rq.job import Job
from rq.serializers import JSONSerializer

from k2d.cli import main
from k2d.documents import BatchOptions
from k2d.labeling.request import make_batch
from k2d.schema import Source
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.app import create_app
from services.filter.queue import CONTROL, request_plan

pytestmark = pytest.mark.integration


def test_a_batch_that_a_worker_is_at_is_not_deleted(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(store=str(tmp_path / "lake"), redis_url=redis_url, _env_file=None)
    lake = Lake(settings.store)
    batch = make_batch([Source("a.wav", "lake://uploads/a", "key")], BatchOptions(name="waiting"), settings)
    lake.batches.put(batch)
    lake.batches.cancel(batch.id)
    app = create_app(settings)
    queue = app.state.queue
    queue.redis.flushall()
    request_plan(queue, batch.id)
    Job.fetch(queue.job_ids(CONTROL)[0], queue.redis, serializer=JSONSerializer).set_status("started")

    def delete() -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["k2d", "store", "delete", "waiting", "--yes"])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    monkeypatch.setenv("K2D_STORE", settings.store)
    with serve(app) as url:
        monkeypatch.setenv("K2D_API_URL", url)
        code, err = delete()
        assert code == 2
        assert "a worker may be at batch 'waiting'" in err
        assert lake.batches.find("waiting") is not None
        queue.redis.flushall()
        assert delete() == (0, "")
    assert Lake(settings.store).batches.find("waiting") is None
    lake.batches.put(batch)
    lake.batches.cancel(batch.id)
    with lake.heartbeats.beating(batch.id):
        code, err = delete()  # no API answers any more: the store itself says it
        assert code == 2
        assert "batch 'waiting' is being worked on: pid" in err
    assert delete() == (0, "")
