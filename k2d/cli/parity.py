"""`k2d parity`: do two models, engines or servers give the same labels?"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from k2d import sources
from k2d.audio import isolated
from k2d.cli import show
from k2d.cli.base import SERVING, Json, app, settings
from k2d.errors import AudioError, BadRequest, K2DError
from k2d.inference.address import is_address
from k2d.inference.open import open_transcriber
from k2d.inference.parity import (
    ParityRecording,
    ParityReport,
    ParityRow,
    Transcripts,
    compare,
    golden_recordings,
    transcribe_all,
)
from k2d.inference.transcriber import Transcriber
from k2d.schema import DecodeOptions, LongformOptions, Recording
from k2d.settings import Settings
from k2d.textfiles import read_lines
from k2d.wording import counted


@app.command(rich_help_panel=SERVING)
def parity(
    a: Annotated[str, typer.Argument(help="A model, or an address: `http://host:port`, `grpc://host:port/teacher`.")],
    b: Annotated[str, typer.Argument(help="The other one, such as the same model on another server.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Recordings or folders to transcribe in addition to the golden clips.")
    ] = None,
    max_drift: Annotated[
        float, typer.Option(help="Largest mixed error rate between A and B, over all recordings together.", min=0.0)
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Transcribe the golden clips and FILES with A and B, and compare the transcripts.

    The exit status is 1 if B drifts from A by more than `--max-drift`. Decoding follows K2D_LANGUAGE and the other
    labeling settings. If there is a `manifest.jsonl` beside a file, with `audio` (the file's name) and `text`, both are
    also compared with that text.
    """
    current = settings()
    recordings = [*golden_recordings(), *(_recording(path, current) for path in sources.expand(files or []))]
    report = asyncio.run(_compared((a, b), recordings, current))
    if as_json:
        show.dump(_document(report, max_drift))
    else:
        show.out.print(_table(report))
        for row in report.rows:
            if not row.same_text:
                show.out.print(f"\n[bold]{show.visible(row.name)}[/]\nA {escape(row.text_a)}\nB {escape(row.text_b)}")
        _explain(report)
    if report.drift > max_drift:
        raise Drift(
            f"B drifts from A by {report.drift:.2%} MER; at most {max_drift:.2%} is allowed",
            hint="the same weights, engine and compute type give the same labels: compare the fingerprints, or raise "
            "--max-drift if the difference is intended",
        )


class Drift(K2DError):
    """Two transcribers differ by more than --max-drift."""

    code = "drift"


async def _compared(
    references: tuple[str, str], recordings: Sequence[ParityRecording], current: Settings
) -> ParityReport:
    """Transcribe with both and compare.

    Servers are connected first, to fail early. The sides run one after the other, so that only one model is in memory.
    """
    decode = DecodeOptions(language=current.language, beam_size=current.beam_size)
    options = LongformOptions(decode, condition_on_previous_text=current.condition_on_previous_text, vad=current.vad)
    sides: list[Transcripts] = []
    async with AsyncExitStack() as stack:
        servers: dict[str, Transcriber] = {}
        for address in filter(is_address, references):
            servers[address] = await open_transcriber(address, current)
            stack.push_async_callback(servers[address].close)
        for reference in references:
            show.err.print(f"[dim]transcribing {counted(len(recordings), 'recording')} with {escape(reference)}[/]")
            if reference in servers:
                sides.append(await transcribe_all(servers[reference], recordings, options))
                continue
            model = await open_transcriber(reference, current)
            try:
                sides.append(await transcribe_all(model, recordings, options))
            finally:
                await model.close()
    return compare(recordings, sides[0], sides[1])


# ---- files --------------------------------------------------------------------------------------------------------


def _recording(path: Path, current: Settings) -> ParityRecording:
    """The recording in a file, which is examined first.

    Raises:
        BadRequest: the file cannot be transcribed.
    """
    try:
        recording = isolated.examine(
            path, min_s=current.min_recording_s, max_s=current.max_recording_s, silence_peak=current.silence_peak
        )
    except AudioError as error:
        raise BadRequest(f"{show.visible(path.name)}: {error.message}", hint="leave it out") from error
    return ParityRecording(
        path.name, lambda: closing(_ForwardReader(path, recording)), recording.samples, _reference(path)
    )


class _ForwardReader:
    """Reads a file's samples forward, without keeping those before `start` (`k2d.inference.longform.Reader`)."""

    def __init__(self, path: Path, recording: Recording) -> None:
        self._reader = isolated.IsolatedReader(path, recording=recording)
        self.close = self._reader.close

    def read(self, start: int, stop: int) -> Any:
        self._reader.forget(start)
        return self._reader.read(start, stop)


def _reference(path: Path) -> str | None:
    """What is said in a file, by the manifest beside it; None without one."""
    manifest = path.parent / "manifest.jsonl"
    try:
        lines = list(read_lines(manifest))
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("audio") == path.name and isinstance(row.get("text"), str):
            return str(row["text"])
    return None


# ---- output -------------------------------------------------------------------------------------------------------


def _document(report: ParityReport, max_drift: float) -> dict[str, Any]:
    sides = {
        side: asdict(model) | {"fingerprint": model.fingerprint} for side, model in (("a", report.a), ("b", report.b))
    }
    return {
        **sides,
        "recordings": [asdict(row) for row in report.rows],
        "drift": report.drift,
        "max_drift": max_drift,
        "mer_a": report.mer_a,
        "mer_b": report.mer_b,
        "passed": report.drift <= max_drift,
    }


def _table(report: ParityReport) -> Table:
    table = Table(
        title=f"A {escape(report.a.reference)}  {report.a.fingerprint}\n"
        f"B {escape(report.b.reference)}  {report.b.fingerprint}",
        title_justify="left",
    )
    table.add_column("recording")
    table.add_column("same")
    for column in ("MER A–B", "A to truth", "B to truth"):
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(show.visible(row.name), _same(row), f"{row.drift:.3f}", _rate(row.mer_a), _rate(row.mer_b))
    table.add_section()
    table.add_row("together", "", f"{report.drift:.3f}", _rate(report.mer_a), _rate(report.mer_b))
    return table


def _same(row: ParityRow) -> str:
    if row.identical:
        return "[green]all[/]"
    return "[yellow]text[/]" if row.same_text else "[red]no[/]"


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3f}"


def _explain(report: ParityReport) -> None:
    total = len(report.rows)
    identical, same = sum(row.identical for row in report.rows), sum(row.same_text for row in report.rows)
    show.out.print(
        f"\n{identical} of {total} identical to the last signal, {same} with the same text; "
        + ("one fingerprint" if report.a.fingerprint == report.b.fingerprint else "[yellow]different fingerprints[/]")
    )
