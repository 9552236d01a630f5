"""`k2d store`: the store itself, not through the API."""

import typer

from k2d.cli.base import app

store = typer.Typer(
    name="store",
    help="Check and mend the store (K2D_STORE) itself, not through the API.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(store)


@store.callback()
def options() -> None:
    """Options of all commands of the group."""
