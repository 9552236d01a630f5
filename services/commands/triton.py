"""`k2d triton`: runs a Triton Inference Server with the teacher's and the validator's models."""

from typing import Annotated

import typer

from k2d.cli.base import SERVING, app
from k2d.logs import setup
from k2d.settings import load
from services.tritonserver.foreground import GRPC_PORT, HTTP_PORT, METRICS_PORT, run


@app.command(rich_help_panel=SERVING)
def triton(
    models: Annotated[str, typer.Option(help="`teacher`, `validator`, or both, comma-separated.")] = "teacher",
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Where workers call.")] = GRPC_PORT,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Where health checks ask.")] = HTTP_PORT,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Where Prometheus asks.")] = METRICS_PORT,
) -> None:
    """Serve the models in K2D_TEACHER and K2D_VALIDATOR with a real Triton Inference Server.

    Its binary comes from a package and is installed once into an environment of its own, in the cache (455 MB). Workers
    find it with `K2D_TEACHER=grpc://127.0.0.1:8001/teacher`. A model whose process dies is loaded again. Ends with
    Ctrl-C or SIGTERM, after what is in flight.
    """
    settings = load()
    setup(settings)
    names = [name.strip() for name in models.split(",") if name.strip()]
    run(settings, models=names, grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port)
