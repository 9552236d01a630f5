"""`k2d up`: everything on one machine."""

import signal
from typing import Annotated

import typer

from k2d.cli import show
from k2d.cli.app import app, settings
from k2d.stack import Stack


@app.command()
def up(workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1) -> None:
    """Start Redis, the labeling API and workers; stop them all with Ctrl-C.

    Redis is embedded unless K2D_REDIS_URL names one. Batches that were interrupted are taken up again.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with Stack(settings(), workers=workers) as stack:
        show.out.print(f"API: {stack.url}   docs: {stack.url}/docs   store: {stack.settings.store}")
        if missing := stack.client().resume():
            show.out.print(f"taking up again: {', '.join(f'{batch} ({n} recordings)' for batch, n in missing.items())}")
        show.out.print("label something: k2d label FILES… --wait   (Ctrl-C here stops everything)")
        try:
            stack.watch()
        except KeyboardInterrupt:
            show.out.print("stopping: what is in hand is put back")
