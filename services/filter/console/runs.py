"""Pages of published training runs: curves while they go on, evaluations, and teacher and student on one clip."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from k2d.errors import DamagedFile
from k2d.filtering.distance import Diff, aligned_diff
from k2d.store import Lake
from k2d.store.runs import EvaluatedLine, PublishedRun, RunEvaluation, evaluation_key
from services.filter.chunks import RangeHeader, ranged
from services.filter.console.page import PageRoute, render
from services.filter.context import InLake

router = APIRouter(include_in_schema=False, route_class=PageRoute)

LINES: Final = 10  # utterances of an evaluation on a page
SILENT_S: Final = 300.0  # a running run without news for so long, and 20 steps, has perhaps died
SILENT_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class ShownLine:
    """An utterance with each model's differences from the reference."""

    number: int
    line: EvaluatedLine
    diffs: tuple[tuple[Diff, ...], ...]


@router.get("/runs")
def runs_page(request: Request, lake: InLake) -> Response:
    runs = lake.runs.all()
    return render(
        request,
        "runs.html",
        runs=[run for run in runs if isinstance(run, PublishedRun)],
        damaged=[run for run in runs if not isinstance(run, PublishedRun)],
        is_silent=is_silent,
    )


@router.get("/runs/{name}")
def run_page(
    request: Request, name: str, lake: InLake, set: str | None = None, start: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """A run; `set` is the key of the evaluation whose utterances are shown, from number `start` on."""
    run = lake.runs.record(name)
    evaluations, error = _evaluations(lake, name)
    keys = [evaluation_key(evaluation.name) for evaluation in evaluations]
    place = keys.index(set) if set in keys else 0
    shown = evaluations[place] if evaluations else None
    return render(
        request,
        "run.html",
        run=run,
        is_silent=is_silent(run),
        left_s=left_s(run),
        evaluations=list(zip(keys, evaluations, strict=True)),
        evaluations_error=error,
        shown=shown,
        key=keys[place] if keys else None,
        lines=[_line(shown, number) for number in range(start, min(start + LINES, len(shown.lines)))] if shown else [],
        start=start,
        page=LINES,
    )


@router.get("/runs/{name}/state")
def run_state(request: Request, name: str, lake: InLake) -> Response:
    """The part of the page that changes while the run goes on."""
    run = lake.runs.record(name)
    return render(request, "run_state.html", run=run, is_silent=is_silent(run), left_s=left_s(run))


@router.get("/runs/{name}/curves")
def curves(name: str, lake: InLake) -> JSONResponse:
    run = lake.runs.record(name)
    return JSONResponse({"state": run.state, "steps": run.steps, **lake.runs.curves(name).model_dump(mode="json")})


@router.get("/runs/{name}/evaluations/{key}/clips/{line}")
def clip(name: str, key: str, line: int, lake: InLake, range_: RangeHeader = None) -> Response:
    """The audio of an utterance; it is replaced with its evaluation, so nothing is kept for long."""
    response = ranged(lake.runs.clip(name, key, line), range_)
    response.headers["Cache-Control"] = "private, max-age=600"
    return response


def is_silent(run: PublishedRun) -> bool:
    """Whether a run says that it goes on, and has said nothing for long: its process was perhaps killed."""
    if run.state != "running":
        return False
    try:
        updated_at = datetime.fromisoformat(run.updated_at)
    except ValueError:
        return True
    silence_s = (datetime.now(UTC) - updated_at).total_seconds()
    return silence_s > max(SILENT_S, SILENT_STEPS * (run.step_s or 0.0))


def left_s(run: PublishedRun) -> float | None:
    """Seconds until the last step, at the pace of the latest ones; validations not counted."""
    return (run.steps - run.step) * run.step_s if run.state == "running" and run.step_s else None


def _evaluations(lake: Lake, name: str) -> tuple[list[RunEvaluation], str | None]:
    try:
        return lake.runs.evaluations(name), None
    except DamagedFile as error:  # the curves are still worth seeing
        return [], error.message


def _line(evaluation: RunEvaluation, number: int) -> ShownLine:
    line = evaluation.lines[number]
    return ShownLine(number, line, tuple(aligned_diff(text, line.reference) for text in line.hypotheses))
