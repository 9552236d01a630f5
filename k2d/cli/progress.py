"""What a long command shows while it runs, bars on a terminal and else lines, and how it ends when it is stopped."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from k2d.cli import show
from k2d.client.backend import OnStatus, ignore
from k2d.corpus.time_left import SPEED_S, time_left_s, work_done_s
from k2d.documents import PartialResult
from k2d.steps import OnSteps
from k2d.wording import audio_length, counted, estimated_time

WIDE = 110  # columns of a terminal from which everything has room
LINE_EVERY_S: Final = 30.0  # without a terminal; chosen: an hour's work is a page of a log
TENTH_EVERY_S: Final = 5.0  # at most, of lines that tell that another tenth is done


@contextmanager
def batch_bars(*, lines: bool = True) -> Iterator[OnStatus]:
    """Show the progress of a batch: recordings, and audio through labeling and validation with the time that is left.

        with batch_bars() as on_status:
            on_status(PartialResult(seconds=12.0, validated_s=4.0, audio_s=60.0, recordings=0, total=2))

    Without a terminal it is a line now and then, or nothing without `lines`.
    """
    if show.err.is_terminal:
        with _bars() as on_status:
            yield on_status
    else:
        yield _batch_lines() if lines else ignore


@contextmanager
def _bars() -> Iterator[OnStatus]:
    is_wide = show.err.width >= WIDE
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<10}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20 if is_wide else 6),
        TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
    ]
    if is_wide:
        columns += [TimeElapsedColumn(), TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True))]
    news = _News()
    with Progress(*columns, console=show.err) as progress:
        recordings = progress.add_task("recordings", total=None, amount="", left="", note="")
        audio = progress.add_task("audio", total=None, amount="", left="", note="")

        def on_status(status: PartialResult) -> None:
            for sentence in news.of(status):
                progress.console.print(sentence, soft_wrap=True)
            all_s = f" of {status.audio_s:.0f}" if status.audio_s else ""
            amount = f"{status.recordings}/{status.total}"
            progress.update(recordings, completed=status.recordings, total=status.total, amount=amount)
            progress.update(
                audio,
                completed=work_done_s(status.seconds, status.validated_s),
                total=status.audio_s or None,
                amount=f"{status.seconds:.0f} s labeled, {status.validated_s:.0f} s validated{all_s}",
                left=_time_left(status),
                note=_speed(status),
            )

        yield on_status


def _batch_lines() -> OnStatus:
    """Prints how far a batch is, now and then."""
    news, pace = _News(), _Pace()

    def on_status(status: PartialResult) -> None:
        for sentence in news.of(status):
            show.err.print(sentence, soft_wrap=True)
        done_s = work_done_s(status.seconds, status.validated_s)
        if not pace.is_due(done_s / status.audio_s if status.audio_s else 0.0):
            return
        all_s = f" of {audio_length(status.audio_s)}" if status.audio_s else ""
        audio = f"{audio_length(done_s)}{all_s} labeled and validated"
        parts = (f"{status.recordings:,} of {counted(status.total, 'recording')}", audio)
        line = ", ".join(part for part in (*parts, _speed(status), _time_left(status)) if part)
        show.err.print(line, soft_wrap=True)

    return on_status


class _News:
    """What is said of a batch once: what of it was done before, and errors of its jobs."""

    def __init__(self) -> None:
        self._before: tuple[int, int, float] | None = None  # total, finished before, their audio
        self._error: str | None = None

    def of(self, status: PartialResult) -> Iterator[str]:
        before = (status.total, status.recordings_before, status.before_s)
        if before != self._before and status.recordings_before:
            amount = f"{status.recordings_before:,} of {counted(status.total, 'recording')}"
            is_all = status.recordings_before == status.total
            doing = "nothing to label" if is_all else "going on"
            yield f"{doing}: {amount}, {audio_length(status.before_s)} of audio, were done already"
        self._before = before
        if status.error and status.error != self._error:
            self._error = status.error
            yield f"[yellow]a job failed and will be retried[/]: {escape(status.error)}"


class _Pace:
    """When a line of progress is due: each LINE_EVERY_S, and when another tenth is done."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._tenths = 0

    def is_due(self, share: float) -> bool:
        """Whether a line is due now, with this share done; it counts as printed then."""
        elapsed_s, tenths = time.monotonic() - self._at, int(10 * share)
        if elapsed_s < (TENTH_EVERY_S if tenths > self._tenths else LINE_EVERY_S):
            return False
        self._at, self._tenths = time.monotonic(), tenths
        return True


def _speed(status: PartialResult) -> str:
    return f"{status.times_real_time:.1f} × real time" if status.times_real_time else ""


def _time_left(status: PartialResult) -> str:
    """The time until a batch is labeled and validated, while a recording of it is unfinished."""
    left_s = time_left_s(
        audio_s=status.audio_s,
        labeled_s=status.seconds,
        validated_s=status.validated_s,
        times_real_time=status.times_real_time,
    )
    return "" if left_s is None or status.recordings == status.total else f"{estimated_time(left_s)} left"


@contextmanager
def bar(doing: str) -> Iterator[OnSteps]:
    """Show a bar of steps, with the time that is left; one that only moves until the first step is reported. Without a
    terminal it is a line now and then.

    with bar("freezing") as on_steps:
        on_steps(3, 10)
    """
    if not show.err.is_terminal:
        pace = _Pace()

        def on_line(done: int, total: int) -> None:
            if pace.is_due(done / total if total else 0.0):
                show.err.print(f"{doing}: {done:,} of {total:,}", soft_wrap=True)

        yield on_line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=show.err, transient=True, speed_estimate_period=SPEED_S) as progress:
        task = progress.add_task(doing, total=None)

        def on_steps(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield on_steps


@contextmanager
def stoppable(advice: str) -> Iterator[None]:
    """End with a sentence and status 128 + signal when SIGINT or SIGTERM comes."""
    received = signal.SIGINT

    def terminate(*_: object) -> None:
        nonlocal received
        if received == signal.SIGTERM:
            return  # timeout(1) sends it twice; a second SIGINT would break off the clean end of the first
        received = signal.SIGTERM
        signal.raise_signal(signal.SIGINT)  # which asyncio turns into a cancellation

    # a shell that starts us in the background has SIGINT ignored
    handlers: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except KeyboardInterrupt:
        show.err.print(advice, soft_wrap=True)
        raise typer.Exit(128 + received) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
