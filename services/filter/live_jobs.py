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

from k2d.corpus.time_left import work_done_s
from k2d.documents import Jobs

LIVE: Final = frozenset({JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED})
ERRORS_READ: Final = 20  # jobs of a batch whose meta is read, for errors; chosen
AT, SINCE, DONE, AUDIO = "at", "since", "done", "audio"  # beside positions, in the hash of a batch's live progress
KNOWN: Final = "known:"  # and before a position: of its seconds, those on which no model had to work
_JOB: Final = "rq:job:"  # begins the keys of RQ's jobs
_STARTED: Final = JobStatus.STARTED.value.encode()
_FAILED: Final = JobStatus.FAILED.value.encode()
_LIVE: Final = frozenset(status.value.encode() for status in LIVE)

# Counts the jobs of a set by status. KEYS: the set. ARGV: what begins a job's key, how many ids to name, live statuses.
# Returns statuses with counts, the first ids of failed jobs, the first ids of live ones with their status, and the ids
# of jobs that Redis lost. One request for any number of jobs; SORT would do as well, but is forbidden to most users.
_COUNT: Final = """
local counts, failed, live, gone, is_live = {}, {}, {}, {}, {}
local most = tonumber(ARGV[2])
for place = 3, #ARGV do is_live[ARGV[place]] = true end
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local status = redis.call('HGET', ARGV[1] .. id, 'status')
  if not status then
    gone[#gone + 1] = id
  else
    counts[status] = (counts[status] or 0) + 1
    if status == 'failed' and #failed < most then
      failed[#failed + 1] = id
    elseif is_live[status] and #live < 2 * most then
      live[#live + 1] = id
      live[#live + 1] = status
    end
  end
end
local flat = {}
for status, count in pairs(counts) do
  flat[#flat + 1] = status
  flat[#flat + 1] = count
end
return {flat, failed, live, gone}
"""


def jobs_key(batch: str) -> str:
    """The key of the set of ids of a batch's jobs."""
    return f"k2d:jobs:{batch}"


def live_key(batch: str) -> str:
    """The key of a hash: seconds transcribed in each unfinished recording of a batch, and how many of them were there
    already (`known:`), when that was (`at`), since when (`since`) models worked on how many seconds of finished ones
    (`done`), and the seconds of the whole batch (`audio`)."""
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
            pipe.eval(_COUNT, 1, jobs_key(batch), _JOB, ERRORS_READ, *sorted(status.value for status in LIVE))
            pipe.hgetall(live_key(batch))
        answers = pipe.execute()
    states = {batch: _JobStates.of(answer) for batch, answer in zip(batches, answers[::2], strict=True)}
    _forget_gone(connection, states)
    news = _news(connection, states)
    refused = refuses_writes() if any(jobs.live for jobs in states.values()) else None
    return {
        batch: _jobs(states[batch], fields, news[batch], refused)
        for batch, fields in zip(batches, answers[1::2], strict=True)
    }


@dataclass(frozen=True, slots=True)
class _JobStates:
    """The jobs of a batch."""

    counts: Counter[bytes]  # by status
    failed: list[bytes]  # ids of some
    waiting: dict[bytes, bytes]  # ids of some live ones, with their status
    gone: list[bytes]  # ids

    @classmethod
    def of(cls, answer: Sequence[list[bytes]]) -> "_JobStates":
        flat, failed, live, gone = answer
        counts = Counter({status: int(count) for status, count in zip(flat[::2], flat[1::2], strict=True)})
        return cls(counts, failed, dict(zip(live[::2], live[1::2], strict=True)), gone)

    @property
    def live(self) -> int:
        """How many are live."""
        return sum(self.counts[status] for status in _LIVE)


@dataclass(slots=True)
class _JobNews:
    """What the jobs of a batch say that failed or wait."""

    error: str | None = None
    waiting_for: str | None = None


def _forget_gone(connection: redis.Redis, states: Mapping[str, _JobStates]) -> None:
    """Take jobs that Redis lost out of the sets of their batches. A heartbeat for one leaves a hash without status."""
    for batch, jobs in states.items():
        if jobs.gone:
            with suppress(RedisError):  # a Redis that takes no writes
                connection.srem(jobs_key(batch), *jobs.gone)


def _news(connection: redis.Redis, states: Mapping[str, _JobStates]) -> dict[str, _JobNews]:
    """The last error of each batch and what its jobs wait for, from jobs that failed or are live; in one request."""
    asked = [(batch, job_id) for batch, jobs in states.items() for job_id in [*jobs.failed, *jobs.waiting]]
    news = {batch: _JobNews() for batch in states}
    if not asked:
        return news
    with connection.pipeline(transaction=False) as pipe:
        for _, job_id in asked:
            pipe.hget(_JOB + job_id.decode(), "meta")
        metas = pipe.execute()
    for (batch, job_id), stored in zip(asked, metas, strict=True):
        meta = json.loads(stored) if stored else {}
        of_batch, error = news[batch], meta.get("error")
        of_batch.error = of_batch.error or error
        if meta.get("waits") and states[batch].waiting.get(job_id, _STARTED) != _STARTED:
            of_batch.waiting_for = of_batch.waiting_for or error
    return news


def _jobs(states: _JobStates, fields: dict[bytes, bytes], news: _JobNews, refused: str | None) -> Jobs:
    at, since, done, audio_s = (fields.pop(name.encode(), None) for name in (AT, SINCE, DONE, AUDIO))
    known_s = sum(float(value) for name, value in fields.items() if name.startswith(KNOWN.encode()))
    in_flight_s = sum(float(value) for name, value in fields.items() if not name.startswith(KNOWN.encode()))
    done_s = float(done or 0)
    elapsed_s = float(at) - float(since) if at and since else 0.0
    return Jobs(
        jobs_queued=states.live - states.counts[_STARTED],
        jobs_running=states.counts[_STARTED],
        jobs_failed=states.counts[_FAILED],
        last_error=news.error,
        waiting_for=(refused or news.waiting_for) if states.live else None,
        seconds_in_flight=round(in_flight_s, 3),
        times_real_time=(
            round(work_done_s(done_s + in_flight_s - known_s, done_s) / elapsed_s, 2) if elapsed_s > 0 else None
        ),
        updated_at=float(at) if at else None,
        audio_s=float(audio_s) if audio_s else None,
    )
