"""`k2d store check`: find what is damaged in the store, and mend it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.markup import escape

from k2d.cli import show
from k2d.cli.base import STORING, Json, app, settings
from k2d.store import Lake
from k2d.store.audit_log import local_user
from k2d.store.check import DAMAGED_FOLDER, StoreFault, StoreReport
from k2d.store.check import check as check_store
from k2d.wording import counted

SHOWN: Final = 20  # findings of a kind in a list for people; chosen

store = typer.Typer(
    name="store",
    help="Check and mend the store (K2D_STORE) itself, not through the API.",
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(store, rich_help_panel=STORING)


@store.callback()
def options() -> None:
    """Options of all commands of the group."""


@store.command()
def check(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help=f"Mend what can be mended; what cannot be made again is moved to {DAMAGED_FOLDER}/."
        ),
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read documents and the ends of shards only, and hash nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find damaged and dangling files, leftovers, and shards whose digest differs.

    Reads the whole store. Workers and servers may go on. The exit status is 1 if something was found and not mended.
    """
    lake = Lake(settings().store)
    report = check_store(lake, repair=repair, read_contents=not fast)
    if repair and any(finding.mended for finding in report.findings):
        lake.audit_log.record("repair store", by=local_user(), target=settings().store, **report.counts())
    if as_json:
        findings = [asdict(finding) for finding in report.findings]
        show.dump({"clean": report.is_clean, "checked": report.checked, "counts": report.counts(), "found": findings})
    else:
        _print(report, repair=repair)
    if not report.is_clean:
        raise typer.Exit(1)


def _print(report: StoreReport, *, repair: bool) -> None:
    for kind in report.counts():
        _print_kind(kind, [finding for finding in report.findings if finding.kind == kind])
    files = counted(report.checked.total(), "file")
    mended = sum(finding.mended for finding in report.findings)
    if not report.findings:
        show.out.print(f"{files} checked: nothing is damaged")
        return
    show.out.print(f"{files} checked: {counted(len(report.findings), 'finding')}, {mended} mended", soft_wrap=True)
    if report.set_aside:
        show.out.print(f"{counted(report.set_aside, 'file')} moved to {DAMAGED_FOLDER}/ of the store", soft_wrap=True)
    if not repair and any(finding.can_mend for finding in report.findings):
        show.out.print("to mend what can be mended: k2d store check --repair")


def _print_kind(kind: str, findings: Sequence[StoreFault]) -> None:
    show.out.print(f"[bold]{kind}[/]: {len(findings):,}")
    for finding in findings[:SHOWN]:
        state = "[green]mended[/] " if finding.mended else ""
        show.out.print(f"  {state}{escape(finding.path)}: {escape(finding.problem)}", soft_wrap=True)
    if len(findings) > SHOWN:
        show.out.print(f"  and {len(findings) - SHOWN:,} more (--json lists them)")
    for when, to_do in dict.fromkeys((_when(finding), finding.to_do) for finding in findings if finding.to_do):
        show.out.print(f"  [dim]{when}[/]: {escape(to_do)}", soft_wrap=True)


def _when(finding: StoreFault) -> str:
    return "after the repair" if finding.can_mend and not finding.mended else "now"
