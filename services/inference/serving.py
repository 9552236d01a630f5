"""Runs the FastAPI host of one role as a process."""

import os
import signal
import sys
import threading
from typing import Final

import uvicorn

from k2d.errors import K2DError
from k2d.settings import load
from services.inference.app import create_app
from services.inference.host import DRAIN_S
from services.web import ports
from services.web.connection import GuardedConnection

# longer than clients keep idle connections: they close first, so no request meets a closed one
KEEP_ALIVE_S: Final = 75


# the exit code of a server that would end in the same way if it was started again (EX_CONFIG of sysexits.h)
CANNOT_SERVE: Final = 78
SUPERVISED: Final = "--supervised"  # standard input is a pipe that closes when the supervisor dies


def serve(role: str) -> None:
    """Serve until SIGTERM or SIGINT; ends the process with 1 when the model cannot be served.

    serve("teacher")

    With `--supervised` on the command line it ends with CANNOT_SERVE instead, and also when standard input ends.
    """
    failed = False
    is_supervised = SUPERVISED in sys.argv[1:]
    if is_supervised:
        threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    try:
        settings = load()
        app = create_app(role, settings, on_failure=stop)
        # before the model is loaded, which begins when the app starts
        listener = ports.listen(settings.host, settings.port, change="take another port with --port or K2D_PORT")
    except K2DError as error:
        message = f"k2d {role}: {error.message}\n  hint: {error.hint}"
        if not is_supervised:
            sys.exit(message)
        print(message, file=sys.stderr, flush=True)
        sys.exit(CANNOT_SERVE)
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
    server.run(sockets=[listener])
    if failed:
        sys.exit(CANNOT_SERVE if is_supervised else 1)


def _end_with_supervisor() -> None:
    """End as on SIGTERM when the supervisor is gone: nobody would restart this server, or stop it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
