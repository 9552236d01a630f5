"""Thread pools of the HTTP hosts, apart by what their threads wait for, so that one kind of wait holds up no other."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from k2d.errors import K2DError

T = TypeVar("T")
RETRY_AFTER_S: Final = 5.0


class ServerBusy(K2DError):
    """As much work of this kind is waiting as may wait."""

    code = "busy"
    status = 503
    hint = "ask again later"


class ThreadPool:
    """A pool of named threads, with a bound on what waits for them.

        FOREIGN = ThreadPool("foreign", 8, most_waiting=32)
        size = await FOREIGN.run(describe, uri)

    A call whose awaiting task is cancelled goes on in its thread, and counts until it ends.
    """

    def __init__(self, name: str, threads: int, *, most_waiting: int | None = None) -> None:
        self.name = name
        self.most = None if most_waiting is None else threads + most_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._calls: set[Future[object]] = set()

    async def run(self, function: Callable[..., T], *args: object, **named: object) -> T:
        """Call a function in a thread, with the caller's context variables.

        Raises:
            ServerBusy: as many calls wait as may.
        """
        if self.most is not None and len(self._calls) >= self.most:
            raise ServerBusy(f"{len(self._calls)} requests of this kind are in work", retry_after_s=RETRY_AFTER_S)
        call = partial(contextvars.copy_context().run, function, *args, **named)
        future: Future[T] = self._pool.submit(call)
        self._calls.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(future)


HEALTH: Final = ThreadPool("health", 4)  # readiness and metrics: nothing else may occupy these
KEYS: Final = ThreadPool("keys", 4)  # every request's key, and the audit log
STORE: Final = ThreadPool("store", 16)  # reads and writes of the lake and the queue for requests
EVENTS: Final = ThreadPool("events", 2)  # looks at batches for event streams
# what reads hosts that somebody else named: they may answer as slowly as they like
FOREIGN: Final = ThreadPool("foreign", 8, most_waiting=32)
# Questions over whole corpora take processors, not waits: more threads would answer none of them sooner. Previews take
# about a second of ten million chunks, the others (audits, draws, calibrations) many.
PREVIEWS: Final = ThreadPool("previews", 4, most_waiting=32)
QUESTIONS: Final = ThreadPool("questions", 4, most_waiting=32)
DECODING: Final = ThreadPool("decoding", 8)  # whole files in a decoding process


class SharedCall:
    """A call that everyone who asks while it runs shares, so that asking often costs no more than asking once.

    ready = SharedCall(HEALTH, lake.check)
    await ready()
    """

    def __init__(self, pool: ThreadPool, function: Callable[[], T]) -> None:
        self._pool, self._function = pool, function
        self._running: asyncio.Task[object] | None = None

    async def __call__(self) -> object:
        """The result of the running call, or of a new one; its errors are raised to all who share it."""
        if self._running is None or self._running.done() or self._running.get_loop() is not asyncio.get_running_loop():
            self._running = asyncio.create_task(self._pool.run(self._function))
        return await asyncio.shield(self._running)
