"""`k2d freeze`, `export`: from what is kept to training data."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.app import (
    DEFAULT_POLICY,
    AlphaOption,
    Api,
    EmbeddedOption,
    Json,
    MetricOption,
    PolicyName,
    app,
    backend,
    name,
    policy,
)
from k2d.datasets.formats import FORMATS


@app.command()
def freeze(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset. A dataset never changes.")],
    batch: Annotated[list[str], typer.Option(help="Batch id or name; may be given several times.")],
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    without: Annotated[
        typer.FileText | None,
        typer.Option(metavar="FILE", help="Ids of chunks and segments to leave out, one a line (`-`: standard input)."),
    ] = None,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Freeze what a policy keeps into Parquet shards with a manifest."""
    gone = [line.strip() for line in without if line.strip()] if without is not None else []
    manifest = backend(api, embedded).freeze(name(dataset), batch, policy(preset, metric, alpha), without=gone)
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


def show_manifest(manifest: dict[str, Any]) -> None:
    """Say what a dataset holds, how it came about, and that a fallback doubted it if one did."""
    counts, seconds = manifest["counts"], manifest["seconds"]
    kept_s = seconds["accepted"] + seconds["salvaged"]
    share = kept_s / seconds["input"] if seconds["input"] else 0.0
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 1e6
    show.out.print(
        f"dataset [bold]{manifest['name']}[/]: {counts['rows']} rows, {kept_s:.1f} s of speech "
        f"({share:.0%} of {seconds['input']:.1f} s), {len(manifest['shards'])} shard(s), {size:.1f} MB"
    )
    if seconds["salvaged"]:
        show.out.print(f"of it {seconds['salvaged']:.1f} s salvaged from {counts['salvaged']} chunks not kept whole")
    if manifest["without"]:
        show.out.print(
            f"left out: {manifest['without']['found']} of {manifest['without']['ids']} revoked ids were found"
        )
    for validator in manifest["validators"]:
        note = " (a fallback: no second model)" if validator["fallback"] else ""
        show.out.print(f"doubted by {escape(validator['name'])}{note}, judged by policy {manifest['policy']['name']}")
    show.out.print(f"digest {manifest['digest']}; the manifest tells the rest (--json)", style="dim")
