"""What Redis knows of batches and of datasets that are being written: their jobs, and live progress.

However many jobs a batch has, it takes one request for their states and one for what some of them say.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import redis
from redis.exceptions import RedisError
from rq.job import JobStatus

from k2d.documents import Jobs

LIVE: Final = frozenset({JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED})
ERRORS_READ: Final = 20  # jobs of a batch whose meta is read, for errors; chosen
AT, SINCE, DONE, AUDIO = "at", "since", "done", "audio"  # beside positions, in the hash of a batch's live progress
_JOB: Final = "rq:job:"  # begins the keys of RQ's jobs
_STARTED: Final = JobStatus.STARTED.value.encode()
_FAILED: Final = JobStatus.FAILED.value.encode()
_LIVE: Final = frozenset(status.value.encode() for status in LIVE)

States = Mapping[bytes, bytes | None]  # by the id of a job: its status; None of one that Redis lost


def jobs_key(batch: str) -> str:
    """The key of the set of ids of a batch's jobs."""
    return f"k2d:jobs:{batch}"


def live_key(batch: str) -> str:
    """The key of a hash: seconds transcribed in each unfinished recording of a batch, when that was (`at`), and since
    when (`since`) how many seconds were finished (`done`), and the seconds of the whole batch (`audio`)."""
    return f"k2d:live:{batch}"


def live_jobs(
    connection: redis.Redis, batches: Sequence[str], *, refuses_writes: Callable[[], str | None]
) -> dict[str, Jobs]:
    """What Redis knows of several batches. `refuses_writes` says why it takes no writes, if it takes none.

    Raises:
        RedisError
    """
    with connection.pipeline(transaction=False) as pipe:
        for batch in batches:
            # SORT counts as a write, which a Redis that takes none refuses; redis-py's sort_ro sends SORT
            sort = ("SORT_RO", jobs_key(batch), "BY", "nosort", "GET", "#", "GET", f"{_JOB}*->status")
            pipe.execute_command(*sort)  # type: ignore[no-untyped-call]
            pipe.hgetall(live_key(batch))
        answers = pipe.execute()
    states: dict[str, States] = {
        batch: dict(zip(ids[::2], ids[1::2], strict=True)) for batch, ids in zip(batches, answers[::2], strict=True)
    }
    _forget_gone(connection, states)
    news = _news(connection, states)
    refused = refuses_writes() if any(map(_is_live, states.values())) else None
    return {
        batch: _jobs(states[batch], fields, news[batch], refused)
        for batch, fields in zip(batches, answers[1::2], strict=True)
    }


@dataclass(slots=True)
class _JobNews:
    """What the jobs of a batch say that failed or wait."""

    error: str | None = None
    waiting_for: str | None = None


def _forget_gone(connection: redis.Redis, states: Mapping[str, States]) -> None:
    """Take jobs that Redis lost out of the sets of their batches. A heartbeat for one leaves a hash without status."""
    for batch, jobs in states.items():
        gone = [job_id for job_id, status in jobs.items() if not status]
        if gone:
            with suppress(RedisError):  # a Redis that takes no writes
                connection.srem(jobs_key(batch), *gone)


def _news(connection: redis.Redis, states: Mapping[str, States]) -> dict[str, _JobNews]:
    """The last error of each batch and what its jobs wait for, from jobs that failed or are live; in one request."""
    asked = [
        (batch, job_id)
        for batch, jobs in states.items()
        for job_id in sorted(
            (job_id for job_id, status in jobs.items() if status == _FAILED or status in _LIVE),
            key=lambda job_id: (jobs[job_id] != _FAILED, job_id),
        )[:ERRORS_READ]
    ]
    news = {batch: _JobNews() for batch in states}
    if not asked:
        return news
    with connection.pipeline(transaction=False) as pipe:
        for _, job_id in asked:
            pipe.hget(_JOB + job_id.decode(), "meta")
        metas = pipe.execute()
    for (batch, job_id), stored in zip(asked, metas, strict=True):
        meta = json.loads(stored) if stored else {}
        of_batch, error, status = news[batch], meta.get("error"), states[batch][job_id]
        of_batch.error = of_batch.error or error
        if meta.get("waits") and status in _LIVE and status != _STARTED:
            of_batch.waiting_for = of_batch.waiting_for or error
    return news


def _jobs(states: States, fields: dict[bytes, bytes], news: _JobNews, refused: str | None) -> Jobs:
    counts = Counter(states.values())
    live = sum(counts[status] for status in _LIVE)
    at, since, done, audio_s = (fields.pop(name.encode(), None) for name in (AT, SINCE, DONE, AUDIO))
    in_flight_s = sum(float(value) for value in fields.values())
    elapsed_s = float(at) - float(since) if at and since else 0.0
    return Jobs(
        jobs_queued=live - counts[_STARTED],
        jobs_running=counts[_STARTED],
        jobs_failed=counts[_FAILED],
        last_error=news.error,
        waiting_for=(refused or news.waiting_for) if live else None,
        seconds_in_flight=round(in_flight_s, 3),
        times_real_time=round((float(done or 0) + in_flight_s) / elapsed_s, 2) if elapsed_s > 0 else None,
        updated_at=float(at) if at else None,
        audio_s=float(audio_s) if audio_s else None,
    )


def _is_live(states: States) -> bool:
    return any(status in _LIVE for status in states.values())
