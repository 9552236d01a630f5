"""`k2d train`: distil a student from a frozen dataset."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from k2d.cli import show
from k2d.cli.base import STUDENTS, Api, app, client_of, name, settings
from k2d.datasets.pull import pull
from k2d.datasets.read import FrozenDataset
from k2d.errors import BadRequest
from k2d.foreign import Unparsable, parse_yaml
from k2d.settings import Settings
from k2d.store import Lake
from trainer.need import need
from trainer.options import PRESETS, load_recipe


@app.command(rich_help_panel=STUDENTS)
def train(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="A frozen dataset of the store (K2D_STORE).")],
    # not `--run`: torchrun's own parser takes that for its `--run-path`
    run: Annotated[Path, typer.Option("--out", help="Folder of the run: checkpoints, curves, the student.")],
    recipe: Annotated[str, typer.Option(help=f"A preset ({', '.join(PRESETS)}) or a YAML file.")] = "default",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint; start where there is none.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes and a measured estimate, and stop.")] = False,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Put the run's state and curves into the store (K2D_STORE), for the console."),
    ] = False,
    api: Api = None,
) -> None:
    """Distil a student from a frozen dataset.

    Prints sizes and a measured estimate, then trains. Ctrl-C and SIGTERM stop it after the current step, with a
    checkpoint; `--resume` goes on, to the same curve. Recipe keys: docs/recipe.md. On several GPUs:
    `torchrun --nproc-per-node 4 -m trainer NAME --out DIR` (docs/training.md). With `--api` the dataset is fetched
    from a labeling API into the store first, once. `--publish` names the run by its folder.

    Example: `k2d train lectures-1 --out runs/first --set steps=5000`
    """
    need()
    chosen = settings()
    parsed = load_recipe(recipe, _changes(change or []))
    frozen = _open_dataset(name(dataset), api, chosen)
    from trainer.run.loop import train as distil

    target = Lake(chosen.store) if publish else None
    outcome = distil(frozen, parsed, run, settings=chosen, resume=resume, dry_run=dry_run, publish_to=target)
    if outcome.student is None:
        return
    state = "done" if outcome.finished else f"stopped after step {outcome.step}; go on with --resume"
    best = "" if outcome.best_mer is None else f", best validation MER {outcome.best_mer:.4f}"
    show.out.print(f"{state}{best}: student in {outcome.student}, report in {run / 'report.html'}", soft_wrap=True)


def _open_dataset(dataset: str, api: str | None, settings: Settings) -> FrozenDataset:
    """The dataset in the store; fetched first from the API, if that is given and the store lacks it."""
    lake = Lake(settings.store)
    if api and dataset not in lake.datasets.names():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise BadRequest(
                "several processes would each fetch the dataset", hint="first: k2d train … --api URL --dry-run"
            )
        pull(client_of(api), dataset, lake)
    return FrozenDataset(lake, dataset)


def _changes(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE as the recipe's values; VALUE as YAML reads it.

    Raises:
        BadRequest: no `=`, or not valid YAML.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BadRequest(f"--set {pair!r} has no value", hint="write --set steps=200")
        try:
            changes[key.strip()] = parse_yaml(value)
        except Unparsable as error:
            raise BadRequest(f"--set {pair!r} cannot be read: {error}", hint="write --set steps=200") from error
    return changes
