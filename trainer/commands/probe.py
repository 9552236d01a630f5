"""`k2d probe`: train a validator from labels that are in the store."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import STUDENTS, Json, app, settings
from k2d.store import Lake
from k2d.wording import counted
from trainer.commands.bars import bars
from trainer.need import need

if TYPE_CHECKING:
    from trainer.probe.crossfit import StoredProbe


@app.command("probe", rich_help_panel=STUDENTS)
def train_probe(
    batch: Annotated[list[str], typer.Argument(metavar="BATCH...", help="Batches whose labels it learns from.")],
    folds: Annotated[int, typer.Option(help="Networks; a share of the recordings is held out from each.", min=2)] = 5,
    epochs: Annotated[int, typer.Option(help="How often each network sees its labels.", min=1)] = 20,
    hours: Annotated[float, typer.Option(help="Hours of speech to learn from, at most; a random part of more.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and dropout.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Train a CTC probe on the teacher's encoder from labels in the store: a validator without a second model.

    Prints how each fold's network does on recordings that were held out from it, and the validator's name:
    `--validator perturbed+probe:DIGEST`. See docs/probe.md.

    Example: `k2d probe lectures --folds 5`
    """
    need("torch")
    from trainer.probe.crossfit import ProbeRecipe, cross_fit

    chosen = settings()
    recipe = ProbeRecipe(folds=folds, epochs=epochs, seed=seed, hours=hours)
    with bars() as on_progress:
        probe = cross_fit(Lake(chosen.store), batch, recipe, settings=chosen, on_progress=on_progress)
    if as_json:
        show.dump(probe.document())
        return
    show.out.print(_table(probe))
    show.out.print(_summary(probe), soft_wrap=True)


def _table(probe: "StoredProbe") -> Table:
    table = Table(title="Each fold's network on the recordings held out from it", title_justify="left")
    table.add_column("fold")
    for column in ("chunks", "seconds", "CTC loss a phoneme", "median distance to the label"):
        table.add_column(column, justify="right")
    for name, fold in [*((str(number), fold) for number, fold in enumerate(probe.folds)), ("all", probe.all)]:
        table.add_row(name, str(fold.chunks), f"{fold.seconds:.0f}", f"{fold.loss:.3f}", f"{fold.distance:.3f}")
    return table


def _summary(probe: "StoredProbe") -> str:
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(probe.skipped.items())) or "none"
    return (
        f"{counted(probe.recordings, 'recording')}, {counted(probe.units, 'unit')}; chunks skipped: {skipped}\n"
        f"encoded in {probe.encode_s:.0f} s ({probe.encoded_bytes / 1e6:.0f} MB), "
        f"trained in {probe.train_s:.0f} s on {probe.device}\n"
        f"stored as [bold]{probe.name}[/]: --validator perturbed+{probe.name}"
    )
