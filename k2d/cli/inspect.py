"""`k2d status`, `batches`, `chunks`, `curve`, `resume`, `cancel`, `retry`: inspect batches and act on them."""

import json
import time
from typing import Annotated, Final

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.base import (
    DEFAULT_POLICY,
    AlphaOption,
    Api,
    EmbeddedOption,
    Json,
    MetricOption,
    PolicyName,
    app,
    backend,
    policy,
)
from k2d.client.backend import ResumeIncomplete
from k2d.documents import ChunkFilter, ChunkRow
from k2d.errors import BadRequest
from k2d.schema import BatchState, Metric, Reason, Script, Status
from k2d.text.script import convert
from k2d.wording import counted

WATCH_S: Final = 5.0  # between looks of `k2d status --watch`; chosen

DAMAGE_SHOWN: Final = 5  # damaged files in a status; chosen
BatchArgument = Annotated[str, typer.Argument(help="Batch id or name.")]


@app.command()
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
    show.out.print(
        f"teacher {batch_status.teacher}, validator {batch_status.validator}, language {batch_status.language}"
    )
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
    if batch_status.state is BatchState.STALLED:
        pending = counted(batch_status.ledger.recordings.pending, "recording")
        at = f"--api {api}" if api else ""
        show.out.print(f"{pending} missing, and there is no job for them: k2d resume {at}".rstrip(), soft_wrap=True)


@app.command()
def batches(as_json: Json = False, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """List all batches, newest first: state, recordings that are done, hours in the index."""
    rows = backend(api, embedded).batches()
    if as_json:
        show.dump(rows)
        return
    for row in rows:
        done = row.recordings - row.pending
        hours = f", {row.hours:,.1f} h" if row.hours else ""
        progress = row.error or f"{done:,}/{counted(row.recordings, 'recording')}{hours}"
        show.out.print(f"{row.created_at}  {row.name:<32} {row.state:<10} {escape(progress)}", soft_wrap=True)
    if not rows:
        show.out.print("no batches yet: k2d label FILES…")


@app.command()
def chunks(
    batch: Annotated[str | None, typer.Argument(help="Batch id or name.")] = None,
    chunk: Annotated[str | None, typer.Option("--id", help="Show everything about this chunk instead.")] = None,
    jsonl: Annotated[bool, typer.Option(help="Print a line of JSON for each chunk.")] = False,
    verdict: Annotated[Status | None, typer.Option(help="Only chunks with this verdict.")] = None,
    reason: Annotated[Reason | None, typer.Option(help="Only chunks with this reason.")] = None,
    recording: Annotated[
        str | None,
        typer.Option(help="Only chunks of this recording: its name, or an end of its path that only it has."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Only chunks whose label contains this.")] = None,
    script: Annotated[
        Script, typer.Option(help="Print labels in this script; lines of JSON then have `raw_text` too.")
    ] = Script.AS_HEARD,
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    api: Api = None,
    embedded: EmbeddedOption = False,
) -> None:
    """List the chunks of a batch: span, label, the validator's hypothesis, metric, verdict and reason.

    With --id, show everything about one chunk.
    """
    rules = policy(preset, metric, alpha)
    if chunk is not None:
        detail = backend(api, embedded).chunk(chunk, rules)
        show.dump(detail) if jsonl else show.chunk(detail)
        return
    if batch is None:
        raise BadRequest("no batch was given", hint="`k2d chunks BATCH`, or `k2d chunks --id CHUNK`")
    where = ChunkFilter(verdict=verdict, reason=reason, recording=recording, text=text)
    rows = backend(api, embedded).chunks(batch, rules, where)
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


def _in_script(row: ChunkRow, script: Script) -> ChunkRow:
    return row.model_copy(update={"teacher_text": convert(row.teacher_text, script)})


@app.command()
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


@app.command()
def resume(as_json: Json = False, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """Process the missing recordings of all batches: after Redis was lost, an interruption, or an upgrade."""
    service = backend(api, embedded)
    incomplete: ResumeIncomplete | None = None
    try:
        missing = service.resume()
    except ResumeIncomplete as error:
        incomplete, missing = error, error.resumed
    if as_json:
        show.dump(missing)
    for batch, count in () if as_json else missing.items():
        show.out.print(f"{batch}: {counted(count, 'recording')} resumed ({service.where})", soft_wrap=True)
    if incomplete is not None:
        raise incomplete
    if not missing and not as_json:
        show.out.print("nothing is missing")


@app.command()
def cancel(batch: BatchArgument, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """Cancel a batch: no more recordings are started; results are kept."""
    show.out.print(f"state: {backend(api, embedded).cancel(batch).state}")


@app.command()
def retry(batch: BatchArgument, api: Api = None, embedded: EmbeddedOption = False) -> None:
    """Process the missing recordings of a batch, and its quarantined ones again."""
    show.out.print(f"state: {backend(api, embedded).retry(batch).state}")
