"""`k2d convert`: export a student in the format that its users run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import STUDENTS, Json, app, settings
from trainer.need import need

if TYPE_CHECKING:
    from trainer.export.record import Export


@app.command(rich_help_panel=STUDENTS)
def convert(
    source: Annotated[str, typer.Argument(help="A run folder of `k2d train`, or any model.")],
    out: Annotated[Path, typer.Argument(help="Folder to make; it must be empty or not exist.")],
    format: Annotated[
        Literal["transformers", "ctranslate2", "onnx", "ggml"],
        typer.Option(
            metavar="FORMAT",
            help="`transformers`, `onnx`, `ctranslate2` for faster-whisper or `ggml` for whisper.cpp.",
        ),
    ] = "transformers",
    precision: Annotated[
        str | None,
        typer.Option(help="`float32`, `float16` or `int8`, as the format supports; docs/export.md lists the defaults."),
    ] = None,
    which: Annotated[
        Literal["best", "last"] | None,
        typer.Option(help="Which student of a run; default: the best where there is one."),
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            help="Largest mixed error rate between student and export on the golden clips. Default: 0 for floating "
            "point, 0.1 for 8 bits.",
            min=0.0,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep an export that fails its check, to look at it.")] = False,
    evaluation: Annotated[
        Path | None, typer.Option(help="report.json of `k2d eval`, for the results in the model card.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence for the model card, as model hubs name it.")] = "other",
    as_json: Json = False,
) -> None:
    """Export a student to transformers, CTranslate2, ONNX or whisper.cpp, check it, and write a model card.

    The export must transcribe the golden clips, with the tool it is for, as the student itself does in torch. Otherwise
    nothing is left behind and the exit status is 1.

    Example: `k2d convert runs/first students/first --format ctranslate2`
    """
    chosen = settings()
    need("torch", "transformers", "safetensors", "jinja2")
    from transformers.utils import logging

    from trainer.export.exporter import convert as convert_to
    from trainer.export.gate import looping_clips
    from trainer.export.record import document

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    export = convert_to(
        source,
        out,
        format=format,
        precision=precision,
        which=which,
        max_drift=max_drift,
        keep=keep,
        evaluation=evaluation,
        licence=licence,
        cache=chosen.cache,
        allow_downloads=chosen.allow_downloads,
    )
    if as_json:
        show.dump({"folder": str(export.folder), **document(export)})
        return
    show.out.print(_table(export))
    looping = looping_clips(export.checks)
    if looping:
        show.err.print(
            f"[yellow]warning[/]: the student loops on {', '.join(looping)}: it was trained too little, or on too "
            "little speech; see how often with `k2d eval` before you use it",
            soft_wrap=True,
        )
    size = f"{export.bytes / 1e6:.1f} MB"
    show.out.print(f"{export.folder}: {export.format}, {export.precision}, {size}", soft_wrap=True)


def _table(export: "Export") -> Table:
    which = f" ({export.source.which})" if export.source.which else ""
    title = f"{escape(export.source.reference)}{which} and its export on the golden clips"
    table = Table(title=title, title_justify="left")
    table.add_column("tool")
    table.add_column("timestamps")
    table.add_column("same text", justify="right")
    table.add_column("MER to the student", justify="right")
    for check in export.checks:
        timestamps = "with" if check.timestamps else "without"
        table.add_row(check.tool, timestamps, f"{check.same} of {check.clips}", f"{check.drift:.3f}")
    return table
