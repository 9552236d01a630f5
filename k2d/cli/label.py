"""`k2d label`: label recordings and print their ledger."""

from contextlib import nullcontext, suppress
from typing import Annotated

import typer
from rich.markup import escape

from k2d import audio, sources
from k2d.cli import show
from k2d.cli.base import Api, EmbeddedOption, Json, app, backend
from k2d.client.backend import ignore
from k2d.documents import BatchOptions
from k2d.errors import AudioError, K2DError
from k2d.schema import BatchState
from k2d.wording import counted


@app.command()
def label(
    paths: Annotated[list[str], typer.Argument(help="Audio or video files, or folders with such files.")],
    batch: Annotated[str | None, typer.Option(help="Name of the batch; its id by default.")] = None,
    language: Annotated[str | None, typer.Option(help="`zh-en` (mixed prompt), `auto`, or a Whisper code.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Model that labels; see `k2d models`.")] = None,
    validator: Annotated[
        str | None,
        typer.Option(help="Validators that check the labels, joined by `+`; see K2D_VALIDATOR."),
    ] = None,
    vad: Annotated[
        bool | None, typer.Option(help="Skip audio in which a voice activity detector finds no speech.")
    ] = None,
    condition_on_previous_text: Annotated[
        bool | None, typer.Option(help="Give each window the previous window's text.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the batch is done (without an API, it always waits).")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only estimate the cost.")] = False,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Label recordings, validate the labels, and print the ledger.

    The same files with the same options are not labeled twice, and an interrupted run continues where it stopped.
    """
    options = BatchOptions(
        name=batch,
        language=language,
        teacher=teacher,
        validator=validator,
        vad=vad,
        condition_on_previous_text=condition_on_previous_text,
    )
    service = backend(api, embedded)
    doing = "estimate from" if dry_run else "labels go to"
    show.err.print(f"[dim]{doing} {escape(service.where)}[/]", soft_wrap=True)
    if dry_run:
        forecast = service.forecast(paths, options)
        if as_json:
            show.dump(forecast)
        else:
            show.out.print(
                f"{counted(forecast.recordings, 'recording')}, {forecast.hours:.2f} hours, "
                f"about {counted(forecast.windows, 'window')}: about {forecast.estimated_s:.0f} s",
                soft_wrap=True,
            )
            show.out.print(f"[dim]{escape(forecast.basis)}[/]", soft_wrap=True)
            for name in forecast.not_audio:
                show.out.print(f"not audio, or unreadable: {show.visible(name, 200)}", soft_wrap=True)
        return
    progress = show.bars(header_seconds(paths)) if show.err.is_terminal else nullcontext(ignore)
    with progress as on_status:
        status = service.label(paths, options, wait=wait, on_status=on_status)
    if as_json:
        show.dump(status.ledger.as_json() | {"state": status.state})
        return
    show.out.print(show.ledger_table(status.ledger))
    if status.quarantined:
        show.out.print(show.quarantine_table(status.quarantined))
    if status.state not in (BatchState.DONE, BatchState.CANCELLED):
        show.out.print(f"state: {status.state}; follow it with: k2d status {status.name}")


def header_seconds(paths: list[str]) -> float:
    """Total length of files by their headers, in seconds, for the progress bar; what cannot be read counts as 0."""
    total = 0.0
    with suppress(K2DError):  # labeling reports it, after mistakes in the options
        for path in sources.expand(paths):
            with suppress(AudioError, OSError), path.open("rb") as file:
                total += audio.probe_duration_s(file) or 0.0
    return total
