"""`k2d audit`: which speech does a policy leave out?"""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from k2d.cli import show
from k2d.cli.base import (
    DEFAULT_POLICY,
    LOOKING,
    AlphaOption,
    Api,
    Json,
    MetricOption,
    PolicyName,
    app,
    client_of,
    policy,
    settings,
)
from k2d.cli.progress import bar
from k2d.documents import AuditRequest
from k2d.errors import BadRequest
from k2d.wording import audio_length, counted

if TYPE_CHECKING:
    from k2d.corpus.audit import Audit


@app.command(rich_help_panel=LOOKING)
def audit(
    batch: Annotated[list[str], typer.Argument(help="Batch ids or names.")],
    preset: PolicyName = DEFAULT_POLICY,
    metric: MetricOption = None,
    alpha: AlphaOption = None,
    confidence: Annotated[
        float, typer.Option(help="Confidence level of the bands, and of all warnings together.")
    ] = 0.95,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Show what share of the speech a policy keeps, by code mixing, language, duration and source folder.

    Warns if code-switched speech is removed faster than the rest, by a statistical test over recordings. Warnings
    do not change the exit status. Reads the store (K2D_STORE), or asks an API (--api).
    """
    from k2d.corpus.audit import Audit
    from k2d.corpus.audit import audit as make_report
    from k2d.store import Lake

    if not 0.5 <= confidence < 1:
        raise BadRequest(f"confidence must be at least 0.5 and below 1, not {confidence}", hint="0.95 is usual")
    rules = policy(preset, metric, alpha)
    if api is not None:
        request = AuditRequest(batches=list(dict.fromkeys(batch)), policy=rules, confidence=confidence)
        report = Audit.of(client_of(api).audit(request))
    else:
        lake = Lake(settings().store)
        batches = [lake.batches.get(name) for name in dict.fromkeys(batch)]
        with bar("parts of batches") as on_steps:
            report = make_report(lake, batches, rules, confidence=confidence, on_steps=on_steps)
    if as_json:
        show.dump(report.document())
        return
    show.out.print(_table(report))
    if report.sources_left_out:
        show.out.print(f"not shown: {counted(report.sources_left_out, 'smaller source')}", style="dim")
    for warning in report.warnings:
        show.out.print(f"[bold yellow]warning[/]: {escape(warning)}", soft_wrap=True)
    if not report.warnings:
        show.out.print("no sign that code-switched speech is removed faster than the rest")


def _table(report: "Audit") -> Table:
    table = Table(
        title=f"Policy {escape(report.policy)} keeps {report.share:.1%} of {audio_length(report.seconds)} in "
        f"{counted(report.recordings, 'recording')}; bands: {report.confidence:.0%}, by recording",
        title_justify="left",
    )
    table.add_column("group", overflow="fold")
    for column in ("length", "chunks", "seconds kept", "chunks kept", "behind the rest"):
        table.add_column(column, justify="right")
    before = None
    for group in report.groups:
        if group.by != before:
            table.add_section()
            table.add_row(f"[bold]{group.by}[/]")
            before = group.by
        table.add_row(
            f"  {show.visible(group.name)}",
            audio_length(group.seconds),
            str(group.chunks),
            f"{group.share:.0%} [dim]{_band(group.share_band)}[/]",
            f"{group.chunk_share:.0%} [dim]{_band(group.chunk_share_band)}[/]",
            "" if group.behind is None else f"{100 * group.behind:+.1f} [dim]{_points(group.behind_band)}[/]",
        )
    return table


def _band(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.0f}–{100 * ends[1]:.0f}"


def _points(ends: tuple[float, float] | None) -> str:
    return "(too few recordings)" if ends is None else f"{100 * ends[0]:+.1f}…{100 * ends[1]:+.1f}"
