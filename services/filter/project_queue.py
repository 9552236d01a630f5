"""Takes jobs out of queues so that none is lost with the worker that takes it."""

import time
from collections.abc import Sequence
from typing import Final, cast

from redis import Redis
from rq.exceptions import DequeueTimeout
from rq.intermediate_queue import IntermediateQueue
from rq.queue import Queue

LOOK_S: Final = 0.5  # between looks at all queues; one is waited for meanwhile
SEARCH_S: Final = 30  # for a search for abandoned jobs, which takes milliseconds; RQ gives it 15 minutes


class ProjectQueue(Queue):
    """A queue whose jobs lie in a list beside it until a work horse has begun them.

    RQ does so for workers of one queue. One of several takes a job out of Redis and then notes that it has it: where it
    is killed between the two, the job is in no list any more, and counts as queued for ever.
    """

    @classmethod
    def lpop(
        cls, queue_keys: Sequence[str], timeout: int | None, connection: Redis | None = None
    ) -> tuple[str, bytes] | None:
        """Move the next job of the first queue that has one to the list beside it; returns the queue's key and the id.

        Args:
            timeout: seconds to wait for a job; None: do not wait, and return None where there is none.

        Raises:
            DequeueTimeout: there was none in time.
        """
        assert connection is not None
        until = time.monotonic() + (timeout or 0)
        while True:
            for key in queue_keys:
                job_id = connection.lmove(key, IntermediateQueue.get_intermediate_queue_key(key), "LEFT", "RIGHT")
                if job_id is not None:
                    return key, cast(bytes, job_id)
            if timeout is None:
                return None
            if time.monotonic() >= until:
                raise DequeueTimeout(timeout, queue_keys)
            last = queue_keys[-1]
            beside = IntermediateQueue.get_intermediate_queue_key(last)
            if (job_id := connection.blmove(last, beside, LOOK_S, "LEFT", "RIGHT")) is not None:  # type: ignore[arg-type]
                return last, cast(bytes, job_id)

    def acquire_maintenance_lock(self) -> bool:
        """Whether no other worker is searching for abandoned jobs; one that was killed while it did is waited for no
        longer than SEARCH_S."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=SEARCH_S))
