"""Progress bars of several things at once, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from k2d.cli import show
from trainer.progress import OnProgress


@contextmanager
def bars(title: Callable[[str], str] = show.visible) -> Iterator[OnProgress]:
    """Show a bar for each name that progress is reported of; `title` makes its label of the name.

    with bars() as on_progress:
        on_progress("recordings encoded", 3, 10)
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=show.err) as progress:
        tasks: dict[str, int] = {}

        def update(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(title(name), total=total)
            progress.update(tasks[name], completed=done)  # type: ignore[arg-type]

        yield update
