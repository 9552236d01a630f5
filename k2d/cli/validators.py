"""`k2d validators`: which validator shares the teacher's errors least."""

from dataclasses import asdict
from itertools import combinations
from typing import Annotated

import typer
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import LOOKING, Json, app, settings
from k2d.corpus.independence import Observations, ValidatorComparison, compare_validators, phi
from k2d.errors import BadRequest
from k2d.wording import counted


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
    ] = 20_000,
    as_json: Json = False,
) -> None:
    """Compare the validators of the same labels, without references: which shares the teacher's errors least?

    *apart*: mean distance to the label. *consensus*: how well its disagreement agrees with that of the others.
    *follows*: how far it is confident where the teacher is, beyond what the others confirm. *independence* = consensus
    · (1 − follows). *alone*: share of chunks to which only it objects; *silent*: to which only it does not. *passes*:
    passes of a model for each chunk, its cost. Reads the store (K2D_STORE).
    """
    from k2d.corpus.agreement import gather
    from k2d.store import Lake

    observations, confidence = gather(Lake(settings().store), batch, most=most)
    if not observations:
        raise BadRequest("no label in these batches has been validated", hint="`k2d status` says how far a batch is")
    rows = compare_validators(observations, confidence)
    places = {row.name: place for place, row in enumerate(rows, 1)}
    observations.sort(key=lambda item: places[item.name])
    correlations = [(a.name, b.name, phi(a, b)) for a, b in combinations(observations, 2)]
    if as_json:
        show.dump({"chunks": len(confidence), "validators": [asdict(row) for row in rows], "phi": correlations})
        return
    show.out.print(f"validators over {counted(len(confidence), 'chunk')}")
    for name, place in places.items():
        show.out.print(f"  {place}  {name}", soft_wrap=True)
    show.out.print(_table(rows, chunks=len(confidence)))
    if correlations:
        listed = ", ".join(f"{places[a]} and {places[b]} {_number(value)}" for a, b, value in correlations)
        show.out.print(f"they object to the same labels (phi): {listed}", soft_wrap=True)
    show.out.print(_answer(rows, observations), soft_wrap=True)


def _table(rows: list[ValidatorComparison], *, chunks: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "chunks", "passes", "apart", "consensus", "follows", "independ.", "alone", "silent"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(rows, 1):
        table.add_row(
            str(place),
            f"{row.validated / max(1, chunks):.0%}",
            f"{row.passes:.1f}",
            f"{row.disagreement:.2f}",
            *map(_number, (row.consensus, row.follows, row.independence)),
            *map(_share, (row.alone, row.silent)),
        )
    return table


def _answer(rows: list[ValidatorComparison], observations: list[Observations]) -> str:
    compared = [row for row in rows if row.independence is not None]
    if len(observations) < 2:
        return "There is only one validator: name more in K2D_VALIDATOR, or give more batches with these recordings."
    if not compared:
        return "Too few chunks were validated by more than one validator to compare them."
    sure = f" (first in {compared[0].first:.0%} of draws)" if compared[0].first is not None else ""
    return f"Shares the teacher's errors least: {compared[0].name}{sure}."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
