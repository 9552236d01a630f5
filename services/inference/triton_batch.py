"""One batch as Triton hands it over: each request is answered for itself, whatever its neighbours are."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from k2d.errors import BadRequest, DeadlineExceeded, K2DError
from k2d.inference import wire
from k2d.inference.triton_errors import RequestCancelled
from k2d.inference.wire import Head
from k2d.schema import DecodeOptions, Samples, Window
from k2d.whisper.engine import Engine

log = structlog.get_logger()

Answer = dict[str, Any] | K2DError


@dataclass(slots=True, eq=False)
class Request:
    """One request of a batch: its head as JSON, its samples, whether its client still waits, where its answer goes."""

    head: bytes
    samples: Samples
    cancelled: Callable[[], bool]
    reply: Callable[[Answer], None]  # called exactly once


@dataclass(slots=True, eq=False)
class _Work:
    """A request that makes sense and needs the engine."""

    request: Request
    head: Head
    window: Window


@dataclass(slots=True)
class Handler:
    """Answers batches from one engine. `observe` hears of each engine call: how many windows, how many seconds."""

    engine: Engine
    batch_size: int
    description: dict[str, Any]
    observe: Callable[[int, float], None] = field(default=lambda windows, seconds: None)

    def __call__(self, requests: Sequence[Request]) -> None:
        """Answer every request, with a document or the error that is its own, as soon as that is known.

        Requests with equal act and options meet in engine calls of at most `batch_size` windows. `head.timeout_s`
        counts from here: the time before, in Triton's queue, is bounded by the request's own Triton timeout.
        """
        started = time.monotonic()
        groups: dict[tuple[str, DecodeOptions], list[_Work]] = {}
        for request in requests:
            work = self._understood(request)
            if work is not None:
                groups.setdefault((work.head.act, work.head.options), []).append(work)
        for (act, options), members in groups.items():
            for first in range(0, len(members), self.batch_size):
                alive = list(self._alive(members[first : first + self.batch_size], started))
                self._call(alive, act=act, options=options)

    def _understood(self, request: Request) -> _Work | None:
        """The request's work; None when it is answered already, by its own fault or without the engine."""
        try:
            head = wire.load(request.head)
            if head.act == "describe":
                request.reply(self.description)
                return None
            work = _Work(request, head, wire.window(head, wire.check_length(request.samples)))
            if head.act == "score" and head.text is None:
                raise BadRequest("score needs a text", hint='give it as "text" in the head')
            self.engine.check(work.window, head.options, head.text if head.act == "score" else None)
        except K2DError as error:
            request.reply(error)
            return None
        return work

    @staticmethod
    def _alive(members: Sequence[_Work], started: float) -> Iterator[_Work]:
        """Those somebody still waits for; the others get their reason."""
        waited = time.monotonic() - started
        for work in members:
            if work.request.cancelled():
                work.request.reply(RequestCancelled("the client cancelled"))
            elif work.head.timeout_s is not None and waited > work.head.timeout_s:
                why = f"not begun within {work.head.timeout_s:g} s"
                work.request.reply(DeadlineExceeded(why, hint="give it more time, or the model more servers"))
            else:
                yield work

    def _call(self, members: Sequence[_Work], *, act: str, options: DecodeOptions) -> None:
        """One engine call; a request the engine refuses does not take its neighbours with it."""
        if not members:
            return
        windows = [work.window for work in members]
        started = time.monotonic()
        try:
            if act == "score":
                texts = [work.head.text or "" for work in members]
                answers = [wire.answer(body, self.engine.model) for body in self.engine.score(windows, texts, options)]
            else:
                answers = [wire.answer(body, self.engine.model) for body in self.engine.transcribe(windows, options)]
        except BadRequest as error:
            if len(members) == 1:
                members[0].request.reply(error)
            for work in members if len(members) > 1 else ():
                self._call([work], act=act, options=options)
        except K2DError as error:
            _fail(members, error)
        except Exception as error:  # this host's boundary: raised, it would fail all and send out its traceback
            log.exception("unexpected error in the engine", windows=len(members))
            _fail(members, K2DError(f"the server failed: {type(error).__name__}", hint="its log has the details"))
        else:
            self.observe(len(members), time.monotonic() - started)
            for work, answer in zip(members, answers, strict=True):
                work.request.reply(answer)


def _fail(members: Sequence[_Work], error: K2DError) -> None:
    for work in members:
        work.request.reply(error)
