"""Event streams of batches: each batch is looked at once for all who listen to it, however many they are."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
import structlog
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from k2d.documents import BatchStatus
from k2d.errors import K2DError, NotFound
from k2d.schema import Batch, BatchState
from services.web.pools import EVENTS

log = structlog.get_logger()

EVENT_S: Final = 1.0  # between looks at a batch, at least
REST_SHARE: Final = 4  # times as long as a look took is waited, so that looks never fill the machine
PING_S: Final = 15  # between comments that keep proxies from closing an idle stream
MOST_OF_A_KEY: Final = 500  # listeners; without keys all are one
MOST: Final = 2000
RETRY_AFTER_S: Final = 30.0


class TooManyListeners(K2DError):
    """A key has as many event streams as it may have."""

    code = "too_many_listeners"
    status = 429
    hint = "close other event streams, or ask for the status now and then instead"


class ListenersFull(TooManyListeners):
    """All keys together have as many event streams as the server takes."""

    status = 503


class BatchFeed:
    """What the listeners of one batch share: its latest status, and the task that looks at it while they listen."""

    def __init__(self, batch: Batch, look: Callable[[Batch], BatchStatus]) -> None:
        self.batch, self._look = batch, look
        self.listeners = 0
        self.text = ""
        self.ended = False
        self.error: BaseException | None = None  # the task ended with it
        self.news = asyncio.Event()  # replaced at each change
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._note_end)

    @property
    def is_over(self) -> bool:
        """Whether no more changes will come."""
        return self.ended or self._task.done()

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while not self.ended:
            began = time.monotonic()
            try:
                await self._update()
            except NotFound:
                raise
            except K2DError as error:  # the store does not answer for a while: the listeners stay
                log.warning("batch cannot be read for its events", batch=self.batch.id, error=error.message)
            await asyncio.sleep(max(EVENT_S, REST_SHARE * (time.monotonic() - began)))

    async def _update(self) -> None:
        text, ended = await EVENTS.run(self._status)
        if text != self.text or ended:
            self.text, self.ended = text, ended
            self._tell()

    def _status(self) -> tuple[str, bool]:
        status = self._look(self.batch)
        return status.model_dump_json(by_alias=True), status.state in (BatchState.DONE, BatchState.CANCELLED)

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.error = task.exception()
        self._tell()


class BatchFeeds:
    """The feeds of all batches that somebody listens to, and how many listen.

    feeds = BatchFeeds(look)
    listener = feeds.listen(batch, "an-id ada")
    async for event in listener.events(stopping): ...
    listener.close()
    """

    def __init__(self, look: Callable[[Batch], BatchStatus]) -> None:
        self._look = look
        self._feeds: dict[str, BatchFeed] = {}
        self._by_key: Counter[str] = Counter()

    def listen(self, batch: Batch, key: str) -> "Listener":
        """Begin to listen to a batch, on behalf of a key.

        Raises:
            TooManyListeners, ListenersFull
        """
        if self._by_key[key] >= MOST_OF_A_KEY:
            raise TooManyListeners(f"this key listens to {MOST_OF_A_KEY} event streams", retry_after_s=RETRY_AFTER_S)
        if self._by_key.total() >= MOST:
            raise ListenersFull(f"{MOST} event streams are open", retry_after_s=RETRY_AFTER_S)
        feed = self._feeds.get(batch.id)
        if feed is None or feed.is_over:
            feed = self._feeds[batch.id] = BatchFeed(batch, self._look)
        feed.listeners += 1
        self._by_key[key] += 1
        return Listener(self, feed, key)

    def leave(self, feed: BatchFeed, key: str) -> None:
        """Count a listener less; the batch's last one ends the looking."""
        self._by_key -= Counter([key])  # also drops a key without listeners
        feed.listeners -= 1
        if feed.listeners == 0:
            feed.close()
            if self._feeds.get(feed.batch.id) is feed:
                del self._feeds[feed.batch.id]


class Listener:
    """One listener of a feed. `close` once."""

    def __init__(self, feeds: BatchFeeds, feed: BatchFeed, key: str) -> None:
        self._feeds, self._feed, self._key = feeds, feed, key

    async def events(self, stopping: anyio.Event) -> AsyncIterator[ServerSentEvent]:
        """The batch's status now, then as often as it changes, until it is done or cancelled, or the server stops.

        Raises:
            NotFound: the batch is gone.
        """
        feed, sent = self._feed, ""
        while not stopping.is_set():
            news = feed.news
            if feed.error is not None:
                raise feed.error
            if feed.text and feed.text != sent:
                sent = feed.text
                yield ServerSentEvent(sent, event="end" if feed.ended else "status", sep="\n")
            if feed.ended:
                return
            if feed.news is news:
                try:
                    async with asyncio.timeout(EVENT_S):  # to see that the server stops
                        await news.wait()
                except TimeoutError:
                    continue

    def close(self) -> None:
        self._feeds.leave(self._feed, self._key)


class BatchEvents(EventSourceResponse):
    """The event stream of a listener, who leaves when the stream ends or the client goes."""

    def __init__(self, listener: Listener) -> None:
        stopping = anyio.Event()  # set when the server stops
        grace_s = 2 * EVENT_S  # without it the response would be cut off in the middle
        events = listener.events(stopping)
        super().__init__(events, sep="\n", ping=PING_S, shutdown_event=stopping, shutdown_grace_period=grace_s)
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listener.close()
