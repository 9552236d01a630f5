"""`k2d serve`: runs an inference server with the teacher's or the validator's model."""

import os
import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from k2d.cli.base import app
from k2d.settings import PREFIX, load


class Role(StrEnum):
    """The model that a server has: the one in K2D_TEACHER, or the one in K2D_VALIDATOR."""

    TEACHER = "teacher"
    VALIDATOR = "validator"


PORTS: Final = {Role.TEACHER: 8001, Role.VALIDATOR: 8002}


@app.command()
def serve(
    role: Annotated[
        Role, typer.Argument(help="`teacher` serves the model in K2D_TEACHER, `validator` the one in K2D_VALIDATOR.")
    ],
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; teacher 8001, validator 8002.", min=1, max=65535)] = None,
) -> None:
    """Serve a model over HTTP, to workers and to any OpenAI client.

    Workers find it with `K2D_TEACHER=http://host:8001`. It is ready (`/readyz`) once its model gets the
    golden clips right. Ends with Ctrl-C or SIGTERM, after what is in flight.
    """
    settings = load()
    environment = dict(os.environ)
    environment[PREFIX + "HOST"] = host or settings.host
    if port is not None or "port" not in settings.model_fields_set:
        environment[PREFIX + "PORT"] = str(port or PORTS[role])
    print(
        f"{role} at http://{environment[PREFIX + 'HOST']}:{environment.get(PREFIX + 'PORT', settings.port)}", flush=True
    )
    os.execve(sys.executable, [sys.executable, "-m", f"services.{role}"], environment)
