"""Runs the FastAPI host of one role as a process."""

import signal
import sys
from typing import Final

import uvicorn

from k2d.errors import K2DError
from k2d.settings import load
from services.inference.app import create_app
from services.inference.host import DRAIN_S
from services.web.connection import GuardedConnection

# longer than clients keep idle connections: they close first, so no request meets a closed one
KEEP_ALIVE_S: Final = 75


def serve(role: str) -> None:
    """Serve until SIGTERM or SIGINT; ends the process with 1 when the model cannot be served.

    serve("teacher")
    """
    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    try:
        settings = load()
        app = create_app(role, settings, on_failure=stop)
    except K2DError as error:
        sys.exit(f"k2d {role}: {error.message}\n  hint: {error.hint}")
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        http=GuardedConnection,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)
    # uvicorn drains on SIGTERM and then sends it to itself again; a stop that was asked for ends with 0
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run()
    if failed:
        sys.exit(1)
