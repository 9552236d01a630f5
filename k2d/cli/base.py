"""The `k2d` command group, the options that commands share, and the choice between an API and this process."""

import os
from typing import Annotated, Final

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.client import Backend, Client
from k2d.errors import BadRequest, Conflict
from k2d.filtering.policy import DEFAULT, Policy
from k2d.filtering.policy import load as load_policy
from k2d.labeling.request import check_name
from k2d.schema import Metric
from k2d.settings import PREFIX, Settings, load
from k2d.version import __version__
from k2d.wording import listed

app = typer.Typer(
    name="k2d",
    help="Label, filter and distil code-switched speech. Settings are K2D_… environment variables: docs/settings.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# the groups of `k2d --help`, in their order there
LABELING: Final = "Label recordings"
LOOKING: Final = "Look at labels"
REVIEWING: Final = "Review labels, choose a policy"
DATASETS: Final = "Make datasets"
STUDENTS: Final = "Train and measure students"
SERVING: Final = "Run services and models"
STORING: Final = "Look after the store"
GROUPS: Final = (LABELING, LOOKING, REVIEWING, DATASETS, STUDENTS, SERVING, STORING)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Api = Annotated[str | None, typer.Option("--api", help="Use the labeling API at this URL.")]
EmbeddedOption = Annotated[
    bool, typer.Option("--embedded", help="Do the work in this process, even if an API is running.")
]
AnywayOption = Annotated[
    bool, typer.Option("--anyway", help="Without an API: also while another process is at work on the batch.")
]
# a choice of many values is listed in its help: in place of its metavar it would be broken anywhere at 80 columns
MetricOption = Annotated[
    Metric | None, typer.Option(metavar="METRIC", help=f"Metric that is compared with α: {listed(Metric)}.")
]
AlphaOption = Annotated[float | None, typer.Option(help="Threshold α, 0…1: speech with a metric up to α is kept.")]
PolicyName = Annotated[
    str,
    typer.Option("--policy", metavar="NAME-OR-FILE", help="A preset (`k2d policy list`), or a policy file (YAML)."),
]
DEFAULT_POLICY: Final = DEFAULT.name


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
    """Options of all commands."""


def settings() -> Settings:
    """The settings; sets up logging, of errors only unless K2D_LOG_LEVEL is set."""
    from k2d.logs import setup

    quiet = {} if PREFIX + "LOG_LEVEL" in os.environ else {"log_level": "error"}
    loaded = load(**quiet)
    setup(loaded)
    return loaded


def backend(api: str | None = None, embedded: bool = False, *, anyway: bool = False, resumes: bool = False) -> Backend:
    """The API of --api or K2D_API_URL, or one that is running at the default address, or else this process.

    A `k2d up` that runs for the store at another address is named.

    Args:
        anyway: this process works on a batch even while another one does.
        resumes: it works on all batches.

    Raises:
        Conflict: without an API, all batches would be resumed beside a `k2d up`, in whose queue they may wait.
    """
    current = settings()
    if not embedded:
        client = _client(api or current.api_url, current)
        if api or "api_url" in current.model_fields_set:
            return client
        if client.is_up():
            if "store" in current.model_fields_set:  # whoever set it may not know that an API runs
                notice = f"asks the API at {current.api_url}, not the store {current.store} (--embedded asks that)"
                show.err.print(f"[dim]{escape(notice)}[/]", soft_wrap=True)
            return client
    from k2d.client.embedded import Embedded  # loads audio, engines and Arrow, which a client of an API does not need
    from k2d.store.up import running_up

    if (up := running_up(current)) is not None:
        if resumes and not anyway:
            raise Conflict(
                f"{up}, and batches may wait in its queue",
                hint=f"`--api {up.url}` resumes there what is missing; `--anyway` does it here, and may do work twice",
            )
        if not embedded:
            show.err.print(f"note: {up}: `--api {up.url}` asks it", markup=False, soft_wrap=True)
    return Embedded(current, anyway=anyway)


def client_of(api: str) -> Client:
    """The client of the API that --api names, with the key of the settings."""
    return _client(api, settings())


def _client(url: str, current: Settings) -> Client:
    return Client(url, token=current.api_token.get_secret_value() if current.api_token else None)


def at_api(api: str | None) -> str:
    """The option that makes another command use the same API."""
    return f" --api {api}" if api else ""


def policy(preset_or_path: str = DEFAULT_POLICY, metric: Metric | None = None, alpha: float | None = None) -> Policy:
    """The policy of a command's options: a preset or a file, with the given metric and α.

    Raises:
        BadRequest: there is no such preset or file, the file is not a policy, or α is outside 0…1.
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise BadRequest(f"α must lie between 0 and 1, not {alpha}", hint="the paper's is 0.4")
    return load_policy(preset_or_path).varied(metric=metric, alpha=alpha)


def name(value: str) -> str:
    """Return a name if it is valid."""
    check_name(value)
    return value
