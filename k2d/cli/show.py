"""What a person sees: tables, bars, one error message. Results go to standard output, all else to standard error."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from k2d.errors import K2DError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

VERDICT_STYLES = {"accepted": "green", "rejected": "red", "quarantined": "yellow"}


def dump(document: Any) -> None:
    """Print one JSON document to standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=2))


def fail(error: BaseException) -> int:
    """Print an error and its hint; returns the exit status (2: the request's fault, 1: anything else)."""
    if isinstance(error, K2DError):
        err.print(f"[bold red]error[/]: {escape(error.message)}", soft_wrap=True)
        if error.hint:
            err.print(f"[dim]hint[/]: {escape(error.hint)}", soft_wrap=True)
        return 2 if error.status < 500 else 1
    err.print(f"[bold red]error[/]: {type(error).__name__}: {escape(str(error))}", soft_wrap=True)
    err.print("[dim]hint[/]: this was not foreseen; please report it with the command you ran", soft_wrap=True)
    return 1


def visible(name: str, width: int = 48) -> str:
    """A file name made safe for one table cell: control characters shown, the middle of a long one left out."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return escape(text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-width // 2 :]}")


def ledger_table(book: dict[str, Any]) -> Table:
    """Where every second went: the rows add up to the last."""
    table = Table(
        title=f"Ledger of batch {escape(book['name'])} (policy: {escape(book['policy'])})", title_justify="left"
    )
    for column, justify in (("", "left"), ("seconds", "right"), ("share", "right"), ("count", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    seconds, chunks, recordings = book["seconds"], book["chunks"], book["recordings"]
    counts = {
        "accepted": f"chunks: {chunks['accepted']}",
        "rejected": f"chunks: {chunks['rejected']}",
        "quarantined": f"recordings: {recordings['quarantined']}",
        "silence": "",
    }
    for row, count in counts.items():
        share = seconds[row] / seconds["in"] if seconds["in"] else 0.0
        table.add_row(row, f"{seconds[row]:.1f}", f"{share:.0%}", count, style=VERDICT_STYLES.get(row, "dim"))
    table.add_section()
    table.add_row("in", f"{seconds['in']:.1f}", "100%", f"recordings: {recordings['total'] - recordings['pending']}")
    return table


def chunk_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Chunks with both transcripts, distances, verdict and reason; readable at 80 columns."""
    table = Table(title="Chunks: the teacher's label, and below it what the validator heard", title_justify="left")
    table.add_column("text", ratio=1, overflow="fold")
    table.add_column("MER", justify="right")
    table.add_column("PER", justify="right")
    table.add_column("comp.", justify="right")
    table.add_column("verdict", min_width=12)
    for row in rows:
        style = VERDICT_STYLES[row["verdict"]]
        place = f"{visible(row['recording'].rsplit('/', 1)[-1], 28)} {row['start_s']:.1f}–{row['end_s']:.1f} s"
        table.add_row(
            f"[bold]{place}[/]\n{_text(row['teacher_text'])}\n[dim]{_text(row['validator_text'])}[/]",
            *(f"{row[name]:.2f}" for name in ("mer", "per", "composite")),
            f"[{style}]{row['verdict']}[/]\n[dim]{row['reason'].replace('_', ' ')}[/]",
        )
        table.add_section()
    return table


def _text(text: str, width: int = 70) -> str:
    return escape(text if len(text) <= width else text[: width - 1] + "…") or "(nothing)"


def quarantine_table(rows: Iterable[dict[str, Any]]) -> Table:
    """Recordings that were set aside, and why."""
    table = Table(title="Quarantined recordings", title_justify="left")
    for column in ("recording", "reason", "detail"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(visible(row["recording"]), row["reason"], escape(row["detail"] or ""))
    return table


def curve_table(curves: dict[str, list[dict[str, Any]]], total_s: float) -> Table:
    """Share of seconds kept over α, a column for each metric."""
    table = Table(title=f"Share of {total_s:.1f} s of chunks kept, by α", title_justify="left")
    table.add_column("α", justify="right")
    for metric in curves:
        table.add_column(metric, justify="right")
    for points in zip(*curves.values(), strict=True):
        shares = (f"{point['seconds'] / total_s:.0%}" if total_s else "–" for point in points)
        table.add_row(f"{points[0]['alpha']:.2f}", *shares)
    return table


@contextmanager
def bars(total_s: float) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Progress bars on standard error: recordings, audio seconds, × real time. Yields what takes a status."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started = time.monotonic()
    with Progress(*columns, console=err) as progress:
        recordings = progress.add_task("recordings", total=None, note="")
        audio = progress.add_task("audio, s", total=round(total_s) or None, note="")
        before_s: float | None = None
        complained: str | None = None

        def show(status: dict[str, Any]) -> None:
            nonlocal before_s, complained
            if status["error"] and status["error"] != complained:
                complained = status["error"]
                progress.console.print(f"[yellow]a worker failed and will try again[/]: {escape(complained)}")
            before_s = status["seconds"] if before_s is None else before_s
            speed = (status["seconds"] - before_s) / max(0.001, time.monotonic() - started)
            progress.update(recordings, completed=status["recordings"], total=status["total"])
            progress.update(audio, completed=round(status["seconds"]), note=f"{speed:.1f} × real time")

        yield show
