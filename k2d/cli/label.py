"""`k2d label`: label recordings and print their ledger."""

import re
from typing import Annotated

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.base import LABELING, AnywayOption, Api, EmbeddedOption, Json, app, at_api, backend
from k2d.cli.progress import batch_bars, stoppable
from k2d.documents import BatchOptions, Forecast
from k2d.errors import BadRequest, K2DError
from k2d.labeling.terms import read_terms
from k2d.schema import BatchState
from k2d.settings import CHANNELS
from k2d.wording import counted


@app.command(rich_help_panel=LABELING)
def label(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Audio or video files, folders, globs, s3://bucket/prefix/, https:// addresses; "
            ".jsonl or .tsv lists of them."
        ),
    ],
    batch: Annotated[str | None, typer.Option(help="Name of the batch; its id by default.")] = None,
    add: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Add what is new to the batch of this name, with its options."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="`zh-en` (mixed prompt), `auto`, or a Whisper code.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Model that labels; see `k2d models`.")] = None,
    validator: Annotated[
        str | None,
        typer.Option(help="Validators that check the labels, joined by `+`; see K2D_VALIDATOR."),
    ] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=32, help="Beams with which the teacher decodes; 1 is greedy.")
    ] = None,
    rescore: Annotated[
        bool | None,
        typer.Option(help="Decode each chunk again without timestamps, and take the most probable text."),
    ] = None,
    terms: Annotated[
        str | None,
        typer.Option(
            metavar="FILE-OR-TEXT",
            help="Names and jargon that the teacher is told: a text file with one a line, or `A, B, C`.",
        ),
    ] = None,
    vad: Annotated[
        bool | None, typer.Option(help="Skip audio in which a voice activity detector finds no speech.")
    ] = None,
    condition_on_previous_text: Annotated[
        bool | None, typer.Option(help="Give each window the previous window's text.")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="`mix`, `each` (every channel is a recording, NAME#1 …), or a channel's number."),
    ] = None,
    keep_partial: Annotated[
        bool | None,
        typer.Option(help="Label what is before the damage in damaged and cut-off files; the rest is quarantined."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the batch is done (without an API, it always waits).")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Only estimate the cost: what is new, and what is labeled already.")
    ] = False,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
    anyway: AnywayOption = False,
) -> None:
    """Label recordings, validate the labels, and print the ledger.

    The same files with the same options are not labeled twice, and an interrupted run continues where it stopped.
    The exit status is 0 if at least one recording was labeled or the batch is queued, 1 if all are quarantined.
    """
    if batch is not None and add is not None and batch != add:
        raise BadRequest("--batch and --add name two batches", hint="--add makes the batch where there is none")
    options = BatchOptions(
        name=add or batch,
        language=language,
        teacher=teacher,
        validator=validator,
        beam_size=beam_size,
        rescore=rescore,
        terms=None if terms is None else read_terms(terms),
        vad=vad,
        condition_on_previous_text=condition_on_previous_text,
        channels=channels_option(channels),
        keep_partial=keep_partial,
    )
    service = backend(api, embedded, anyway=anyway)
    doing = "estimate from" if dry_run else "labels go to"
    show.err.print(f"[dim]{doing} {escape(service.where)}[/]", soft_wrap=True)
    if dry_run:
        _print_forecast(service.forecast(paths, options, add=add is not None), as_json=as_json)
        return
    with stoppable(stopped_labeling(add or batch)), batch_bars(lines=not as_json) as on_status:
        status = service.label(paths, options, wait=wait, add=add is not None, on_status=on_status)
    if status.terms_left_out:
        show.err.print(
            f"[yellow]{len(status.terms_left_out)} terms left out[/]: the teacher reads 223 tokens before each window. "
            f"Put the most important first. Left out: {escape(', '.join(status.terms_left_out))}",
            soft_wrap=True,
        )
    if as_json:
        show.dump(status.ledger.as_json() | {"state": status.state})
    else:
        show.out.print(show.ledger_table(status.ledger))
        if status.quarantined:
            show.out.print(show.quarantine_table(status.quarantined))
        if status.notes:
            show.out.print(show.notes_table(status.notes))
        if sentence := show.going_on(status, at_api(api)):
            show.out.print(f"state: {status.state}; {sentence}", soft_wrap=True)
    if status.state is BatchState.DONE and not status.ledger.recordings.labeled:
        raise typer.Exit(1)


def _print_forecast(forecast: Forecast, *, as_json: bool) -> None:
    """Print what labeling would cost.

    Raises:
        K2DError: nothing could be labeled.
    """
    unusable = len(forecast.not_audio) + len(forecast.no_channel)
    if as_json:
        show.dump(forecast)
    else:
        audible = counted(forecast.recordings - unusable, "recording")
        show.out.print(f"{audible}, {show.forecast_line(forecast)}", soft_wrap=True)
        for line in show.known_lines(forecast):
            show.out.print(line, soft_wrap=True)
        show.out.print(f"[dim]{escape(forecast.basis)}[/]", soft_wrap=True)
        for name in forecast.not_audio:
            show.out.print(f"not audio, or unreadable: {show.visible(name, 200)}", soft_wrap=True)
        for name, why in forecast.no_channel.items():
            show.out.print(f"not labeled: {show.visible(name, 200)}: {why}", soft_wrap=True)
    if unusable == forecast.recordings:
        what = "is audio that can be read" + (", with the channel that was asked for" if forecast.no_channel else "")
        raise K2DError(
            f"nothing can be labeled: none of {counted(forecast.recordings, 'file')} {what}",
            hint="`k2d label` would quarantine all of them; a folder is searched for audio and video files only",
        )


def stopped_labeling(batch: str | None) -> str:
    """What to say when labeling is stopped: what was kept, and which commands go on."""
    return (
        "stopped; recordings that are done are kept, those in hand lose a minute at most: run the same command again "
        "to go on" + (f", or `k2d resume`; `k2d cancel {batch}` leaves it as it is" if batch else ", or `k2d resume`")
    )


def channels_option(text: str | None) -> str | None:
    """Check `--channels`.

    Raises:
        BadRequest: it is none of its values.
    """
    if text is not None and not re.fullmatch(CHANNELS, text):
        raise BadRequest(f"not a choice of channels: {text[:100]!r}", hint="mix, each, or a number from 1 to 99")
    return text
