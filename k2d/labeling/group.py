"""Runs a group of recordings in one worker, many concurrently, so that batches form across recordings.

A recording that took a worker down, or failed unexpectedly, is tried again alone, so that it cannot fail the others;
on the third time it is quarantined.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from k2d.errors import K2DError
from k2d.labeling.recording import Labeler, quarantined
from k2d.schema import QuarantineReason, RecordingResult

log = structlog.get_logger()

MAX_ATTEMPTS = 3  # the first may be another recording's fault; the later two run alone


class Attempts(Protocol):
    """Counts starts of recordings that never ended. Kept in Redis for workers, in memory for embedded runs."""

    def unfinished(self, position: int) -> int:
        """How often the recording was started and neither finished nor was put back."""
        ...

    def begin(self, position: int) -> None: ...

    def end(self, position: int) -> None:
        """It finished, or was put back in good order: forget its starts."""
        ...

    def fail(self, position: int, message: str) -> None:
        """It raised an unexpected error; the start stays counted."""
        ...

    def last_error(self, position: int) -> str | None: ...


@dataclass(slots=True)
class AttemptsInMemory:
    """Attempts of an embedded run."""

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
    """Some recordings of a group raised unexpected errors; the others are done. The group should be run again."""

    code = "recordings_failed"
    hint = "the job is retried; a recording that keeps failing is quarantined with its last error"


@dataclass(slots=True)
class Group:
    """Runs `labeler` over positions of its batch.

    `on_result` gets every finished recording; `should_stop` is asked between recordings (shutdown, cancel):
    once it says yes no new recording is begun, and those in flight are finished by whoever awaits, or cancelled.
    """

    labeler: Labeler
    attempts: Attempts
    on_result: Callable[[RecordingResult], None]
    concurrency: int
    should_stop: Callable[[], bool] = lambda: False

    async def run(self, positions: Iterable[int]) -> None:
        """Finish every position that can be finished.

        Raises:
            RecordingsFailed: after all others are done, when some raised unexpected errors.
            K2DError: at once, when the fault is not a recording's (store, model, queue).
        """
        fresh: list[int] = []
        suspects: list[int] = []
        for position in positions:
            (suspects if self.attempts.unfinished(position) else fresh).append(position)
        failed = await self._run_all(fresh, self.concurrency)
        failed += await self._run_all(suspects, 1)
        if failed:
            raise RecordingsFailed(
                f"{len(failed)} recordings failed, first: {self.attempts.last_error(failed[0])}", positions=failed
            )

    async def _run_all(self, positions: list[int], concurrency: int) -> list[int]:
        """Run with `concurrency` lanes; returns the positions that failed unexpectedly."""
        waiting = iter(positions)
        failed: list[int] = []

        async def lane() -> None:
            for position in waiting:  # lanes share one iterator: each takes the next that is left
                if self.should_stop():
                    return
                if not await self._run_one(position):
                    failed.append(position)

        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(concurrency, len(positions))):
                    lanes.create_task(lane())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # the first fault stopped the other lanes; one is enough to report
        return failed

    async def _run_one(self, position: int) -> bool:
        if self.attempts.unfinished(position) >= MAX_ATTEMPTS:
            self._give_up(position)
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
        except Exception as error:  # the job runner's boundary: one recording must not take the others
            log.exception("recording failed", recording=self.labeler.batch.sources[position].name)
            self.attempts.fail(position, f"{type(error).__name__}: {error}")
            return False
        self.on_result(result)
        self.attempts.end(position)
        return True

    def _give_up(self, position: int) -> None:
        error = self.attempts.last_error(position)
        reason = QuarantineReason.FAILED if error else QuarantineReason.CRASHES_WORKER
        detail = f"given up after {MAX_ATTEMPTS} attempts: {error or 'the worker died while it had this recording'}"
        self.on_result(quarantined(position, self.labeler.batch.sources[position], reason, detail))
        self.attempts.end(position)
