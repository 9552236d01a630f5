"""`k2d forget`: remove what is known of one recording."""

from typing import Annotated, Final

import typer

from k2d.cli import show
from k2d.cli.base import STORING, Json, app, settings
from k2d.corpus.forget import forget as forget_recording
from k2d.store import Lake
from k2d.wording import counted

_PARTS: Final = {  # fields of `Forgotten`, in words
    "examinations": ("examination",),
    "labels": ("label",),
    "journals": ("part of a journal", "parts of journals"),
    "hypotheses": ("file of hypotheses", "files of hypotheses"),
    "facts": ("file of facts", "files of facts"),
    "results": ("result",),
    "reviews": ("review",),
}


@app.command(rich_help_panel=STORING)
def forget(
    recording: Annotated[
        str, typer.Argument(metavar="RECORDING", help="Id of a recording (rec_…), or of one of its chunks.")
    ],
    keep_datasets: Annotated[
        bool, typer.Option("--keep-datasets", help="Go on where datasets have the recording; they stay as they are.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this, only show what would be.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what is known of one recording: examinations, labels, hypotheses, facts, results, reviews.

    Use it where a label belongs to other audio, or a recording may no longer be used. Uploaded files stay. Batches have
    the recording missing then: `k2d resume` labels it again. Without --yes nothing is removed: it shows what would be,
    also what people wrote in reviews. Works on the store (K2D_STORE), without an API.
    """
    forgotten = forget_recording(Lake(settings().store), recording, keep_datasets=keep_datasets, dry_run=not yes)
    if as_json:
        show.dump(forgotten.model_dump() | {"deleted": yes})
        return
    removed = ", ".join(
        counted(number, *words) for field, words in _PARTS.items() if (number := getattr(forgotten, field))
    )
    show.out.print(f"{'forgot' if yes else 'would forget'} {forgotten.recording_id}: {removed}", soft_wrap=True)
    if forgotten.datasets:
        show.out.print(f"[yellow]still in datasets:[/] {', '.join(forgotten.datasets)}", soft_wrap=True)
    if forgotten.datasets_unreadable:
        names = ", ".join(forgotten.datasets_unreadable)
        show.out.print(f"[yellow]datasets that cannot be read, and may have it:[/] {names}", soft_wrap=True)
    if forgotten.unreadable:
        show.out.print(
            f"[yellow]not read[/]: {counted(len(forgotten.unreadable), 'damaged shard')}, which may be of it: "
            "k2d store check --repair",
            soft_wrap=True,
        )
    if not yes:
        show.out.print("nothing is removed yet: the same command with --yes does it", style="dim")
    elif forgotten.results:
        show.out.print(f"{counted(forgotten.results, 'result')} of batches missing: k2d resume", soft_wrap=True)
