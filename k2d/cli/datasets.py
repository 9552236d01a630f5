"""`k2d freeze`, `k2d export`, `k2d datasets`: training data from what a policy keeps."""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import (
    DATASETS,
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
from k2d.cli.progress import bar, stoppable
from k2d.datasets.formats import FORMATS
from k2d.datasets.reviewed import ORIGIN
from k2d.datasets.scripts import scripts_in_words
from k2d.errors import BadRequest
from k2d.schema import TEACHER, Script
from k2d.store.manifest import Manifest
from k2d.textfiles import ENCODING, why_unreadable
from k2d.wording import audio_length, counted, in_bytes, listed

datasets = typer.Typer(
    name="datasets", help="List, show and delete frozen datasets.", no_args_is_help=True, add_completion=False
)
app.add_typer(datasets, rich_help_panel=DATASETS)

DatasetName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset.")]


@app.command(rich_help_panel=DATASETS)
def freeze(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new dataset. A dataset never changes.")],
    batch: Annotated[list[str], typer.Option(help="Batch id or name; may be given several times.")],
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    without: Annotated[
        typer.FileText | None,
        typer.Option(
            encoding=ENCODING,
            metavar="FILE",
            help="File with ids of chunks and segments to leave out, one a line (`-`: standard input).",
        ),
    ] = None,
    script: Annotated[
        Script,
        typer.Option(
            metavar="SCRIPT",
            help=f"Script of the labels, {listed(Script)}; `raw_text` then has what the teacher wrote. Words are never "
            "changed.",
        ),
    ] = Script.AS_HEARD,
    gold: Annotated[
        bool,
        typer.Option(
            "--gold",
            help="Reviewed segments have the text that people confirmed or wrote, whatever the policy says of them; "
            "those without one are left out.",
        ),
    ] = False,
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed", help="Also freeze recordings that different versions of k2d labeled or validated."
        ),
    ] = False,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Write what a policy keeps to a dataset of Parquet shards with a manifest.

    The dataset is written, and the exit status is 1, if an id of --without is in none of the batches.
    """
    try:
        ids = [line.strip() for line in without if line.strip()] if without is not None else []
    except (OSError, UnicodeError) as error:
        raise BadRequest(
            f"--without cannot be read: {why_unreadable(error)}", hint="one id a line, in UTF-8"
        ) from error
    rules = policy(preset, metric, alpha)
    service = backend(api, embedded)
    with stoppable("stopped; what is written is kept: the same command goes on"), bar("recordings written") as on_steps:
        manifest = service.freeze(
            name(dataset),
            batch,
            rules,
            without=ids,
            script=script,
            gold=gold,
            allow_mixed=allow_mixed,
            on_steps=on_steps,
        )
    if as_json:
        show.dump(manifest)
    else:
        show_manifest(manifest)
    if manifest.without and manifest.without.found < manifest.without.ids:
        unknown = counted(manifest.without.ids - manifest.without.found, "unknown id")
        show.err.print(f"[yellow]warning[/]: {unknown} in --without: in none of these batches", soft_wrap=True)
        raise typer.Exit(1)


@app.command(rich_help_panel=DATASETS)
def export(
    dataset: DatasetName,
    folder: Annotated[
        str,
        typer.Argument(metavar="DIR", help="Folder or URL (`s3://…`) to write to; it must be empty or not exist."),
    ],
    format_: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")],
    script: Annotated[
        Script | None,
        typer.Option(
            metavar="SCRIPT",
            help=f"Convert the labels of a dataset as heard, to {listed(Script)}; by default they stay as they are.",
        ),
    ] = None,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Write a dataset in the format of another toolkit, shard by shard.

    After an interruption, the same command goes on: shards that are complete are not written again.
    """
    service = backend(api, embedded)
    with stoppable("stopped; complete shards are kept: the same command goes on"), bar("shards written") as on_steps:
        manifest = service.export(name(dataset), format_, folder, script=script, on_steps=on_steps)
    if as_json:
        show.dump(manifest)
    else:
        show.out.print(f"{counted(manifest.counts.rows, 'row')} as {format_} in {folder}", soft_wrap=True)


@datasets.command("list")
def list_(as_json: Json = False, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """List all datasets, by name."""
    service = backend(api, embedded)
    rows = service.datasets()
    if as_json:
        show.dump(rows)
        return
    table = Table(box=SIMPLE_HEAD)
    for column in ("dataset", "frozen", "rows", "length", "size"):
        table.add_column(column, justify="left" if column in ("dataset", "frozen") else "right")
    for row in rows:
        table.add_row(row.name, row.created_at, f"{row.rows:,}", audio_length(row.hours * 3600), in_bytes(row.bytes))
        if row.error:
            show.out.print(f"[red]damaged[/]: {escape(row.error)}", soft_wrap=True)
    show.out.print(
        table if rows else f"no datasets in {escape(service.where)}: k2d freeze NAME --batch BATCH", soft_wrap=not rows
    )


@datasets.command("show")
def show_(dataset: DatasetName, as_json: Json = False, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """Show what a dataset contains, and how it was made."""
    manifest = backend(api, embedded).manifest(name(dataset))
    if as_json:
        show.dump(manifest)
        return
    show_manifest(manifest)
    show.out.print(f"\n{escape(manifest.policy_explanation)}", soft_wrap=True)


@datasets.command()
def delete(
    dataset: DatasetName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Delete a dataset and its shards. The labels are kept, so it can be frozen again."""
    service = backend(api, embedded)
    name(dataset)
    if not yes:
        entry = next((row for row in service.datasets() if row.name == dataset), None)  # also one that is damaged
        rows = service.manifest(dataset).counts.rows if entry is None else entry.rows
        size = "damaged" if entry and entry.error else counted(rows, "row")
        typer.confirm(f"delete dataset {dataset} ({size}) from {service.where}?", abort=True, err=True)
    deleted = service.delete_dataset(dataset)
    if as_json:
        show.dump(deleted)
    else:
        show.out.print(f"deleted dataset {deleted.name}: {in_bytes(deleted.bytes)} freed", soft_wrap=True)


def show_manifest(manifest: Manifest) -> None:
    """Print what a dataset contains, how it was made, and whether a validator was a fallback."""
    counts, seconds = manifest.counts, manifest.seconds
    kept_s = seconds.accepted + seconds.salvaged
    share = kept_s / seconds.input if seconds.input else 0.0
    size = sum(shard.bytes for shard in manifest.shards)
    show.out.print(
        f"dataset [bold]{manifest.name}[/]: {counted(counts.rows, 'row')}, {audio_length(kept_s)} of speech "
        f"({share:.0%} of {audio_length(seconds.input)}), {counted(len(manifest.shards), 'shard')}, {in_bytes(size)}"
    )
    if seconds.salvaged:
        show.out.print(
            f"including {audio_length(seconds.salvaged)} salvaged from {counted(counts.salvaged, 'chunk')} not kept "
            "whole"
        )
    if counts.duplicates:
        show.out.print(f"{counted(counts.duplicates, 'duplicate')} left out: recordings with the same audio as another")
    if manifest.without:
        show.out.print(f"left out: {manifest.without.found} of {counted(manifest.without.ids, 'revoked id')}")
    if manifest.scripts_as_heard is not None:
        script = f"in {manifest.script.name} characters" if manifest.script is not None else "as heard"
        show.out.print(f"labels {script}; the teacher wrote {scripts_in_words(manifest.scripts_as_heard)}")
    origins = manifest.origins or {}
    if (reviews := manifest.reviews) is not None:
        show.out.print(
            f"{audio_length(origins.get(ORIGIN, 0.0))} have reviewed texts: of "
            f"{counted(reviews.segments, 'reviewed segment')} {reviews.confirmed} "
            f"were confirmed, {reviews.corrected} corrected, {reviews.left_out} left out",
            soft_wrap=True,
        )
    rescored_s = sum(seconds for origin, seconds in origins.items() if origin not in (TEACHER, ORIGIN))
    if rescored_s:
        show.out.print(f"{audio_length(rescored_s)} have the text of a second decode")
    for validator in manifest.validators:
        note = " (a fallback: no second model)" if validator.fallback else ""
        show.out.print(f"validated by {escape(validator.name)}{note}, judged by policy {manifest.policy['name']}")
    if len(manifest.versions or ()) > 1:
        show.out.print(f"[yellow]of different versions of k2d[/]: {show.versions_in_words(manifest.versions or ())}")
    show.out.print(f"digest {manifest.digest}; --json prints the whole manifest", style="dim")
