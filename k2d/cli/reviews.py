"""`k2d reviews`: what people said of labels, in the store: lists, imports, exports, and gold rows for training."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import REVIEWING, Json, app, settings
from k2d.errors import BadRequest
from k2d.wording import audio_length, counted

if TYPE_CHECKING:
    from k2d.corpus.calibration.reviews import ReviewRow

reviews = typer.Typer(
    name="reviews",
    help="Reviews in the store (K2D_STORE): draws, import, export, gold rows. `k2d review` draws segments.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(reviews, rich_help_panel=REVIEWING)


class ReviewFormat(StrEnum):
    """A form of review files."""

    JSONL = "jsonl"
    LABEL_STUDIO = "label-studio"


Draw = Annotated[str, typer.Argument(metavar="DRAW", help="Id of a draw: `k2d reviews draws`.")]


@reviews.command()
def draws(
    batch: Annotated[str | None, typer.Argument(help="Batch id or name; default: all.")] = None, as_json: Json = False
) -> None:
    """List the draws, newest first: segments to review, on the page /review/ID of the console or in a file."""
    from k2d.corpus.calibration.desk import describe_draw
    from k2d.corpus.calibration.draws import draws_of_batches
    from k2d.store import Lake

    lake = Lake(settings().store)
    ids = [lake.batches.get(batch).id] if batch else []
    documents = [describe_draw(lake, draw) for draw in draws_of_batches(lake, ids)]
    if as_json:
        show.dump(documents)
        return
    table = Table(box=SIMPLE_HEAD)
    for column in ("id", "drawn", "order", "segments", "policy", "batches"):
        table.add_column(column, overflow="fold")  # an id must not lose its end
    for item in documents:
        batches = ", ".join(own + " (deleted)" if own in item.deleted else own for own in item.batches)
        values = (item.id, item.created_at, item.order, str(item.segments), item.policy, batches)
        table.add_row(*map(escape, values))
    show.out.print(table)


@reviews.command("show")
def show_progress(draw: Draw, target: Annotated[float, typer.Option(help="Label MER to prove, 0…1.")] = 0.08) -> None:
    """Print how far the review of a draw is, what it may prove, and how well reviewers agree, as JSON."""
    from k2d.corpus.calibration.desk import progress_of
    from k2d.corpus.calibration.draws import open_draw
    from k2d.store import Lake
    from k2d.store.audit_log import local_user

    lake = Lake(settings().store)
    show.dump(progress_of(lake, open_draw(lake, draw), reviewer=local_user(), target=target))


@reviews.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A file of `k2d review`, or Label Studio's export as JSON.")],
    reviewer: Annotated[str | None, typer.Option(help="Whose reviews they are; default: who runs the command.")] = None,
) -> None:
    """Store the reviews of a file. What the store has already is not stored again."""
    from k2d.corpus.calibration.imports import import_reviews, load_reviews
    from k2d.store import Lake
    from k2d.store.audit_log import local_user

    if reviewer is not None and not (reviewer.isprintable() and 0 < len(reviewer.strip()) <= 100):
        raise BadRequest(f"not a reviewer's name: {reviewer[:100]!r}", hint="1 to 100 printable characters")
    lake = Lake(settings().store)
    stored, known = import_reviews(lake, load_reviews(file), reviewer=reviewer or local_user())
    lake.audit_log.record("import reviews", by=local_user(), target=str(file), stored=stored)
    show.out.print(f"{counted(stored, 'review')} stored, {known} were there already")


@reviews.command()
def export(
    draw: Draw,
    out: Annotated[Path, typer.Argument(help="File to write. An existing file is not overwritten.")],
    format_: Annotated[
        ReviewFormat, typer.Option("--format", help="`jsonl` as of `k2d review`, or tasks of Label Studio.")
    ] = ReviewFormat.JSONL,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder in which to write each segment's audio as FLAC.")
    ] = None,
    audio_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where Label Studio finds the files of --audio; without --audio, the labeling API's URL.",
        ),
    ] = None,
) -> None:
    """Write the segments of a draw with their answers so far, for another tool or another person.

    Where labels of the draw were deleted, JSON lines without audio still have all answers.
    """
    from k2d.corpus.calibration.draws import answered_rows, known_rows, open_draw, with_labels
    from k2d.corpus.calibration.label_studio import LABELING_CONFIG, tasks_of
    from k2d.corpus.calibration.review import write_audio
    from k2d.corpus.calibration.reviews import write
    from k2d.store import Lake

    if out.exists():
        raise BadRequest(f"{out} exists", hint="reviews are not overwritten: choose another name")
    current = settings()
    lake = Lake(current.store)
    stored = open_draw(lake, draw)
    if format_ is ReviewFormat.JSONL and audio is None:
        rows = known_rows(lake, stored)
    else:
        with with_labels(lake, stored):
            rows = answered_rows(lake, stored)
            rows = rows if audio is None else write_audio(lake, rows, audio)
    if format_ is ReviewFormat.JSONL:
        write(out, stored.head, rows)
    else:
        tasks = tasks_of(rows, _address(audio_url or ("" if audio else current.api_url)))
        try:
            out.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), "utf-8")
        except OSError as error:
            raise BadRequest(f"cannot write {out}: {error.strerror}") from error
        show.err.print("the labeling interface of the Label Studio project:\n" + escape(LABELING_CONFIG))
    show.out.print(f"{counted(len(rows), 'segment')}, {sum(row.reviewed for row in rows)} reviewed: {escape(str(out))}")


@reviews.command()
def gold(
    batch: Annotated[list[str], typer.Argument(help="Batch ids or names.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write. An existing file is not overwritten.")],
) -> None:
    """Write the segments whose text people confirmed or corrected, with audio, as rows like those of a dataset."""
    from k2d.datasets.gold import write_gold
    from k2d.store import Lake

    lake = Lake(settings().store)
    counts = write_gold(lake, [lake.batches.get(name) for name in dict.fromkeys(batch)], out)
    show.out.print(
        f"{counted(counts.rows, 'row')} ({audio_length(counts.seconds)}, {counts.corrected} corrected): "
        f"{escape(str(out))}; left out: {counts.disputed} disputed, {counts.without_text} without text",
        soft_wrap=True,
    )


def _address(prefix: str) -> "Callable[[ReviewRow], str]":
    """Where a row's audio is found: its file below `prefix`, or the API's address of it."""

    def address(row: "ReviewRow") -> str:
        if row.audio is None:
            return f"{prefix.rstrip('/')}/v1/segments/{row.id}/audio"
        return f"{prefix.rstrip('/')}/{Path(row.audio).name}" if prefix else row.audio

    return address
