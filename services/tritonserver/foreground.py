"""Runs Triton in the foreground, for `k2d triton` and the GPU image."""

import signal
from collections.abc import Sequence
from threading import current_thread, main_thread
from typing import Final

from k2d.settings import Settings
from services.tritonserver.server import TritonServer

# Triton's own defaults
HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002


def run(settings: Settings, *, models: Sequence[str], grpc_port: int, http_port: int, metrics_port: int) -> None:
    """Serve until Ctrl-C or SIGTERM; then let what is in flight end.

        run(load(), models=["teacher"], grpc_port=8001, http_port=8000, metrics_port=8002)

    Raises:
        K2DError: it does not start, or ends by itself.
    """
    if current_thread() is main_thread():
        for stop in (signal.SIGINT, signal.SIGTERM):  # a shell that starts us in the background has SIGINT ignored
            signal.signal(stop, _interrupt)
    server = TritonServer(settings, models=models, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port)
    try:
        with server:
            for model in server.models:
                print(f"{model}: K2D_{model.upper()}={server.address(model)}", flush=True)
            print(f"metrics: {server.metrics_url}   ready: {server.http_url}/v2/health/ready", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _interrupt(*_: object) -> None:
    for stop in (signal.SIGINT, signal.SIGTERM):  # a second signal must not interrupt the clean-up
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt
