"""The `k2d` command group, the options that commands share, and the choice of who does the work."""

import os
from typing import Annotated

import typer

from k2d.client import Backend, Client
from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, Policy
from k2d.filtering.policy import load as load_policy
from k2d.labeling.request import check_name
from k2d.schema import Metric
from k2d.settings import PREFIX, Settings, load
from k2d.version import __version__

app = typer.Typer(
    name="k2d",
    help="Label, filter and distil code-switched speech. Settings are K2D_… environment variables: docs/settings.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Api = Annotated[str | None, typer.Option("--api", help="Use the labeling API at this URL.")]
EmbeddedOption = Annotated[
    bool, typer.Option("--embedded", help="Do the work in this process, even if an API answers.")
]
MetricOption = Annotated[Metric | None, typer.Option(help="Metric to compare with α.")]
AlphaOption = Annotated[float | None, typer.Option(help="Threshold α, 0…1: what is at most this is kept.")]
PolicyName = Annotated[
    str,
    typer.Option("--policy", metavar="NAME-OR-FILE", help="A preset (`k2d policy list`), or a policy file (YAML)."),
]
DEFAULT_POLICY = DEFAULT.name


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"k2d {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Shared by all commands."""


def settings() -> Settings:
    """This command's settings; quiet logs unless the operator asked for more."""
    from k2d.logs import setup

    quiet = {} if PREFIX + "LOG_LEVEL" in os.environ else {"log_level": "error"}
    found = load(**quiet)
    setup(found)
    return found


def backend(api: str | None = None, embedded: bool = False) -> Backend:
    """Choose who works: the API named with --api or K2D_API_URL, one at the default address, or this process."""
    found = settings()
    if not embedded:
        token = found.api_token.get_secret_value() if found.api_token else None
        client = Client(api or found.api_url, token=token)
        if api or "api_url" in found.model_fields_set or client.is_up():
            return client
    from k2d.client.embedded import Embedded  # loads audio, engines' front ends and Arrow: not needed to talk to an API

    return Embedded(found)


def policy(preset_or_path: str = DEFAULT_POLICY, metric: Metric | None = None, alpha: float | None = None) -> Policy:
    """The policy of a command line: a preset or a file, with another metric or α where one is given.

    Raises:
        BadRequest: no such preset or file, no policy in it, or α outside 0…1.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise BadRequest(f"α must lie between 0 and 1, not {alpha}", hint="0.4 is the paper's")
    return load_policy(preset_or_path).varied(metric=metric, alpha=alpha)


def name(value: str) -> str:
    """A checked name."""
    check_name(value)
    return value
