"""`k2d convert`: a student in the form that its users run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import Json, app, settings
from trainer.need import need

if TYPE_CHECKING:
    from trainer.export.exporter import Export


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A run folder of `k2d train`, or any model.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; empty or not there.")],
    format: Annotated[
        Literal["transformers", "ctranslate2", "onnx", "ggml"],
        typer.Option(help="`ctranslate2` is what faster-whisper runs, `ggml` what whisper.cpp runs."),
    ] = "transformers",
    precision: Annotated[
        str | None,
        typer.Option(help="`float32`, `float16` or `int8` as the format has it; docs/export.md lists the defaults."),
    ] = None,
    which: Annotated[
        Literal["best", "last"] | None, typer.Option(help="Student of a run; the best where there is one.")
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            help="Largest mixed error rate between student and export on the golden clips. Without it: none for "
            "floating point, 0.1 for 8 bits.",
            min=0.0,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave an export that fails its check, to look at it.")] = False,
    evaluation: Annotated[
        Path | None, typer.Option(help="report.json of `k2d eval`, for the results in the model card.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence for the model card, as model hubs name it.")] = "other",
    as_json: Json = False,
) -> None:
    """Export a student: transformers, CTranslate2, ONNX or whisper.cpp; checked by ear, with a model card.

    The export transcribes the golden clips with the tool it is for, and must read as the student itself does in torch.
    One that does not leaves nothing behind and ends with status 1.
    """
    found = settings()
    need("torch", "transformers", "safetensors", "jinja2")
    from transformers.utils import logging

    from trainer.export.exporter import convert as export
    from trainer.export.exporter import document

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    made = export(
        source,
        out,
        format=format,
        precision=precision,
        which=which,
        max_drift=max_drift,
        keep=keep,
        evaluation=evaluation,
        licence=licence,
        cache=found.cache,
        allow_downloads=found.allow_downloads,
    )
    if as_json:
        show.dump({"folder": str(made.folder), **document(made)})
        return
    show.out.print(_table(made))
    show.out.print(f"{made.folder}: {made.format}, {made.precision}, {made.bytes / 1e6:.1f} MB", soft_wrap=True)


def _table(made: "Export") -> Table:
    chosen = f" ({made.source.which})" if made.source.which else ""
    table = Table(title=f"{escape(made.source.reference)}{chosen} heard again", title_justify="left")
    table.add_column("tool")
    table.add_column("timestamps")
    table.add_column("same text", justify="right")
    table.add_column("MER to the student", justify="right")
    for check in made.checks:
        stamped = "with" if check.timestamps else "without"
        table.add_row(check.tool, stamped, f"{check.same} of {check.clips}", f"{check.drift:.3f}")
    return table
