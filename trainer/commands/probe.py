"""`k2d probe`: train a second hypothesis from the labels that are already there."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import Json, app, settings
from k2d.store import Lake
from trainer.commands.bars import bars
from trainer.need import need

if TYPE_CHECKING:
    from trainer.probe.crossfit import Trained


@app.command("probe")
def probe(
    batch: Annotated[list[str], typer.Argument(metavar="BATCH...", help="Batches whose labels are learned from.")],
    folds: Annotated[int, typer.Option(help="Networks; each does without one share of the recordings.", min=2)] = 5,
    epochs: Annotated[int, typer.Option(help="How often each network hears its labels.", min=1)] = 20,
    hours: Annotated[float, typer.Option(help="Most hours of speech to learn from; a random part of more.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Train a CTC probe on the teacher's encoder from labels in the store: a validator nobody has to find.

    Prints what each fold's network makes of recordings it never heard, and the name to use in a validators:
    `--validator perturbed+probe:DIGEST`. See docs/probe.md.
    """
    need("torch")
    from trainer.probe.crossfit import Recipe, cross_fit

    found = settings()
    recipe = Recipe(folds=folds, epochs=epochs, seed=seed, hours=hours)
    with bars() as told:
        trained = cross_fit(Lake(found.store), batch, recipe, settings=found, told=told)
    if as_json:
        show.dump(trained.document())
        return
    show.out.print(_table(trained))
    show.out.print(_summary(trained), soft_wrap=True)


def _table(trained: "Trained") -> Table:
    table = Table(title="Each fold's network on what it never heard", title_justify="left")
    table.add_column("fold")
    for column in ("chunks", "seconds", "CTC loss a phoneme", "median distance to the label"):
        table.add_column(column, justify="right")
    for number, row in [*((str(place), fold) for place, fold in enumerate(trained.folds)), ("all", trained.all)]:
        table.add_row(number, str(row.chunks), f"{row.seconds:.0f}", f"{row.loss:.3f}", f"{row.distance:.3f}")
    return table


def _summary(trained: "Trained") -> str:
    passed = ", ".join(f"{count} {why}" for why, count in sorted(trained.passed.items())) or "none"
    return (
        f"{trained.recordings} recordings, {trained.units} units; passed over: {passed}\n"
        f"encoded in {trained.encode_s:.0f} s ({trained.encoded_bytes / 1e6:.0f} MB), "
        f"trained in {trained.train_s:.0f} s on {trained.device}\n"
        f"in a validators it is [bold]{trained.name}[/]: --validator perturbed+{trained.name}"
    )
