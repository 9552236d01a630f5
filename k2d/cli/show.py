"""Tables, progress bars and error messages of the commands.

Results go to standard output, progress and errors to standard error.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from k2d.documents import (
    BatchStatus,
    ChunkDetail,
    ChunkRow,
    CurvePoint,
    DiffStep,
    Forecast,
    Ledger,
    NoLabelSeconds,
    QuarantinedRecording,
    RecordingNotes,
    VersionCount,
)
from k2d.errors import K2DError
from k2d.filtering.distance import DiffOp
from k2d.filtering.policy import SHORT_NAMES
from k2d.schema import BatchState, Metric, Versions
from k2d.store.manifest import DatasetVersions
from k2d.wording import audio_length, counted, estimated_time

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

MAX_NAME: Final = 4096  # a path is not shortened where someone may want to copy it
TERMS_SHOWN: Final = 10  # of a batch; chosen
VERDICT_STYLES: Final = {"accepted": "green", "salvaged": "yellow", "rejected": "red", "quarantined": "magenta"}


def dump(document: Any) -> None:
    """Print one JSON document to standard output: JSON values, a pydantic model, or a list of models."""
    print(json.dumps(document, ensure_ascii=False, indent=2, default=_as_json))


def _as_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"cannot be printed as JSON: {type(value).__name__}")


def fail(error: BaseException) -> int:
    """Print an error and its hint; returns the exit status: 2 if the request is wrong, 1 for any other error."""
    if isinstance(error, K2DError):
        err.print(f"[bold red]error[/]: {escape(error.message)}", soft_wrap=True)
        if error.hint:
            err.print(f"[dim]hint[/]: {escape(error.hint)}", soft_wrap=True)
        return 2 if error.status < 500 else 1
    err.print(f"[bold red]error[/]: {type(error).__name__}: {escape(str(error))}", soft_wrap=True)
    err.print("[dim]hint[/]: this is an unexpected error; please report it with the command you ran", soft_wrap=True)
    return 1


def visible(name: str, width: int = 48) -> str:
    """A file name for a table cell: control characters escaped, a long name shortened in the middle."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return escape(text if len(text) <= width else f"{text[: width // 2 - 1]}…{text[-width // 2 :]}")


def going_on(status: BatchStatus, at: str = "") -> str | None:
    """What goes on with a batch that is not done, as a sentence with its command; `at`: options for the command."""
    batch, pending = status.name + at, counted(status.ledger.recordings.pending, "recording")
    match status.state:
        case BatchState.QUEUED | BatchState.RUNNING:
            return f"follow it: k2d status {batch} --watch; stop it: k2d cancel {batch}"
        case BatchState.STALLED:
            return f"{pending} missing; if nothing is at work on them: k2d resume" + at
        case BatchState.CANCELLED:
            return f"{pending} missing, as it was cancelled: k2d retry {batch}; what is done can be frozen"
    return None


def progress_line(status: BatchStatus) -> str:
    """How far a running batch is, how fast, and until when."""
    counts, jobs = status.ledger.recordings, status.jobs
    parts = [
        f"{status.state}: {counts.total - counts.pending:,} of {counted(counts.total, 'recording')}",
        f"{audio_length(status.ledger.seconds.input)} done",
    ]
    if jobs is not None:
        parts.append(f"{audio_length(jobs.seconds_in_flight)} in flight")
        parts += [f"{jobs.times_real_time:,.1f} × real time"] if jobs.times_real_time else []
    parts += [f"{estimated_time(status.eta_s)} left"] if status.eta_s is not None else []
    return ", ".join(parts)


def processes_lines(status: BatchStatus) -> list[str]:
    """Who is at work on a batch without a job in the queue."""
    return [
        f"{status.state} in another process: pid {own.pid} on host {own.host} ({own.command}), since {own.since}"
        for own in status.processes
    ]


def options_lines(status: BatchStatus) -> list[str]:
    """What a batch is labeled with, in two lines: models and language; then the options of `k2d label`, and terms."""
    lines = [f"teacher {status.teacher}, validator {status.validator}, language {status.language}"]
    if (options := status.options) is not None:
        values = [f"{name} {_value(value)}" for name, value in options]
        terms = f"terms {', '.join(status.terms[:TERMS_SHOWN])}" if status.terms else "no terms"
        more = len(status.terms) - TERMS_SHOWN
        lines.append("; ".join([", ".join(values), terms + (f" and {more:,} more" if more > 0 else "")]))
    return lines


def _value(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def forecast_line(forecast: Forecast) -> str:
    """Length of all, windows of what is new, and time of an estimate; no time where none can be estimated."""
    time = "" if forecast.estimated_s is None else f": {estimated_time(forecast.estimated_s)}"
    windows = f", about {counted(forecast.windows, 'window')}" if forecast.windows else ""
    return f"{audio_length(forecast.hours * 3600)} of audio{windows}{time}"


def known_lines(forecast: Forecast) -> list[str]:
    """How much of what an estimate is about is there already, and how much is new."""
    lines = []
    if forecast.done:
        lines.append(
            f"{counted(forecast.done, 'recording')}, {audio_length(forecast.done_hours * 3600)}, "
            f"{'is' if forecast.done == 1 else 'are'} done already with these models and options"
        )
    if forecast.labeled:
        lines.append(f"{counted(forecast.labeled, 'recording')} labeled by this teacher, to be validated only")
    if lines or forecast.at_most:
        unusable = len(forecast.not_audio) + len(forecast.no_channel)
        new = forecast.recordings - unusable - forecast.done - forecast.labeled
        at_most = "at most, as some files were never read here" if forecast.at_most else ""
        lines.append(f"{counted(new, 'recording')} new{', ' if at_most else ''}{at_most}")
    return lines


def ledger_table(ledger: Ledger) -> Table:
    """The outcome of every second of a batch; the rows add up to the last."""
    table = Table(
        title=f"Ledger of batch {escape(ledger.name)} (policy: {escape(ledger.policy)})",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for column, justify in (("", "left"), ("seconds", "right"), ("share", "right"), ("", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    seconds, chunks, recordings = ledger.seconds, ledger.chunks, ledger.recordings
    has_salvaged = chunks.salvaged > 0
    rows = (
        ("accepted", seconds.accepted, counted(chunks.accepted, "chunk")),
        ("salvaged", seconds.salvaged, f"good segments of {counted(chunks.salvaged, 'other chunk')}" * has_salvaged),
        ("rejected", seconds.rejected, counted(chunks.rejected, "chunk") + ", parts of others" * has_salvaged),
        ("quarantined", seconds.quarantined, counted(recordings.quarantined, "recording")),
        ("no label", seconds.silence, no_label_in_words(ledger.no_label)),
    )
    for name, value, count in rows:
        table.add_row(
            name, f"{value:.1f}", _percent(value, seconds.input), count, style=VERDICT_STYLES.get(name, "dim")
        )
    table.add_section()
    count = counted(recordings.total - recordings.pending, "recording")
    if recordings.unknown_length:
        count += f", {recordings.unknown_length:,} of unknown length"
    table.add_row("in", f"{seconds.input:.1f}", _percent(seconds.input, seconds.input), count)
    if recordings.pending:
        table.add_row("not done", "?", "", counted(recordings.pending, "recording"), style="dim")
    if recordings.duplicates:
        table.caption = f"{counted(recordings.duplicates, 'duplicate')} counted here; a dataset leaves duplicates out"
        table.caption_justify = "left"
    return table


def no_label_in_words(no_label: NoLabelSeconds) -> str:
    """How what has no label sounds: "pauses 9.1, sound 24.0"."""
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in no_label if round(seconds, 1) > 0)


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def versions_in_words(rows: Iterable[DatasetVersions | VersionCount]) -> str:
    """Which versions of k2d labeled and validated how many recordings."""
    return "; ".join(
        f"{counted(row.recordings, 'recording')} {Versions(row.label, row.facts, row.labeled_by, row.validated_by)}"
        for row in rows
    )


def chunk_table(rows: Iterable[ChunkRow], metric: Metric = Metric.EVIDENCE) -> Table:
    """Chunks with label, hypothesis, the policy's metric, verdict and reason; readable at 80 columns."""
    table = Table(
        title="Chunks: the label, and below it the validator's hypothesis (details: k2d chunks --id ID)",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("text", ratio=1, overflow="fold")
    table.add_column(SHORT_NAMES[metric], justify="right")
    table.add_column("verdict", min_width=14)
    for row in rows:
        style = VERDICT_STYLES[row.verdict]
        # the whole name: --recording takes it, and its end may be another recording's
        place = f"{visible(row.recording, MAX_NAME)} {row.start_s:.1f}–{row.end_s:.1f} s"
        salvaged = f"\n[yellow]{row.salvaged_s:.1f} s salvaged[/]" if row.salvaged_s else ""
        distance = row.distances[metric]
        table.add_row(
            f"[bold]{place}[/]\n{_text(row.teacher_text)}\n[dim]{_text(row.validator_texts[0])}\n{row.id}[/]",
            "–" if distance is None else f"{distance:.2f}",
            f"[{style}]{row.verdict}[/]\n[dim]{_words(row.reason)}[/]{salvaged}",
        )
        table.add_section()
    return table


def chunk(detail: ChunkDetail) -> None:
    """Print everything about a chunk: verdict and reason, each hypothesis beside the label, each segment's verdict."""
    style = VERDICT_STYLES[detail.verdict]
    out.print(f"chunk [bold]{detail.id}[/], {detail.start_s:.2f}–{detail.end_s:.2f} s", soft_wrap=True)
    if detail.recording is not None:
        place = f"recording {visible(detail.recording, MAX_NAME)}, batch {escape(detail.batch or '')}"
        out.print(place, soft_wrap=True)
    out.print(f"[{style}]{detail.verdict}[/] ({_words(detail.reason)}) by policy {escape(detail.policy)}")
    risk = detail.distances[Metric.EVIDENCE]
    if detail.contributions and risk is not None:
        out.print(f"risk {risk:.2f}: log-odds {_sum(detail.contributions)}")
    out.print(f"\n{escape(detail.teacher_text) or '(nothing)'}")
    for hypothesis in detail.hypotheses:
        out.print(
            f"\n[dim]{escape(hypothesis.validator)}, {escape(hypothesis.perturbation)}"
            + (f", log-probability {hypothesis.avg_logprob:.2f}[/]" if hypothesis.avg_logprob else "[/]")
        )
        out.print(_diff(hypothesis.diff) or escape(hypothesis.text) or "(nothing)")
    table = Table(title="\nSegments", title_justify="left", box=SIMPLE_HEAD)
    for name in ("", "s", "text", "risk", "verdict"):
        table.add_column(name, justify="right" if name in ("", "risk") else "left", overflow="fold")
    for number, segment in enumerate(detail.segments):
        verdict = "salvaged" if segment.salvaged else segment.verdict
        table.add_row(
            str(number),
            f"{segment.start_s:.2f}–{segment.end_s:.2f}",
            _text(segment.text.strip()),
            "" if segment.risk is None else f"{segment.risk:.2f}",
            "" if verdict is None else f"[{VERDICT_STYLES[verdict]}]{verdict}[/]\n[dim]{_words(segment.reason)}[/]",
        )
    out.print(table)
    out.print(f"[dim]{escape(detail.explanation)}[/]")


def _sum(contributions: dict[str, float]) -> str:
    """A sum of named terms: "-4.00 bias + 3.10 disagreement"."""
    terms = [f"{value:.2f} {name}" for name, value in contributions.items()]
    return " + ".join(terms)


def _diff(steps: Iterable[DiffStep]) -> str:
    """A word diff as git's, of label and hypothesis: [-only in the label-] and {+only in the hypothesis+}."""
    parts = []
    for step in steps:
        if step.op is DiffOp.EQUAL:
            parts.append(escape(step.teacher_text))
            continue
        if step.teacher_text:
            parts.append(f"[red]\\[-{escape(step.teacher_text)}-][/]")
        if step.validator_text:
            parts.append(f"[green]{{+{escape(step.validator_text)}+}}[/]")
    return "".join(parts)


def _words(code: str | None) -> str:
    return (code or "").replace("_", " ")


def _text(text: str, width: int = 70) -> str:
    return escape(text if len(text) <= width else text[: width - 1] + "…") or "(nothing)"


def quarantine_table(rows: Iterable[QuarantinedRecording]) -> Table:
    """Quarantined recordings, and why."""
    table = Table(title="Quarantined recordings", title_justify="left", box=SIMPLE_HEAD)
    for column in ("recording", "reason", "detail"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(visible(row.recording, MAX_NAME), row.reason, escape(row.detail or ""))
    return table


def notes_table(rows: Iterable[RecordingNotes]) -> Table:
    """What was decided about recordings' tracks, channels and clocks."""
    table = Table(title="Decided about recordings", title_justify="left", box=SIMPLE_HEAD)
    for column in ("recording", "note"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(visible(row.recording), escape("\n".join(row.notes)))
    return table


def curve_table(curves: Mapping[Metric, Sequence[CurvePoint]], total_s: float) -> Table:
    """Share of seconds kept, by α and metric: of whole chunks, and + salvaged from others."""
    table = Table(
        title=f"Share of {total_s:.1f} s of chunks kept, by α; + salvaged",
        title_justify="left",
        box=SIMPLE_HEAD,
        caption="MER, PER, composite: disagreement of label and hypothesis, not an error against what was said",
        caption_justify="left",
    )
    table.add_column("α", justify="right")
    for metric in curves:
        table.add_column(SHORT_NAMES[metric], justify="right")
    for points in zip(*curves.values(), strict=True):
        table.add_row(f"{points[0].alpha:.2f}", *(_share(point, total_s) for point in points))
    return table


def _share(point: CurvePoint, total_s: float) -> str:
    salvaged = f" +{_percent(point.salvaged, total_s)}" if point.salvaged else ""
    return _percent(point.seconds, total_s) + salvaged
