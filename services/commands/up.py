"""`k2d up`: runs Redis, the labeling API and workers on this machine."""

import os
import signal
from typing import Annotated

import typer

from k2d.cli import show
from k2d.cli.base import SERVING, app, settings
from k2d.client.backend import ResumeIncomplete
from k2d.logs import setup
from k2d.settings import PREFIX, Settings
from k2d.wording import counted
from services.local.stack import Stack


@app.command(rich_help_panel=SERVING)
def up(
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the API; without it, K2D_PORT.")] = None,
) -> None:
    """Start Redis, the labeling API and workers; stop them all with Ctrl-C.

    Redis is embedded unless K2D_REDIS_URL names one. Interrupted batches are resumed. Whatever dies is started again;
    what an earlier `k2d up` of this store left behind when it was killed is stopped first, with its unfinished work put
    back.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell that starts us in the background has SIGINT ignored
        signal.signal(stop, _interrupt)
    try:
        with Stack(_settings(port), workers=workers) as stack:
            where = f"console: {stack.url}/   API: {stack.url}/docs   store: {stack.settings.store}"
            show.out.print(where, soft_wrap=True)
            try:
                missing = stack.client().resume()
            except ResumeIncomplete as error:
                if error.failed:
                    show.fail(error)
                for note in error.notes():
                    show.out.print(f"note: {note}", markup=False, soft_wrap=True)
                missing = error.resumed
            if missing:
                left = ", ".join(f"{batch} ({counted(count, 'recording')})" for batch, count in missing.items())
                show.out.print(f"resuming: {left}")
            show.out.print(f"to label recordings: {_command(stack)}   (Ctrl-C here stops everything)")
            stack.watch()
    except KeyboardInterrupt:
        show.out.print("stopped; unfinished work was put back into the queue")


def _command(stack: Stack) -> str:
    """The command that labels with this API; it is found without --api at the address in the settings only."""
    return "k2d label FILES… --wait" + ("" if stack.settings.api_url == stack.url else f" --api {stack.url}")


def _settings(port: int | None) -> Settings:
    """The settings; servers also log warnings, such as wrong keys."""
    loaded = settings()
    if port is not None:
        loaded = loaded.model_copy(update={"port": port})
    if PREFIX + "LOG_LEVEL" not in os.environ:
        loaded = loaded.model_copy(update={"log_level": "warning"})
    setup(loaded)  # what is started again, and what is waited for, are warnings
    return loaded


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
