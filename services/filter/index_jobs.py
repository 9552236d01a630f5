"""Queues jobs for the parts of an index that are finished and not stored, so that no request has to make many."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from k2d.corpus.batch_index import BatchIndex
from k2d.errors import K2DError, QueueError
from k2d.schema import Batch
from k2d.store import Lake
from k2d.wording import counted
from services.filter.queue import CORPUS, JobRequest, WorkQueue

# Parts that a request makes by itself: it takes seconds. Workers store parts when they finish them, so there are more
# only behind an upgrade, or where a worker was killed between its last result and the index.
IN_REQUEST: Final = 1


class IndexIncomplete(K2DError):
    """Parts of the index of a batch are being made."""

    code = "index_incomplete"
    status = 503
    hint = "workers make it: ask again in a minute; `k2d status` says how far they are"


def queue_unmade(index: BatchIndex, batch: Batch, queue: WorkQueue) -> int:
    """Queue the parts that are finished and not stored, if they are too many for a request; returns how many.

    While Redis does not answer nothing is queued; the next request does it.
    """
    unmade = index.unmade
    if len(unmade) <= IN_REQUEST:
        return 0
    jobs = [JobRequest("index_part", [batch.id, number], slot=f"index:{batch.id}:{number}") for number in unmade]
    with suppress(QueueError):
        queue.enqueue_many(CORPUS, jobs, batch=batch.id)
    return len(unmade)


def require_index(batches: Sequence[Batch], lake: Lake, queue: WorkQueue) -> None:
    """Queue what is missing of the index of these batches.

    Raises:
        IndexIncomplete: there is more than a request can make.
    """
    missing = {batch.name: queue_unmade(BatchIndex(lake, batch), batch, queue) for batch in batches}
    for name, count in missing.items():
        if count:
            raise IndexIncomplete(f"{counted(count, 'part')} of the index of batch {name!r} must be made first")
