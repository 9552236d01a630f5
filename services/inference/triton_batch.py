"""Answers one batch of Triton requests: each gets its own answer or error, whatever the others are."""

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

TritonAnswer = dict[str, Any] | K2DError


@dataclass(slots=True, eq=False)
class TritonRequest:
    """One request of a batch: its head as JSON, its samples, whether its client still waits, where its answer goes."""

    head: bytes
    samples: Samples
    cancelled: Callable[[], bool]
    reply: Callable[[TritonAnswer], None]  # called exactly once


@dataclass(slots=True, eq=False)
class _ValidRequest:
    """A request that was checked and needs the engine."""

    request: TritonRequest
    head: Head
    window: Window


@dataclass(slots=True)
class BatchHandler:
    """Answers batches with one engine; after each engine call `observe` gets its number of windows and seconds.

    handler = BatchHandler(engine, 16, wire.describe(engine.model, batch_size=16, golden=""))
    handler([TritonRequest(head, samples, cancelled=lambda: False, reply=print)])
    """

    engine: Engine
    batch_size: int
    description: dict[str, Any]
    observe: Callable[[int, float], None] = field(default=lambda windows, seconds: None)

    def __call__(self, requests: Sequence[TritonRequest]) -> None:
        """Answer every request, with a document or the error that is its own, as soon as that is known.

        Requests with equal act and options share engine calls of at most `batch_size` windows. `head.timeout_s`
        counts from here: the time before, in Triton's queue, is bounded by the request's own Triton timeout.
        """
        started = time.monotonic()
        groups: dict[tuple[str, DecodeOptions], list[_ValidRequest]] = {}
        for request in requests:
            valid = self._validate(request)
            if valid is not None:
                groups.setdefault((valid.head.act, valid.head.options), []).append(valid)
        for (act, options), members in groups.items():
            for first in range(0, len(members), self.batch_size):
                wanted = list(self._still_wanted(members[first : first + self.batch_size], started))
                self._call(wanted, act=act, options=options)

    def _validate(self, request: TritonRequest) -> _ValidRequest | None:
        """The request with its head and window; None when it was answered here: it is wrong, or needs no engine."""
        try:
            head = wire.load(request.head)
            if head.act == "describe":
                request.reply(self.description)
                return None
            valid = _ValidRequest(request, head, wire.window(head, wire.check_length(request.samples)))
            if head.act == "score" and head.text is None:
                raise BadRequest("score needs a text", hint='give it as "text" in the head')
            self.engine.check(valid.window, head.options, head.text if head.act == "score" else None)
        except K2DError as error:
            request.reply(error)
            return None
        return valid

    @staticmethod
    def _still_wanted(members: Sequence[_ValidRequest], started: float) -> Iterator[_ValidRequest]:
        """Those whose client still waits; the others are answered with the error."""
        waited = time.monotonic() - started
        for member in members:
            if member.request.cancelled():
                member.request.reply(RequestCancelled("the client cancelled"))
            elif member.head.timeout_s is not None and waited > member.head.timeout_s:
                why = f"not begun within {member.head.timeout_s:g} s"
                member.request.reply(DeadlineExceeded(why, hint="give it more time, or the model more servers"))
            else:
                yield member

    def _call(self, members: Sequence[_ValidRequest], *, act: str, options: DecodeOptions) -> None:
        """One engine call; a request the engine refuses does not take its neighbours with it."""
        if not members:
            return
        windows = [member.window for member in members]
        started = time.monotonic()
        try:
            if act == "score":
                texts = [member.head.text or "" for member in members]
                answers = [wire.answer(body, self.engine.model) for body in self.engine.score(windows, texts, options)]
            else:
                answers = [wire.answer(body, self.engine.model) for body in self.engine.transcribe(windows, options)]
        except BadRequest as error:
            if len(members) == 1:
                members[0].request.reply(error)
            for member in members if len(members) > 1 else ():
                self._call([member], act=act, options=options)
        except K2DError as error:
            _fail(members, error)
        except Exception as error:  # this host's boundary: raised, it would fail all and send out its traceback
            log.exception("unexpected error in the engine", windows=len(members))
            _fail(members, K2DError(f"the server failed: {type(error).__name__}", hint="its log has the details"))
        else:
            self.observe(len(members), time.monotonic() - started)
            for member, answer in zip(members, answers, strict=True):
                member.request.reply(answer)


def _fail(members: Sequence[_ValidRequest], error: K2DError) -> None:
    for member in members:
        member.request.reply(error)
