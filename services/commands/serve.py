"""`k2d serve`: runs an inference server with the teacher's or the validator's model."""

import os
import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from k2d.cli.base import SERVING, app
from k2d.logs import setup
from k2d.settings import PREFIX, load
from services.inference.serving import SUPERVISED
from services.local.supervisor import supervise
from services.web import ports


class Role(StrEnum):
    """The model that a server has: the one in K2D_TEACHER, or the one in K2D_VALIDATOR."""

    TEACHER = "teacher"
    VALIDATOR = "validator"


PORTS: Final = {Role.TEACHER: 8001, Role.VALIDATOR: 8002}


@app.command(rich_help_panel=SERVING)
def serve(
    role: Annotated[
        Role, typer.Argument(help="`teacher` serves the model in K2D_TEACHER, `validator` the one in K2D_VALIDATOR.")
    ],
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; teacher 8001, validator 8002.", min=1, max=65535)] = None,
) -> None:
    """Serve a model over HTTP, to workers and to any OpenAI client.

    Workers find it with `K2D_TEACHER=http://host:8001`. It is ready (`/readyz`) once its model gets the
    golden clips right. A server that dies is started again, after waits that grow. Ends with Ctrl-C or SIGTERM, after
    what is in flight.
    """
    settings = load()
    setup(settings)
    address = host or settings.host
    number = port or (settings.port if "port" in settings.model_fields_set else PORTS[role])
    ports.check_free(address, number, change="take another port with --port or K2D_PORT")
    environment = os.environ | {PREFIX + "HOST": address, PREFIX + "PORT": str(number)}
    print(f"{role} at http://{address}:{number}", flush=True)
    code = supervise(role, [sys.executable, "-m", f"services.{role}", SUPERVISED], environment)
    raise typer.Exit(code)
