"""`k2d status`, `batches`, `chunks`, `curve`, `resume`, `cancel`, `retry`: inspect batches and act on them."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.base import (
    DEFAULT_POLICY,
    LABELING,
    LOOKING,
    AlphaOption,
    AnywayOption,
    Api,
    EmbeddedOption,
    Json,
    MetricOption,
    PolicyName,
    app,
    at_api,
    backend,
    policy,
)
from k2d.cli.progress import batch_bars, stoppable
from k2d.client.backend import Backend, ResumeIncomplete
from k2d.corpus.tables import csv_table
from k2d.documents import BatchStatus, ChunkFilter, ChunkRow
from k2d.errors import BadRequest
from k2d.schema import BatchState, Metric, Reason, Script, Status
from k2d.text.script import convert
from k2d.wording import audio_length, counted, listed

WATCH_S: Final = 5.0  # between looks of `k2d status --watch`; chosen

DAMAGE_SHOWN: Final = 5  # damaged files in a status; chosen
BatchArgument = Annotated[str, typer.Argument(help="Batch id or name.")]


@app.command(rich_help_panel=LOOKING)
def status(
    batch: BatchArgument,
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again until the batch is done.")] = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Show the state of a batch, its ledger under a policy, and its quarantined recordings.

    While workers are at it, also how fast they are and when they will be done.
    """
    service, rules = backend(api, embedded), policy(preset, metric, alpha)
    batch_status = service.status(batch, rules)
    while watch and batch_status.state in (BatchState.QUEUED, BatchState.RUNNING):
        show.dump(batch_status) if as_json else show.out.print(show.progress_line(batch_status), soft_wrap=True)
        time.sleep(WATCH_S)
        batch_status = service.status(batch, rules)
    if as_json:
        show.dump(batch_status)
        return
    counts = batch_status.ledger.recordings
    show.out.print(
        f"batch [bold]{batch_status.name}[/] ({batch_status.id}): [bold]{batch_status.state}[/], "
        f"{counts.total - counts.pending:,} of {counted(counts.total, 'recording')}"
    )
    if batch_status.state in (BatchState.QUEUED, BatchState.RUNNING):
        show.out.print(show.progress_line(batch_status), soft_wrap=True)
    for line in show.processes_lines(batch_status):
        show.out.print(escape(line), soft_wrap=True)
    for line in show.options_lines(batch_status):
        show.out.print(escape(line), soft_wrap=True)
    show.out.print(show.ledger_table(batch_status.ledger))
    if batch_status.quarantined:
        show.out.print(show.quarantine_table(batch_status.quarantined))
    if batch_status.notes:
        show.out.print(show.notes_table(batch_status.notes))
    if len(batch_status.versions) > 1:
        versions = show.versions_in_words(batch_status.versions)
        show.out.print(f"[yellow]processed by different versions of k2d[/]: {versions}", soft_wrap=True)
    for damage in batch_status.damaged[:DAMAGE_SHOWN]:
        show.out.print(f"[yellow]damaged[/]: {escape(damage)}", soft_wrap=True)
    if len(batch_status.damaged) > DAMAGE_SHOWN:
        show.out.print("and more: k2d store check", soft_wrap=True)
    if batch_status.jobs and batch_status.jobs.waiting_for:
        show.out.print(f"[yellow]waits[/]: {escape(batch_status.jobs.waiting_for)}", soft_wrap=True)
    elif batch_status.jobs and batch_status.jobs.last_error:
        show.out.print(f"[red]last error[/]: {escape(batch_status.jobs.last_error)}")
    if sentence := show.going_on(batch_status, at_api(api)):
        show.out.print(sentence, soft_wrap=True)


@app.command(rich_help_panel=LOOKING)
def batches(as_json: Json = False, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """List all batches, newest first: state, recordings that are done, hours in the index."""
    service = backend(api, embedded)
    rows = service.batches()
    if as_json:
        show.dump(rows)
        return
    for row in rows:
        done = row.recordings - row.pending
        length = f", {audio_length(row.hours * 3600)}" if row.hours else ""
        progress = row.error or f"{done:,}/{counted(row.recordings, 'recording')}{length}"
        show.out.print(f"{row.created_at}  {row.name:<32} {row.state:<10} {escape(progress)}", soft_wrap=True)
    if not rows:
        show.out.print(f"no batches in {escape(service.where)}: k2d label FILES…", soft_wrap=True)


@app.command(rich_help_panel=LOOKING)
def chunks(
    batch: Annotated[str | None, typer.Argument(help="Batch id or name.")] = None,
    chunk: Annotated[str | None, typer.Option("--id", help="Show everything about this chunk instead.")] = None,
    jsonl: Annotated[bool, typer.Option(help="Print a line of JSON for each chunk.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table for spreadsheets.")] = False,
    audio: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write each chunk's audio there, as ID.flac.")
    ] = None,
    verdict: Annotated[
        Status | None, typer.Option(metavar="VERDICT", help=f"Only chunks with this verdict: {listed(Status)}.")
    ] = None,
    reason: Annotated[
        Reason | None, typer.Option(metavar="REASON", help=f"Only chunks with this reason: {listed(Reason)}.")
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(help="Only chunks of this recording: its name, or an end of its path that only it has."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Only chunks whose label contains this.")] = None,
    script: Annotated[
        Script,
        typer.Option(
            metavar="SCRIPT",
            help=f"Print labels in this script, {listed(Script)}; lines of JSON then have `raw_text` too.",
        ),
    ] = Script.AS_HEARD,
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """List the chunks of a batch: span, label, the validator's hypothesis, metric, verdict and reason.

    With --id, show everything about one chunk. What a policy rejects, for another tool:
    `k2d chunks lectures --verdict rejected --csv --audio clips/ > rejected.csv`
    """
    rules = policy(preset, metric, alpha)
    if jsonl and as_csv:
        raise BadRequest("--jsonl and --csv are two formats", hint="give one of them")
    if chunk is not None:
        detail = backend(api, embedded).chunk(chunk, rules)
        show.dump(detail) if jsonl else show.chunk(detail)
        return
    if batch is None:
        raise BadRequest("no batch was given", hint="`k2d chunks BATCH`, or `k2d chunks --id CHUNK`")
    where = ChunkFilter(verdict=verdict, reason=reason, recording=recording, text=text)
    service = backend(api, embedded)
    rows = service.chunks(batch, rules, where)
    if audio is not None:
        rows = _with_audio(service, rows, audio)
    if as_csv:
        in_script = (_in_script(row, script) for row in rows)
        for block in csv_table(in_script, rules):
            sys.stdout.write(block.decode())
        return
    if jsonl:
        for row in rows:
            raw = {} if script is Script.AS_HEARD else {"raw_text": row.teacher_text}
            print(json.dumps(_in_script(row, script).model_dump(mode="json") | raw, ensure_ascii=False))
        return
    listed = [_in_script(row, script) for row in rows]
    if listed:
        show.out.print(show.chunk_table(listed, rules.metric))
    else:
        filtered = where != ChunkFilter()
        show.out.print(f"batch {batch} has no {'such chunks' if filtered else 'chunks: no speech is labeled yet'}")


def _with_audio(service: Backend, rows: Iterable[ChunkRow], folder: Path) -> Iterator[ChunkRow]:
    """Write the audio of each chunk that comes by."""
    for row in rows:
        _write(folder / f"{row.id}.flac", service.chunk_audio(row.id))
        yield row


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error.strerror}", hint="name a folder that you may write") from error


@app.command(rich_help_panel=LOOKING)
def subtitles(
    batch: BatchArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    form: Annotated[str, typer.Option("--format", help="`srt` or `vtt`.")] = "srt",
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Write the labels of each recording of a batch as subtitles, all of them, whatever a policy makes of them."""
    files = 0
    for name, content in backend(api, embedded).subtitles(batch, form):
        _write(folder / name, content)
        files += 1
    show.out.print(f"{counted(files, 'file')} in {escape(str(folder))}", soft_wrap=True)


def _in_script(row: ChunkRow, script: Script) -> ChunkRow:
    return row.model_copy(update={"teacher_text": convert(row.teacher_text, script)})


@app.command(rich_help_panel=LOOKING)
def curve(
    batch: Annotated[list[str], typer.Argument(help="Batch ids or names.")],
    preset: PolicyName = DEFAULT_POLICY,
    as_json: Json = False,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """Show what each α would keep, for every metric. Computed from stored facts; no model runs."""
    preview = backend(api, embedded).preview(batch, policy(preset), metrics=tuple(Metric))
    if as_json:
        show.dump(preview)
    else:
        show.out.print(show.curve_table(preview.curve, preview.seconds.total))


@app.command(rich_help_panel=LABELING)
def resume(
    as_json: Json = False, api: Api = None, embedded: EmbeddedOption = False, anyway: AnywayOption = False
) -> None:
    """Process the missing recordings of all batches: after Redis was lost, an interruption, or an upgrade."""
    service = backend(api, embedded, anyway=anyway, resumes=True)
    incomplete: ResumeIncomplete | None = None
    advice = "stopped; recordings that are done are kept: `k2d resume` goes on"
    try:
        with stoppable(advice), batch_bars(lines=not as_json) as on_status:
            missing = service.resume(on_status)
    except ResumeIncomplete as error:
        incomplete, missing = error, error.resumed
        for note in error.notes():
            show.err.print(f"note: {note}", markup=False, soft_wrap=True)
    if as_json:
        show.dump(missing)
    for batch, count in () if as_json else missing.items():
        show.out.print(f"{batch}: {counted(count, 'recording')} resumed ({service.where})", soft_wrap=True)
    if incomplete is not None and incomplete.failed:
        raise incomplete
    if not missing and incomplete is None and not as_json:
        show.out.print("nothing is missing")


@app.command(rich_help_panel=LABELING)
def cancel(batch: BatchArgument, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """Cancel a batch: no more recordings are started; results are kept."""
    _show_state(backend(api, embedded).cancel(batch), api)


@app.command(rich_help_panel=LABELING)
def retry(
    batch: BatchArgument, api: Api = None, embedded: EmbeddedOption = False, anyway: AnywayOption = False
) -> None:
    """Process the missing recordings of a batch, and its quarantined ones again."""
    service = backend(api, embedded, anyway=anyway)
    advice = f"stopped; recordings that are done are kept: `k2d retry {batch}` goes on"
    with stoppable(advice), batch_bars() as on_status:
        retried = service.retry(batch, on_status)
    _show_state(retried, api)


def _show_state(batch_status: BatchStatus, api: str | None) -> None:
    sentence = show.going_on(batch_status, at_api(api))
    show.out.print(f"state: {batch_status.state}" + (f"; {sentence}" if sentence else ""), soft_wrap=True)
