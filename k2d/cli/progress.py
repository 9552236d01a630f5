"""What a long command shows while it runs, on a terminal only, and how it ends when it is stopped."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from k2d.cli import show
from k2d.client.backend import OnStatus, ignore
from k2d.corpus.time_left import time_left_s, work_done_s
from k2d.documents import PartialResult
from k2d.steps import OnSteps, ignore_steps
from k2d.wording import estimated_time

WIDE = 110  # columns of a terminal from which everything has room
SPEED_S = 600.0  # of which the time that is left is estimated; chosen: batches have long and short recordings


class _TimeLeft(ProgressColumn):
    """The time until the batch of a task's `status` is labeled and validated, while a recording is unfinished."""

    def render(self, task: Task) -> Text:
        status: PartialResult | None = task.fields["status"]
        if status is None or status.recordings == status.total:
            return Text("")
        left_s = time_left_s(
            audio_s=status.audio_s,
            labeled_s=status.seconds,
            validated_s=status.validated_s,
            times_real_time=task.speed,
        )
        return Text("" if left_s is None else f"{estimated_time(left_s)} left")


@contextmanager
def batch_bars() -> Iterator[OnStatus]:
    """Show the progress of a batch: recordings, and audio through labeling and validation with the time that is left.

    with batch_bars() as on_status:
        on_status(PartialResult(seconds=12.0, validated_s=4.0, audio_s=60.0, recordings=0, total=2))
    """
    if not show.err.is_terminal:
        yield ignore
        return
    is_wide = show.err.width >= WIDE
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<10}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20 if is_wide else 6),
        TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True)),
        _TimeLeft(table_column=Column(no_wrap=True)),
    ]
    if is_wide:
        columns += [TimeElapsedColumn(), TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True))]
    started = time.monotonic()
    with Progress(*columns, console=show.err, speed_estimate_period=SPEED_S) as progress:
        recordings = progress.add_task("recordings", total=None, amount="", note="", status=None)
        audio = progress.add_task("audio", total=None, amount="", note="", status=None)
        before_s: float | None = None
        shown_error: str | None = None

        def on_status(status: PartialResult) -> None:
            nonlocal before_s, shown_error
            if status.error and status.error != shown_error:
                shown_error = status.error
                progress.console.print(f"[yellow]a job failed and will be retried[/]: {escape(shown_error)}")
            done_s = work_done_s(status.seconds, status.validated_s)
            before_s = done_s if before_s is None else before_s
            speed = (done_s - before_s) / max(0.001, time.monotonic() - started)
            all_s = f" of {status.audio_s:.0f}" if status.audio_s else ""
            amount = f"{status.recordings}/{status.total}"
            progress.update(recordings, completed=status.recordings, total=status.total, amount=amount)
            progress.update(
                audio,
                completed=done_s,
                total=status.audio_s or None,
                amount=f"{status.seconds:.0f} s labeled, {status.validated_s:.0f} s validated{all_s}",
                note=f"{speed:.1f} × real time",
                status=status,
            )

        yield on_status


@contextmanager
def bar(doing: str) -> Iterator[OnSteps]:
    """Show a bar of steps, with the time that is left; one that only moves until the first step is reported.

    with bar("freezing") as on_steps:
        on_steps(3, 10)
    """
    if not show.err.is_terminal:
        yield ignore_steps
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
