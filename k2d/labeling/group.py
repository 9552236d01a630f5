"""Runs a group of recordings in one worker, many concurrently, so that the engine can batch across recordings.

A recording during which the worker died, or that raised an unexpected error, is tried again alone, so that it cannot
affect others; after three failed attempts it is quarantined.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from k2d.errors import K2DError
from k2d.labeling.recording import Labeler, quarantined
from k2d.schema import QuarantineReason, RecordingResult
from k2d.wording import counted

log = structlog.get_logger()

MAX_ATTEMPTS: Final = 3  # the first failure may be another recording's fault; in the later two attempts it runs alone


class Attempts(Protocol):
    """Counts the attempts at each recording that did not finish. Kept in Redis for workers, else in memory."""

    def unfinished(self, position: int) -> int:
        """The number of attempts that did not finish."""
        ...

    def begin(self, position: int) -> None:
        """Count an attempt."""
        ...

    def end(self, position: int) -> None:
        """Forget the attempts: the recording is finished, or was stopped through no fault of its own."""
        ...

    def fail(self, position: int, message: str) -> None:
        """Store an unexpected error; the attempt stays counted."""
        ...

    def last_error(self, position: int) -> str | None:
        """The message of the last unexpected error."""
        ...


@dataclass(slots=True)
class AttemptsInMemory:
    """Attempts in memory, for an embedded run."""

    starts: dict[int, int] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    def unfinished(self, position: int) -> int:
        return self.starts.get(position, 0)

    def begin(self, position: int) -> None:
        self.starts[position] = self.starts.get(position, 0) + 1

    def end(self, position: int) -> None:
        self.starts.pop(position, None)

    def fail(self, position: int, message: str) -> None:
        self.errors[position] = message

    def last_error(self, position: int) -> str | None:
        return self.errors.get(position)


class RecordingsFailed(K2DError):
    """Some recordings of a group raised unexpected errors; the others are done. Run the group again."""

    code = "recordings_failed"
    hint = "the job is retried; a recording that keeps failing is quarantined with its last error"


@dataclass(slots=True)
class RecordingGroup:
    """Runs a labeler over recordings of its batch, `concurrency` at a time.

        group = RecordingGroup(
            labeler=labeler, attempts=AttemptsInMemory(), on_result=print, concurrency=settings.concurrency
        )
        await group.run(range(len(batch.sources)))

    `on_result` is called with the result of each finished recording. `should_stop` is called before each recording
    (for shutdown and cancellation): once it returns True no other one is started; those that run are finished.
    """

    labeler: Labeler
    attempts: Attempts
    on_result: Callable[[RecordingResult], None]
    concurrency: int
    should_stop: Callable[[], bool] = lambda: False

    async def run(self, positions: Iterable[int]) -> None:
        """Process the recordings at these positions of the batch.

        Raises:
            RecordingsFailed: some raised unexpected errors; raised after all others are done.
            K2DError: the cause is not a recording (store, model, queue); raised at once.
        """
        fresh: list[int] = []
        retried: list[int] = []
        for position in positions:
            (retried if self.attempts.unfinished(position) else fresh).append(position)
        failed = await self._run_all(fresh, self.concurrency)
        failed += await self._run_all(retried, 1)
        if failed:
            raise RecordingsFailed(
                f"{counted(len(failed), 'recording')} failed, first: {self.attempts.last_error(failed[0])}",
                positions=failed,
            )

    async def _run_all(self, positions: list[int], concurrency: int) -> list[int]:
        """Run `concurrency` tasks; returns the positions that raised unexpected errors."""
        waiting = iter(positions)
        failed: list[int] = []

        async def run_next() -> None:
            for position in waiting:  # the tasks share one iterator: each takes the next position
                if self.should_stop():
                    return
                if not await self._run_one(position):
                    failed.append(position)

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(concurrency, len(positions))):
                    tasks.create_task(run_next())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # the first error stopped the other tasks
        return failed

    async def _run_one(self, position: int) -> bool:
        """Process a recording; returns False if it raised an unexpected error."""
        if self.attempts.unfinished(position) >= MAX_ATTEMPTS:
            await self._quarantine(position)
            return True
        self.attempts.begin(position)
        try:
            result = await self.labeler.run(position)
        except asyncio.CancelledError:
            self.attempts.end(position)
            raise
        except K2DError:
            self.attempts.end(position)
            raise
        except Exception as error:  # boundary: an unexpected error of one recording must not stop the others
            name = self.labeler.batch.sources[position].name
            log.exception("recording failed", recording=name)
            self.attempts.fail(position, f"{name}: {type(error).__name__}: {error}")
            return False
        self.on_result(result)
        self.attempts.end(position)
        return True

    async def _quarantine(self, position: int) -> None:
        source = self.labeler.batch.sources[position]
        error = self.attempts.last_error(position)
        reason = QuarantineReason.FAILED if error else QuarantineReason.CRASHES_WORKER
        why = error or "the worker died while it processed this recording"
        again = f"`k2d retry {self.labeler.batch.name}` tries it again"
        detail = f"given up after {MAX_ATTEMPTS} attempts: {why} ({again})"
        duration_s = await asyncio.to_thread(self.labeler.known_duration_s, source)
        self.on_result(quarantined(position, source, reason, detail, duration_s=duration_s))
        self.attempts.end(position)
