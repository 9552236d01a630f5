"""Inference servers as one Transcriber: the least busy is asked, failures are retried elsewhere, the sick avoided."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from os import getpid
from typing import Any, TypeVar

import numpy as np
import structlog

from k2d.errors import ModelError, ServerUnavailable
from k2d.inference import wire
from k2d.inference.endpoint import Endpoint
from k2d.inference.wire import Head
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult

FIRST_WAIT_S = 0.2  # between attempts; doubles
LONGEST_WAIT_S = 10.0
SICK_AFTER = 3  # failures in a row, then a server is left alone
SICK_S = 1.0  # for so long; doubles with each failed trial
SICKEST_S = 30.0
OTHER_MODEL_S = 60.0  # a server that came back with another model is looked at again after this
DESCRIBE_S = 60.0  # Triton answers behind the batch in its engine's hands

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Server:
    """What is known of one server. The circuit breaker: closed below SICK_AFTER failures, then open until
    `avoid_until`, then half-open: one call at a time until one succeeds."""

    endpoint: Endpoint
    outstanding: int = 0
    failures: int = 0  # in a row
    avoid_until: float = 0.0

    def takes_calls(self, now: float) -> bool:
        if now < self.avoid_until:
            return False
        return self.failures < SICK_AFTER or self.outstanding == 0

    def succeeded(self) -> None:
        if self.failures >= SICK_AFTER:
            log.info("server is back", server=self.endpoint.address)
        self.failures, self.avoid_until = 0, 0.0

    def failed(self, error: ServerUnavailable) -> None:
        if error.busy:
            return
        self.failures += 1
        if self.failures >= SICK_AFTER:
            doublings = min(self.failures - SICK_AFTER, 5)
            self.avoid_until = time.monotonic() + min(SICKEST_S, SICK_S * 2**doublings)
            log.warning("server is avoided", server=self.endpoint.address, failures=self.failures, error=error.message)


class RemoteTranscriber:
    """A Transcriber over servers that all have one model. Made by `connect`."""

    def __init__(self, endpoints: Sequence[Endpoint], *, model: ModelInfo, timeout_s: float, patience_s: float) -> None:
        self._servers = [Server(endpoint) for endpoint in endpoints]
        self._model = model
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._client = f"{socket.gethostname()}:{getpid()}"
        self.retries = 0  # attempts beyond the first
        self.refusals = 0  # of them, those that a full queue caused: Triton's own metrics do not count these

    @property
    def model(self) -> ModelInfo:
        return self._model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        head = self._head(act="transcribe", options=options, prompt=window.prompt)
        return self._read(wire.result, await self._ask(head, window))

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        """How likely `text` is for the window; errors as for `transcribe`."""
        head = self._head(act="score", options=options, prompt=window.prompt, text=text)
        return self._read(wire.score, await self._ask(head, window))

    async def close(self) -> None:
        if self.retries:
            log.info("retried", servers=_names(self._servers), attempts=self.retries, queue_full=self.refusals)
        for server in self._servers:
            await server.endpoint.close()

    def _head(self, **members: Any) -> Head:
        return Head(client=self._client, timeout_s=self._timeout_s, **members)

    async def _ask(self, head: Head, window: Window) -> dict[str, Any]:
        """One answer of the right model, from whichever server gives it.

        A full queue is waited for as long as it takes; servers that do not answer, for `patience_s`.
        """
        give_up_at: float | None = None
        last: ServerUnavailable | None = None
        for attempt in count():
            server = await self._choose(give_up_at, last)
            server.outstanding += 1
            try:
                document = await server.endpoint.call(head, window.samples, timeout_s=self._timeout_s)
                self._check_model(server, document)
                self._check_model(server, document)
            except ServerUnavailable as error:
                server.failed(error)
                last = error
                self.retries += 1
                self.refusals += error.busy
                now = time.monotonic()
                give_up_at = now + self._patience_s if give_up_at is None or error.busy else give_up_at
                if now >= give_up_at:
                    raise self._given_up(error) from error
                wait_s = self._wait_s(attempt, error)
            else:
                server.succeeded()
                return document
            finally:
                server.outstanding -= 1
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")  # the loop has no end

    async def _choose(self, give_up_at: float | None, last: ServerUnavailable | None) -> Server:
        """The server with the fewest calls outstanding among those that are well; wait for one if none is.

        Raises:
            ModelError: patience is at its end; `last` says why none is well.
        """
        while True:
            now = time.monotonic()
            able = [server for server in self._servers if server.takes_calls(now)]
            if able:
                fewest = min(server.outstanding for server in able)
                return random.choice([server for server in able if server.outstanding == fewest])
            if give_up_at is not None and now >= give_up_at:
                raise self._given_up(last or ServerUnavailable("none of them is well"))
            until = min(server.avoid_until for server in self._servers)
            await asyncio.sleep(min(max(until - now, 0.05), 1.0))

    def _wait_s(self, attempt: int, error: ServerUnavailable) -> float:
        """Before the next attempt: nothing when another server is well, else longer each time, never in step."""
        if not error.busy and attempt == 0 and sum(s.takes_calls(time.monotonic()) for s in self._servers) > 1:
            return 0.0
        backoff = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10))
        asked = min(error.retry_after_s or 0.0, LONGEST_WAIT_S)
        return float(max(backoff, asked) * random.uniform(0.5, 1.0))

    def _check_model(self, server: Server, document: dict[str, Any]) -> None:
        found = document.get("model")
        if found == self._model.fingerprint:
            return
        server.failures = SICK_AFTER
        server.avoid_until = time.monotonic() + OTHER_MODEL_S
        message = f"{server.endpoint.address} has another model now: {found}, not {self._model.fingerprint}"
        log.error("server is avoided", server=server.endpoint.address, error=message)
        raise ServerUnavailable(message)

    def _read(self, read: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> T:
        try:
            return read(document)
        except ValueError as error:
            raise ModelError(
                f"{_names(self._servers)} sent an answer of another version", hint="upgrade both"
            ) from error

    def _given_up(self, error: ServerUnavailable) -> ModelError:
        return ModelError(
            f"no answer within {self._patience_s:g} s from {_names(self._servers)}: {error.message}",
            hint=error.hint or "the job is retried; K2D_SERVER_PATIENCE_S says how long to wait for a server",
        )


async def connect(endpoints: Sequence[Endpoint], *, timeout_s: float, patience_s: float) -> RemoteTranscriber:
    """Ask servers what they have, and make them one Transcriber.

    Waits up to `patience_s` for the first to answer; those that do not answer by then are tried again later.

    Raises:
        ModelError: none answers, or two have different models.
    """
    deadline = time.monotonic() + patience_s
    wait_s = FIRST_WAIT_S
    while True:
        answers = await asyncio.gather(*map(_describe, endpoints), return_exceptions=True)
        models = {e.address: a for e, a in zip(endpoints, answers, strict=True) if isinstance(a, ModelInfo)}
        errors = [a for a in answers if isinstance(a, BaseException)]
        final = next((error for error in errors if not isinstance(error, ServerUnavailable)), None)
        if final is not None:
            raise final
        if models:
            break
        if time.monotonic() + wait_s > deadline:
            addresses = ", ".join(endpoint.address for endpoint in endpoints)
            raise ModelError(
                f"no inference server answers at {addresses}: {errors[0]}",
                hint="start one (k2d serve teacher), or wait until it is ready: /readyz says why not",
            )
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S / 4)
    if len({model.fingerprint for model in models.values()}) > 1:
        each = "; ".join(f"{address}: {model.reference} ({model.fingerprint})" for address, model in models.items())
        raise ModelError(f"servers of one address have different models: {each}", hint="give each model its own pool")
    model = next(iter(models.values()))
    return RemoteTranscriber(endpoints, model=model, timeout_s=timeout_s, patience_s=patience_s)


async def _describe(endpoint: Endpoint) -> ModelInfo:
    document = await endpoint.call(Head(act="describe"), np.zeros(1, np.int16), timeout_s=DESCRIBE_S)
    try:
        return wire.described(document)
    except ValueError as error:
        raise ModelError(f"{endpoint.address} is no inference server of this version", hint="upgrade both") from error


def _names(servers: Sequence[Server]) -> str:
    return ", ".join(server.endpoint.address for server in servers)
