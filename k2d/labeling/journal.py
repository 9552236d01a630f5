"""Remembers what models answered while a shard is written, so that a killed worker's successor asks only for the rest.

Work on a recording is a function of the models' answers, which are asked for one by one; given the same answers it
writes the same shard. So nothing but the answers is kept: a successor walks through the recording again, and where the
journal has an answer, no model runs.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import structlog

from k2d.errors import AudioError, StoreError, described
from k2d.inference import wire
from k2d.inference.transcriber import ScoringTranscriber
from k2d.keys import digest
from k2d.schema import DecodeOptions, ModelInfo, Samples, TextScore, Window, WindowResult
from k2d.store.journals import Journals

STORED_EVERY_S: Final = 60.0  # chosen: what a kill costs at most; work that is done sooner writes no journal

log = structlog.get_logger()
_Answer = TypeVar("_Answer")


class Journal:
    """The journal of one shard. It is removed when its block ends, and kept when the block is stopped or fails.

    async with Journal(lake.journals, label_key, recording_id=recording.id) as journal:
        teacher = JournaledTranscriber(teacher, journal)

    A store that cannot take it for now costs nothing but what a kill would lose meanwhile.
    """

    def __init__(self, journals: Journals, key: str, *, recording_id: str) -> None:
        self._journals = journals
        self._key = key
        self._recording_id = recording_id
        self._answers: dict[str, Any] = {}
        self._new: dict[str, Any] = {}
        self._stored_at = time.monotonic()
        self._is_stored = False

    async def __aenter__(self) -> Self:
        answers = await asyncio.to_thread(self._journals.read, self._key)
        if answers is not None:
            self._answers, self._is_stored = answers, True
            log.info("going on where an earlier worker stopped", shard=self._key, answers=len(self._answers))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, AudioError):  # an AudioError comes again: no use for answers
            await self._store()
        elif self._is_stored:
            try:
                await asyncio.to_thread(self._journals.remove, self._key)
            except StoreError as failure:  # what it was for is done; it goes after a week
                log.warning("a journal was not removed", shard=self._key, error=described(failure))

    def knows(self, question: str) -> bool:
        """Whether an earlier worker left the answer to a question."""
        return question in self._answers

    async def recall(
        self,
        question: str,
        ask: Callable[[], Awaitable[_Answer]],
        *,
        write: Callable[[_Answer], Any],
        read: Callable[[Any], _Answer],
    ) -> _Answer:
        """Return the answer to a question: the one in the journal, else what `ask` returns, which is added.

        Args:
            question: digest of everything that the answer depends on, beside the shard's key.
            write, read: an answer as JSON values, and back.
        """
        if (known := self._answers.get(question)) is not None:
            try:
                return read(known)
            except (ValueError, TypeError, KeyError, AttributeError):  # not as this version writes it
                log.warning("an answer in a journal is not used", shard=self._key, question=question)
        answer = await ask()
        self._new[question] = write(answer)
        if time.monotonic() - self._stored_at >= STORED_EVERY_S:
            await self._store()
        return answer

    async def _store(self) -> None:
        new, self._new = self._new, {}
        self._stored_at = time.monotonic()
        if not new:
            return
        try:
            await asyncio.to_thread(self._journals.append, self._key, new, recording_id=self._recording_id)
            self._is_stored = True
        except StoreError as error:
            self._new = new | self._new
            log.warning("a journal was not stored", shard=self._key, error=described(error))


class JournaledTranscriber:
    """A transcriber that asks another one only for what is not in the journal.

    `recalled`: whether the latest text was in the journal.
    """

    def __init__(self, transcriber: ScoringTranscriber, journal: Journal) -> None:
        self._transcriber = transcriber
        self._journal = journal
        self.recalled = False

    @property
    def model(self) -> ModelInfo:
        return self._transcriber.model

    async def transcribe(self, window: Window, options: DecodeOptions) -> WindowResult:
        """As the other one does, or as it did."""
        question = digest("transcribe", _hash(window.samples), window.prompt, options)
        self.recalled = self._journal.knows(question)
        return await self._journal.recall(
            question,
            lambda: self._transcriber.transcribe(window, options),
            write=asdict,
            read=wire.result,
        )

    async def score(self, window: Window, text: str, options: DecodeOptions) -> TextScore:
        """As the other one does, or as it did."""
        return await self._journal.recall(
            digest("score", _hash(window.samples), window.prompt, text, options),
            lambda: self._transcriber.score(window, text, options),
            write=asdict,
            read=wire.score,
        )

    async def close(self) -> None:
        """The other one is closed by who opened it."""


def _hash(samples: Samples) -> str:
    return hashlib.sha256(samples.tobytes()).hexdigest()
