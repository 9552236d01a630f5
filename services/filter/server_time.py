"""Times of jobs by the clock of the Redis server, so that machines whose clocks differ agree, and what a step of that
clock itself left behind is mended.

RQ takes each machine's own clock: a worker two hours ahead schedules a retry "in 7,200 s", one two hours behind takes
running jobs for abandoned ones. Redis' clock is one for all. When it is set itself, scores that lie further ahead than
anything is ever scheduled are moved near (`pull_near`), and jobs count as abandoned only if their expiry stays in the
past while nobody renews it (`Abandoned`).
"""

import time
from collections.abc import Callable
from typing import Final, cast

from redis import Redis
from rq.executions import Execution
from rq.intermediate_queue import IntermediateQueue
from rq.registry import ScheduledJobRegistry, StartedJobRegistry

SLACK_S: Final = 60.0  # a score this much further ahead than it can be was written by another clock
FIRST_SEEN_S: Final = 24 * 3600  # RQ's expiry of the note on a job between queue and worker
STUCK_S: Final = 20  # a job that is there for longer was lost by its worker (RQ: 60); beginning one takes milliseconds


def server_time(connection: Redis) -> float:
    """The Redis server's clock, as Unix time in seconds."""
    seconds, microseconds = connection.time()
    return seconds + microseconds / 1e6


class StartedJobs(StartedJobRegistry):
    """RQ's registry of running jobs, with expiries by the server's clock."""

    def add_execution(self, execution: Execution, pipeline, ttl: int = 0, xx: bool = False) -> int:  # type: ignore[no-untyped-def]
        """As RQ's, which takes this machine's clock."""
        at = int(server_time(self.connection)) + ttl
        added: int = pipeline.zadd(self.key, {execution.composite_key: at}, xx=xx)
        return added


class JobsBetween(IntermediateQueue):
    """RQ's list of jobs that a worker has taken and not begun; their age by the server's clock."""

    def should_be_cleaned_up(self, job_id: str) -> bool:
        """Whether a worker took the job more than STUCK_S ago and did not begin it."""
        left_s = self.connection.ttl(self.get_first_seen_key(job_id))
        return 0 <= left_s < FIRST_SEEN_S - STUCK_S


def pull_near(registry: ScheduledJobRegistry | StartedJobRegistry, *, at_most_s: float) -> int:
    """Move entries that lie more than `at_most_s` (and SLACK_S) ahead to `at_most_s` from now; returns how many.

    Scores only ever become smaller here, so that it does no harm when several workers do it.
    """
    now = server_time(registry.connection)
    far = cast(list[bytes], registry.connection.zrangebyscore(registry.key, f"({now + at_most_s + SLACK_S}", "+inf"))
    if far:
        registry.connection.zadd(registry.key, dict.fromkeys(far, int(now + at_most_s)), xx=True, lt=True)
    return len(far)


class Abandoned:
    """Which entries of a registry of running jobs are expired and not renewed by a worker that lives.

    After a step of the server's clock all are expired at once, until the next heartbeats: an entry counts when its
    expiry was in the past at two looks at least `renewed_s` apart and did not change between them.

        abandoned = Abandoned(renewed_s=7)
        registry.cleanup(timestamp=abandoned.until(registry))  # several times
    """

    def __init__(self, *, renewed_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._renewed_s, self._clock = renewed_s, clock
        self._since: dict[str, dict[tuple[bytes, float], float]] = {}  # by registry: (entry, expiry) → first look

    def until(self, registry: StartedJobRegistry) -> float:
        """The latest expiry up to which all entries are abandoned; -1 when none is."""
        looked = self._clock()
        now = server_time(registry.connection)
        expired = cast(
            list[tuple[bytes, float]], registry.connection.zrangebyscore(registry.key, 0, now, withscores=True)
        )
        before = self._since.get(registry.key, {})
        since = self._since[registry.key] = {entry: before.get(entry, looked) for entry in expired}
        until = -1.0
        for entry in expired:  # in the order of their expiries
            if looked - since[entry] < self._renewed_s:
                break
            until = entry[1]
        # one of the same second may still be renewed
        young = {entry[1] for entry in expired if looked - since[entry] < self._renewed_s}
        return until if until not in young else until - 1
