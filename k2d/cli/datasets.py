"""`k2d freeze`, `export`: from accepted chunks to training data."""

from pathlib import Path
from typing import Annotated

import typer

from k2d.cli import show
from k2d.cli.app import AlphaOption, Api, EmbeddedOption, Json, MetricOption, PolicyName, app, backend, name, policy
from k2d.datasets.export import FORMATS


@app.command()
def freeze(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset. A dataset never changes.")],
    batch: Annotated[list[str], typer.Option(help="Batch id or name; may be given several times.")],
    preset: PolicyName = "default",
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Freeze what a policy accepts into Parquet shards with a manifest."""
    manifest = backend(api, embedded).freeze(name(dataset), batch, policy(preset, metric, alpha))
    if as_json:
        show.dump(manifest)
    else:
        show_manifest(manifest)


@app.command()
def export(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="A frozen dataset.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; must be empty or not exist.")],
    format_: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")],
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Write a dataset in another toolkit's format."""
    written = backend(api, embedded).export(name(dataset), format_, folder)
    if as_json:
        show.dump(written)
    else:
        show.out.print(f"{written['counts']['rows']} rows as {format_} in {folder}", soft_wrap=True)


def show_manifest(manifest: dict[str, object]) -> None:
    """Say what a dataset holds and where it came from."""
    show.out.print(
        f"dataset [bold]{manifest['name']}[/]: {manifest['counts']} (digest {str(manifest['digest'])[:16]}…)"
    )
    show.out.print(f"seconds: {manifest['seconds']}")
    if manifest.get("location"):
        show.out.print(f"location: {manifest['location']}", soft_wrap=True)
