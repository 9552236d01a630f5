"""`k2d store usage`, `k2d store delete`: what lies in the store, and deleting a batch with what only it refers to."""

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import Json, client_of, settings
from k2d.cli.store import store
from k2d.errors import NotFound
from k2d.wording import counted, in_bytes

if TYPE_CHECKING:
    from k2d.schema import Batch
    from k2d.store import Lake


@store.command()
def usage(as_json: Json = False) -> None:
    """Show how much of the disk each kind of data takes, and the store's version."""
    from k2d.store import Lake
    from k2d.store import usage as store_usage

    lake = Lake(settings().store)
    rows = store_usage.usage(lake.files)
    if as_json:
        show.dump({"store": lake.files.url(""), **lake.version(), "kinds": [asdict(row) for row in rows]})
        return
    version = lake.version()
    facts = version["facts_version"] or "not recorded: `k2d resume` looks for older ones"
    show.out.print(
        f"store {lake.files.url('')}: version of facts {facts} (this k2d writes {version['facts_written']})",
        soft_wrap=True,
    )
    table = Table(box=SIMPLE_HEAD)
    for column in ("kind", "files", "size"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for row in rows:
        table.add_row(row.kind, f"{row.files:,}", in_bytes(row.bytes))
    table.add_section()
    table.add_row("all", f"{sum(row.files for row in rows):,}", in_bytes(sum(row.bytes for row in rows)))
    show.out.print(table)


@store.command()
def delete(
    batch: Annotated[str, typer.Argument(help="Batch id or name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without this, only show what would be freed.")] = False,
    reviews: Annotated[
        bool, typer.Option("--reviews", help="Also delete what people said of the labels that are deleted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a batch, and free labels, hypotheses, facts and uploads that no other batch refers to.

    Without --yes nothing is deleted: it shows what would be. Datasets stay; `k2d datasets delete` removes one. Reviews
    stay unless --reviews is given: they count again when the same files are labeled again with the same options. What
    is deleted must be labeled again to be had again. A batch of which recordings are missing must be cancelled, and no
    process may be at work on it.
    """
    from k2d.corpus.deletion import delete_batch, plan_deletion
    from k2d.store import Lake
    from k2d.store.audit_log import local_user

    lake = Lake(settings().store)
    stored = lake.batches.get(batch)
    deletion = plan_deletion(lake, stored, reviews=reviews)
    _refuse_while_at_work(lake, stored)
    if yes:
        lake.audit_log.record("delete batch", by=local_user(), target=deletion.batch.id, name=deletion.batch.name)
        delete_batch(lake, deletion)
    if as_json:
        show.dump(deletion.document() | {"deleted": yes})
        return
    files = ", ".join(
        counted(len(paths), f"file in {folder}", f"files in {folder}")
        for folder, paths in deletion.paths.items()
        if paths
    )
    if deletion.reviews:
        files += f"; {counted(deletion.reviews, 'review')} of these labels kept (--reviews deletes them)"
    if deletion.draws:
        files += f"; {counted(deletion.draws, 'draw')} for review can be calibrated over it no more"
    verb = "deleted" if yes else "would delete"
    show.out.print(
        f"{verb} batch {deletion.batch.name}, {counted(len(deletion.batch.sources), 'recording')}"
        f"{'; ' if files else ''}{files}: {in_bytes(deletion.bytes)}",
        soft_wrap=True,
    )
    if not yes:
        show.out.print("nothing is deleted yet: the same command with --yes does it", style="dim")


def _refuse_while_at_work(lake: "Lake", batch: "Batch") -> None:
    """Raise an error if the labeling API says that a worker is at a batch, or is about to be.

    Raises:
        Conflict
    """
    if len(lake.batches.result_positions(batch.id)) == len(batch.sources):
        return
    from k2d.corpus.deletion import refuse_while_at_work

    current = settings()
    client = client_of(current.api_url)
    if client.is_up():
        with suppress(NotFound):  # the API has another store
            refuse_while_at_work(batch, client.status(batch.id).jobs)
