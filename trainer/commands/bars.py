"""Progress of several things at once, a bar each, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from k2d.cli import show


@contextmanager
def bars(title: Callable[[str], str] = show.visible) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for each name that is told of: (name, done, of how many). `title` says what stands before it."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=show.err) as progress:
        tasks: dict[str, int] = {}

        def told(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(title(name), total=total)
            progress.update(tasks[name], completed=done)  # type: ignore[arg-type]

        yield told
