"""`k2d validators`: which validator shares the teacher's errors least."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import LOOKING, Api, Json, app, client_of, settings
from k2d.documents import MOST_COMPARED
from k2d.wording import counted

if TYPE_CHECKING:
    from k2d.corpus.independence import ValidatorComparison, ValidatorsCompared


@app.command(rich_help_panel=LOOKING)
def validators(
    batch: Annotated[
        list[str],
        typer.Argument(
            metavar="BATCH...", help="Ids or names of batches with the same recordings, validated by any validators."
        ),
    ],
    most: Annotated[
        int, typer.Option(help="Largest number of chunks to compare; recordings are drawn at random.", min=100)
    ] = MOST_COMPARED,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Compare the validators of the same labels, without references: which shares the teacher's errors least?

    *apart*: mean distance to the label. *consensus*: how well its disagreement agrees with that of the others.
    *follows*: how far it is confident where the teacher is, beyond what the others confirm. *independence* = consensus
    · (1 − follows). *alone*: share of chunks to which only it objects; *silent*: to which only it does not. *passes*:
    passes of a model for each chunk, its cost. Reads the store (K2D_STORE), or asks an API (--api).
    """
    from k2d.corpus.agreement import compare
    from k2d.store import Lake

    if api is not None:
        compared = client_of(api).compare_validators(batch, most=most)
    else:
        compared = compare(Lake(settings().store), batch, most=most)
    if as_json:
        show.dump(asdict(compared))
        return
    places = {row.name: place for place, row in enumerate(compared.validators, 1)}
    show.out.print(f"validators over {counted(compared.chunks, 'chunk')}")
    for name, place in places.items():
        show.out.print(f"  {place}  {name}", soft_wrap=True)
    show.out.print(_table(compared))
    if compared.phi:
        listed = ", ".join(f"{places[a]} and {places[b]} {_number(value)}" for a, b, value in compared.phi)
        show.out.print(f"they object to the same labels (phi): {listed}", soft_wrap=True)
    show.out.print(_answer(compared.validators), soft_wrap=True)


def _table(compared: "ValidatorsCompared") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "chunks", "passes", "apart", "consensus", "follows", "independ.", "alone", "silent"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(compared.validators, 1):
        table.add_row(
            str(place),
            f"{row.validated / max(1, compared.chunks):.0%}",
            f"{row.passes:.1f}",
            f"{row.disagreement:.2f}",
            *map(_number, (row.consensus, row.follows, row.independence)),
            *map(_share, (row.alone, row.silent)),
        )
    return table


def _answer(rows: "list[ValidatorComparison]") -> str:
    compared = [row for row in rows if row.independence is not None]
    if len(rows) < 2:
        return "There is only one validator: name more in K2D_VALIDATOR, or give more batches with these recordings."
    if not compared:
        return "Too few chunks were validated by more than one validator to compare them."
    sure = f" (first in {compared[0].first:.0%} of draws)" if compared[0].first is not None else ""
    return f"Shares the teacher's errors least: {compared[0].name}{sure}."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
