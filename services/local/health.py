"""What keeps a running stack from working: said once when it begins and once when it is over; and what to do about a
Redis that lost its content."""

import time
from contextlib import suppress
from typing import Final

import httpx
import structlog
from redis import Redis
from redis.exceptions import RedisError

from k2d.client.backend import ResumeIncomplete
from k2d.client.http import Client
from k2d.errors import K2DError
from services.local.redis_server import EmbeddedRedis

log = structlog.get_logger()

LOOK_S: Final = 5.0  # between looks
MARK: Final = "k2d:up"  # a key of Redis that is gone when Redis lost its content
STARTING_S: Final = 15.0  # without an answer, before that is said: a restart of the API takes some of it


class HealthWatch:
    """Asks the API whether store and queue take writes, and resumes batches after Redis lost its content.

    watch = HealthWatch(stack.client(), stack.redis)
    watch.look()  # as often as you like; it asks every LOOK_S
    """

    def __init__(self, client: Client, redis: EmbeddedRedis | None) -> None:
        self._client, self._redis = client, redis
        self._looked_at = 0.0
        self._silent_since: float | None = None
        self.trouble: str | None = None  # what keeps work from going on now

    def look(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        self._say(self._find_trouble(now))
        if self.trouble is None and self._redis is not None:
            self._resume_if_lost()

    def _find_trouble(self, now: float) -> str | None:
        try:
            response = self._client.http.get("/readyz", timeout=LOOK_S)
            body = {} if response.is_success else response.json()
            self._silent_since = None
        except (httpx.HTTPError, ValueError):
            self._silent_since = self._silent_since or now
            is_long = now - self._silent_since >= STARTING_S
            return f"the API does not answer at {self._client.http.base_url}" if is_long else self.trouble
        if not body:
            return None
        hint = body.get("hint")
        return str(body.get("detail", response.reason_phrase)) + (f" ({hint})" if hint else "")

    def _say(self, trouble: str | None) -> None:
        if trouble is not None and self.trouble is None:
            log.error(f"work waits: {trouble}")
        elif trouble is None and self.trouble is not None:
            log.warning("work goes on", after=self.trouble)
        self.trouble = trouble

    def _resume_if_lost(self) -> None:
        """Queue again what is missing when Redis does not know us: it is new, was flushed, or lost its file, perhaps
        before we first looked."""
        assert self._redis is not None
        with suppress(RedisError, K2DError), Redis.from_url(self._redis.url, socket_timeout=LOOK_S) as server:
            if server.exists(MARK):
                return
            if self._resume():
                log.warning("Redis knows nothing of unfinished batches: they are queued again")
            server.set(MARK, 1)

    def _resume(self) -> bool:
        """Whether something was missing."""
        try:
            return bool(self._client.resume())
        except ResumeIncomplete as error:
            if error.failed:
                log.error(error.message, hint=error.hint)
            for note in error.notes():
                log.warning(note)
            return bool(error.resumed)
