"""Several inference servers as one Transcriber: least-loaded routing, retries, a circuit breaker for each server."""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from os import getpid
from typing import Any, Final, TypeVar

import numpy as np
import structlog

from k2d.errors import ModelError, ServerUnavailable
from k2d.inference import wire
from k2d.inference.endpoint import Endpoint
from k2d.inference.wire import Head
from k2d.schema import DecodeOptions, ModelInfo, TextScore, Window, WindowResult

FIRST_WAIT_S: Final = 0.2  # between attempts; doubles with each
MAX_WAIT_S: Final = 10.0
OPEN_AFTER: Final = 3  # failures in a row that open a server's circuit breaker
OPEN_S: Final = 1.0  # how long it stays open; doubles with each failed trial call
MAX_OPEN_S: Final = 30.0
OTHER_MODEL_S: Final = 60.0  # how long it stays open for a server that restarted with another model
DESCRIBE_S: Final = 60.0  # timeout of `describe`: Triton answers only after the batch that its engine is working on

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Server:
    """A server's load and circuit breaker.

    The breaker is closed while there are fewer than OPEN_AFTER failures in a row; then it is open until `open_until`,
    then half-open: one trial call at a time, until one succeeds and closes it.
    """

    endpoint: Endpoint
    outstanding: int = 0  # calls in flight
    failures: int = 0  # in a row
    open_until: float = 0.0  # by time.monotonic()

    def accepts_calls(self, now: float) -> bool:
        """Whether the breaker is closed, or half-open without a trial call in flight."""
        if now < self.open_until:
            return False
        return self.failures < OPEN_AFTER or self.outstanding == 0

    def succeeded(self) -> None:
        if self.failures >= OPEN_AFTER:
            log.info("circuit breaker closed", server=self.endpoint.address)
        self.failures, self.open_until = 0, 0.0

    def failed(self, error: ServerUnavailable) -> None:
        if error.busy:  # a full queue is no failure
            return
        self.failures += 1
        if self.failures >= OPEN_AFTER:
            doublings = min(self.failures - OPEN_AFTER, 5)
            self.open_until = time.monotonic() + min(MAX_OPEN_S, OPEN_S * 2**doublings)
            log.warning(
                "circuit breaker opened", server=self.endpoint.address, failures=self.failures, error=error.message
            )


class RemoteTranscriber:
    """A Transcriber over servers that all have the same model; `connect` creates it.

    Each call goes to a healthy server with the fewest calls in flight. A failed call is retried, on another server if
    there is one, until no server has answered for `patience_s` seconds; then it raises ModelError. While the servers'
    queues are full, it is retried without limit.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, model: ModelInfo, timeout_s: float, patience_s: float) -> None:
        self._servers = [Server(endpoint) for endpoint in endpoints]
        self._model = model
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._client = f"{socket.gethostname()}:{getpid()}"
        self.retries = 0  # attempts beyond the first
        self.refusals = 0  # retries because of a full queue, which Triton's own metrics do not count

    @property
    def model(self) -> ModelInfo:
        return self._model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        head = self._head(act="transcribe", options=options, prompt=window.prompt)
        return self._read(wire.result, await self._call(head, window))

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        """Compute the forced log-probabilities of `text` for the window; errors as for `transcribe`."""
        head = self._head(act="score", options=options, prompt=window.prompt, text=text)
        return self._read(wire.score, await self._call(head, window))

    async def close(self) -> None:
        if self.retries:
            log.info("retried", servers=_names(self._servers), attempts=self.retries, queue_full=self.refusals)
        for server in self._servers:
            await server.endpoint.close()

    def _head(self, **members: Any) -> Head:
        return Head(client=self._client, timeout_s=self._timeout_s, **members)

    async def _call(self, head: Head, window: Window) -> dict[str, Any]:
        """Call a server, with retries; returns the answer document.

        While a queue is full, retries have no limit; while servers are unavailable, it is `patience_s`.

        Raises:
            ModelError: no server answered in time.
        """
        give_up_at: float | None = None
        last: ServerUnavailable | None = None
        for attempt in count():
            server = await self._choose(give_up_at, last)
            server.outstanding += 1
            try:
                document = await server.endpoint.call(head, window.samples, timeout_s=self._timeout_s)
                self._check_model(server, document)
            except ServerUnavailable as error:
                server.failed(error)
                last = error
                self.retries += 1
                self.refusals += error.busy
                now = time.monotonic()
                give_up_at = now + self._patience_s if give_up_at is None or error.busy else give_up_at
                if now >= give_up_at:
                    raise self._no_answer(error) from error
                wait_s = self._wait_s(attempt, error)
            else:
                server.succeeded()
                return document
            finally:
                server.outstanding -= 1
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")  # the loop has no end

    async def _choose(self, give_up_at: float | None, last: ServerUnavailable | None) -> Server:
        """A server with the fewest calls in flight among those that accept calls; waits until there is one.

        Raises:
            ModelError: there is none at `give_up_at`; `last` says why.
        """
        while True:
            now = time.monotonic()
            available = [server for server in self._servers if server.accepts_calls(now)]
            if available:
                fewest = min(server.outstanding for server in available)
                return random.choice([server for server in available if server.outstanding == fewest])
            if give_up_at is not None and now >= give_up_at:
                raise self._no_answer(last or ServerUnavailable("all servers are unavailable"))
            until = min(server.open_until for server in self._servers)
            await asyncio.sleep(min(max(until - now, 0.05), 1.0))

    def _wait_s(self, attempt: int, error: ServerUnavailable) -> float:
        """Seconds before the next attempt: 0 if another server accepts calls, else exponential backoff with jitter."""
        if not error.busy and attempt == 0 and sum(s.accepts_calls(time.monotonic()) for s in self._servers) > 1:
            return 0.0
        backoff = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempt, 10))
        requested = min(error.retry_after_s or 0.0, MAX_WAIT_S)
        return float(max(backoff, requested) * random.uniform(0.5, 1.0))

    def _check_model(self, server: Server, document: dict[str, Any]) -> None:
        """Open the breaker of a server whose answer comes from another model.

        Raises:
            ServerUnavailable
        """
        fingerprint = document.get("model")
        if fingerprint == self._model.fingerprint:
            return
        server.failures = OPEN_AFTER
        server.open_until = time.monotonic() + OTHER_MODEL_S
        message = f"{server.endpoint.address} has another model now: {fingerprint}, not {self._model.fingerprint}"
        log.error("circuit breaker opened", server=server.endpoint.address, error=message)
        raise ServerUnavailable(message)

    def _read(self, read: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> T:
        try:
            return read(document)
        except ValueError as error:
            raise ModelError(
                f"{_names(self._servers)} sent an answer of another version",
                hint="install the same version of k2d on both sides",
            ) from error

    def _no_answer(self, error: ServerUnavailable) -> ModelError:
        return ModelError(
            f"no answer within {self._patience_s:g} s from {_names(self._servers)}: {error.message}",
            hint=error.hint or "the job is retried; K2D_SERVER_PATIENCE_S sets how long to wait for a server",
        )


async def connect(endpoints: Sequence[Endpoint], *, timeout_s: float, patience_s: float) -> RemoteTranscriber:
    """Connect to servers that have the same model, and return them as one Transcriber.

        transcriber = await connect([HttpEndpoint("http://127.0.0.1:8080")], timeout_s=300.0, patience_s=120.0)
        result = await transcriber.transcribe(Window(samples), DecodeOptions())

    Waits up to `patience_s` seconds until at least one server answers; the others are tried again later.

    Args:
        timeout_s: timeout of one window on a server.
        patience_s: how long a call is retried while no server answers.

    Raises:
        ModelError: no server answers, or two have different models.
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
                hint="start one (k2d serve teacher), or wait until it is ready; GET /readyz tells its state",
            )
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, MAX_WAIT_S / 4)
    if len({model.fingerprint for model in models.values()}) > 1:
        listed = "; ".join(f"{address}: {model.reference} ({model.fingerprint})" for address, model in models.items())
        raise ModelError(
            f"servers of one address have different models: {listed}", hint="use one address for each model"
        )
    model = next(iter(models.values()))
    return RemoteTranscriber(endpoints, model=model, timeout_s=timeout_s, patience_s=patience_s)


async def _describe(endpoint: Endpoint) -> ModelInfo:
    document = await endpoint.call(Head(act="describe"), np.zeros(1, np.int16), timeout_s=DESCRIBE_S)
    try:
        return wire.model_of(document)
    except ValueError as error:
        raise ModelError(
            f"{endpoint.address} is not an inference server of this version",
            hint="install the same version of k2d on both sides",
        ) from error


def _names(servers: Sequence[Server]) -> str:
    return ", ".join(server.endpoint.address for server in servers)
