"""`k2d watch`: label what arrives in a folder, for as long as it runs."""

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from k2d import sources
from k2d.cli import show
from k2d.cli.base import LABELING, Api, EmbeddedOption, app, backend
from k2d.cli.progress import stoppable
from k2d.client.backend import Backend
from k2d.documents import BatchOptions
from k2d.errors import K2DError
from k2d.labeling.request import check_name
from k2d.wording import counted

EVERY_S: Final = 10.0
Mark = tuple[int, int]  # size and modification time


class Arrivals:
    """The files of folders that have stopped changing and were not taken yet.

    arrivals = Arrivals(["recordings/"])
    arrivals.look()  # [], and at the next look those that have not changed since
    """

    def __init__(self, folders: list[str]) -> None:
        self.folders = folders
        self._seen: dict[Path, Mark] = {}
        self._taken: dict[Path, Mark] = {}

    def look(self) -> list[Path]:
        """The files that are as they were at the look before, and are new or changed since they were taken.

        Raises:
            NotFound: a folder is gone.
            BadRequest: a folder cannot be listed.
        """
        before, self._seen = self._seen, {}
        for path in sources.expand(self.folders):
            try:
                status = os.stat(path)
            except OSError:  # it is gone again, or may not be read yet
                continue
            self._seen[path] = (status.st_size, status.st_mtime_ns)
        self._taken = {path: mark for path, mark in self._taken.items() if path in self._seen}
        return [
            path
            for path, mark in self._seen.items()
            if mark[0] and before.get(path) == mark and self._taken.get(path) != mark
        ]

    def take(self, paths: list[Path]) -> None:
        """Note that these were given to labeling."""
        self._taken.update({path: self._seen[path] for path in paths})


@app.command(rich_help_panel=LABELING)
def watch(
    folders: Annotated[list[str], typer.Argument(help="Folders in which recordings arrive.")],
    batch: Annotated[str, typer.Option(help="Name of the batch that they are added to.")],
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between looks.")] = EVERY_S,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Label what arrives in folders, for as long as it runs: as `k2d label --add`, again and again.

    A file is taken when its size and time have not changed between two looks. Ctrl-C ends it; the same command goes on.
    """
    check_name(batch)
    service = backend(api, embedded)
    show.err.print(f"[dim]watching {escape(', '.join(folders))}; labels go to {escape(service.where)}[/]")
    arrivals = Arrivals(folders)
    again = f"run the same command again to go on; `k2d status {batch}` shows what is done"
    with stoppable(f"stopped watching; nothing that is done is lost: {again}"):
        while True:
            try:
                label_arrivals(service, arrivals, batch)
            except K2DError as error:  # an API that restarts, a disk that is full for a while: the files stay
                show.fail(error)
            time.sleep(every)


def label_arrivals(service: Backend, arrivals: Arrivals, batch: str) -> int:
    """Add the files that have arrived to the batch; returns how many those were."""
    paths = arrivals.look()
    if paths:
        names = [str(path) for path in paths]
        status = service.label(names, BatchOptions(name=batch), add=True, below=arrivals.folders)
        arrivals.take(paths)
        show.out.print(
            f"{counted(len(paths), 'file')} taken; {counted(status.recordings, 'recording')} in {batch}", soft_wrap=True
        )
    return len(paths)
