"""`k2d forget`: remove what is known of one recording."""

from typing import Annotated

import typer

from k2d.cli import show
from k2d.cli.base import STORING, Json, app, settings
from k2d.corpus.forget import forget as forget_recording
from k2d.store import Lake
from k2d.wording import counted


@app.command(rich_help_panel=STORING)
def forget(
    recording: Annotated[
        str, typer.Argument(metavar="RECORDING", help="Id of a recording (rec_…), or of one of its chunks.")
    ],
    keep_datasets: Annotated[
        bool, typer.Option("--keep-datasets", help="Go on where datasets have the recording; they stay as they are.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove what is known of one recording: examinations, labels, hypotheses, facts, results, reviews.

    Use it where a label belongs to other audio, or a recording may no longer be used. Uploaded files stay. Batches have
    the recording missing then: `k2d resume` labels it again. Works on the store (K2D_STORE), without an API.
    """
    forgotten = forget_recording(Lake(settings().store), recording, keep_datasets=keep_datasets)
    if as_json:
        show.dump(forgotten)
        return
    parts = ("examinations", "labels", "journals", "hypotheses", "facts", "results", "reviews")
    removed = ", ".join(f"{getattr(forgotten, part)} {part}" for part in parts if getattr(forgotten, part))
    show.out.print(f"forgot {forgotten.recording_id}: {removed}", soft_wrap=True)
    if forgotten.datasets:
        show.out.print(
            f"[yellow]still in the datasets, or they cannot be read:[/] {', '.join(forgotten.datasets)}", soft_wrap=True
        )
    if forgotten.unreadable:
        show.out.print(
            f"[yellow]not read[/]: {counted(len(forgotten.unreadable), 'damaged shard')}, which may be of it: "
            "k2d store check --repair",
            soft_wrap=True,
        )
    if forgotten.results:
        show.out.print(f"{counted(forgotten.results, 'result')} of batches missing: k2d resume", soft_wrap=True)
