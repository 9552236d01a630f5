"""`k2d validators`: which validator shares the teacher's errors least."""

from dataclasses import asdict
from itertools import combinations
from typing import Annotated

import typer
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import Json, app, settings
from k2d.corpus.independence import Observations, ValidatorComparison, compare_validators, phi
from k2d.errors import BadRequest


@app.command()
def validators(
    batch: Annotated[
        list[str],
        typer.Argument(metavar="BATCH...", help="Batches over the same recordings, by any validators."),
    ],
    most: Annotated[int, typer.Option(help="Chunks to look at; recordings are drawn at random.", min=100)] = 20_000,
    as_json: Json = False,
) -> None:
    """Compare the validators of the same labels without references: which shares the teacher's errors least?

    *consensus*: how well its disagreement agrees with that of the others. *follows*: how far it is sure where the
    teacher is, beyond what the others confirm. *independence* = consensus · (1 − follows). *alone*: only it objects;
    *silent*: all others object. *passes*: of a model, for each chunk: what it costs. Reads the store at K2D_STORE.
    """
    from k2d.corpus.agreement import gather
    from k2d.store import Lake

    observations, confidence = gather(Lake(settings().store), batch, most=most)
    if not observations:
        raise BadRequest("no label in these batches has been validated", hint="`k2d status` says how far a batch is")
    found = compare_validators(observations, confidence)
    places = {row.name: place for place, row in enumerate(found, 1)}
    observations.sort(key=lambda one: places[one.name])
    alike = [(one.name, other.name, phi(one, other)) for one, other in combinations(observations, 2)]
    if as_json:
        show.dump({"chunks": len(confidence), "validators": [asdict(row) for row in found], "phi": alike})
        return
    show.out.print(f"validators over {len(confidence)} chunks")
    for name, place in places.items():
        show.out.print(f"  {place}  {name}", soft_wrap=True)
    show.out.print(_table(found, chunks=len(confidence)))
    if alike:
        said = ", ".join(f"{places[one]} and {places[other]} {_number(value)}" for one, other, value in alike)
        show.out.print(f"they object to the same labels (phi): {said}", soft_wrap=True)
    show.out.print(_answer(found, observations), soft_wrap=True)


def _table(found: list[ValidatorComparison], *, chunks: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "chunks", "passes", "apart", "consensus", "follows", "independ.", "alone", "no_speech_prob"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(found, 1):
        table.add_row(
            str(place),
            f"{row.validated / max(1, chunks):.0%}",
            f"{row.passes:.1f}",
            f"{row.disagreement:.2f}",
            *map(_number, (row.consensus, row.follows, row.independence)),
            *map(_share, (row.alone, row.silent)),
        )
    return table


def _answer(found: list[ValidatorComparison], observations: list[Observations]) -> str:
    compared = [row for row in found if row.independence is not None]
    if len(observations) < 2:
        return (
            "One validator cannot be compared: name more in K2D_VALIDATOR, or give more batches over these recordings."
        )
    if not compared:
        return "Too few chunks were validated by more than one validator to compare them."
    sure = f" (first in {compared[0].first:.0%} of draws)" if compared[0].first is not None else ""
    return f"Shares the teacher's errors least: {compared[0].name}{sure}."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
