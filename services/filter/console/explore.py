"""The explorer of batches: what each α keeps, by which measure, of which speech, and which chunks that is."""

import asyncio
import csv
import io
from collections.abc import Iterator
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from k2d.corpus.audit import warned
from k2d.corpus.boundary import Side, flips, nearest
from k2d.corpus.explore import GRID, AlphaCurve, Explorer
from k2d.corpus.tables import cell
from k2d.documents import DatasetRequest
from k2d.errors import BadRequest
from k2d.filtering.distance import aligned_diff
from k2d.filtering.policy import METRICS, PRESETS, RULES, SHORT_NAMES, Policy, explain, switches
from k2d.schema import Batch, Metric, Script
from k2d.store import Lake
from services.filter.console.asked import (
    AskedPolicy,
    Parameters,
    as_value,
    asked_policy,
    choice,
    link,
    not_one_of,
    other_policy,
    text_of,
)
from services.filter.console.page import PageRoute, render, words_of
from services.filter.context import InLake, InQueue
from services.filter.datasets import create_dataset
from services.filter.index_jobs import require_index
from services.filter.queue import WorkQueue

router = APIRouter(prefix="/batches/{batch}/explore", include_in_schema=False, route_class=PageRoute)

NEAREST: Final = 10  # chunks on each side of α
FLIPS: Final = 20  # on a page
PANELS: Final = ("boundary", "yield", "flips")
THINNED: Final = slice(None, None, 5)  # of GRID: for curves that are drawn and not read, and for files
MOST_BATCHES: Final = 100


def explorer_of(request: Request) -> Explorer:
    """The explorer of this process, which remembers what it computed."""
    return cast(Explorer, request.app.state.explorer)


InExplorer = Annotated[Explorer, Depends(explorer_of)]


@router.get("")
def page(request: Request, batch: str, lake: InLake) -> Response:
    query = request.query_params
    asked, batches = asked_policy(query), _batches(lake, batch, query)
    return render(
        request,
        "explore.html",
        batch=batches[0],
        others=batches[1:],
        asked=asked,
        policy=asked.policy,
        presets=PRESETS,
        metrics=_metrics(asked.base),
        short_names=SHORT_NAMES,
        rules=[(reason, RULES[reason].is_on(asked.policy)) for reason in switches()],
        rival=other_policy(query),
        other_value=as_value(other_policy(query)),
        other_alpha=text_of(query, "other_alpha"),
        show=_panel(query),
        side=choice(query, "side", Side) or Side.BOTH,
        explanation=explain(asked.policy),
        scripts=list(Script),
        name=text_of(query, "name"),
    )


@router.get("/panel")
def panel(request: Request, batch: str, lake: InLake, queue: InQueue, explorer: InExplorer) -> Response:
    """One of the parts below the curve, by `show`."""
    query = request.query_params
    asked, batches = asked_policy(query), _indexed(lake, queue, batch, query)
    common: dict[str, Any] = {
        "batch": batches[0],
        "policy": asked.policy,
        "metric": SHORT_NAMES[asked.policy.metric],
        "diff": aligned_diff,
        "chunk_query": _chunk_query(query, batches[0], asked),
    }
    show = _panel(query)
    if show == "yield":
        report = explorer.audit(batches, asked.policy)
        return render(request, "explore_yield.html", audit=report, warned=warned(report), **common)
    if show == "flips":
        other = other_policy(query)
        side = choice(query, "side", Side) or Side.BOTH
        cursor = text_of(query, "cursor") or None
        found = flips(explorer, batches, asked.policy, other, side=side, limit=FLIPS, cursor=cursor)
        more = link(query, cursor=found.next) if found.next else None
        return render(request, "explore_flips.html", flips=found, other=other, more=more, cursor=cursor, **common)
    found_near = nearest(explorer, batches, asked.policy, each=NEAREST)
    return render(request, "explore_boundary.html", boundary=found_near, **common)


@router.get("/curve.json")
def curve(request: Request, batch: str, lake: InLake, queue: InQueue, explorer: InExplorer) -> Response:
    """What the policy's rules keep at each thousandth of α, so that moving α needs no request."""
    asked = asked_policy(request.query_params)
    found = explorer.curve(explorer.parts(_indexed(lake, queue, batch, request.query_params)), asked.policy)
    return JSONResponse(
        {
            "chunks": found.chunks,
            "ms": found.ms,
            "kept": found.kept.tolist(),
            "kept_ms": found.kept_ms.tolist(),
            "salvaged_ms": found.salvaged_ms.tolist(),
            "sample": round(found.sample, 4),
            "rules": {reason: [count.chunks, count.ms] for reason, count in found.rules.items()},
            "explanation": explain(asked.policy),
        },
        headers={"Cache-Control": "no-store"},
    )


@router.get("/measures.json")
def measures(request: Request, batch: str, lake: InLake, queue: InQueue, explorer: InExplorer) -> Response:
    """The curves to compare with: of each preset, and of each measure under the policy's other rules."""
    batches, asked = _indexed(lake, queue, batch, request.query_params), asked_policy(request.query_params)
    words = words_of(request.scope, request.headers, request.cookies)
    series = [
        {
            "label": words(label) if kind == "measure" else label,
            "kind": kind,
            "ms": (found.kept_ms + found.salvaged_ms)[THINNED].tolist(),
        }
        for kind, label, found in _series(explorer, batches, asked)
        if kind != "policy"
    ]
    return JSONResponse({"series": series}, headers={"Cache-Control": "no-store"})


@router.get("/curve.csv")
def curve_file(request: Request, batch: str, lake: InLake, queue: InQueue, explorer: InExplorer) -> Response:
    batches, asked = _indexed(lake, queue, batch, request.query_params), asked_policy(request.query_params)
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(("kind", "name", "alpha", "chunks_kept", "hours_kept", "hours_salvaged", "hours_total"))
    for kind, label, found in _series(explorer, batches, asked):
        for at in range(0, len(GRID), THINNED.step):
            hours = (ms / 3_600_000 for ms in (int(found.kept_ms[at]), int(found.salvaged_ms[at]), found.ms))
            kept, salvaged, total = (f"{value:.6f}" for value in hours)
            rows.writerow((kind, cell(label), f"{GRID[at]:.3f}", int(found.kept[at]), kept, salvaged, total))
    headers = {"Content-Disposition": f'attachment; filename="curve-{batches[0].id}.csv"', "Cache-Control": "no-store"}
    return Response(out.getvalue().encode("utf-8-sig"), media_type="text/csv", headers=headers)  # a BOM for Excel


@router.post("/freeze")
async def freeze(request: Request, batch: str, lake: InLake, queue: InQueue) -> Response:
    """Freeze what the policy of the form keeps, as POST /v1/datasets does."""
    form: Parameters = await request.form(max_files=0)
    return await asyncio.to_thread(_freeze, request, batch, form, lake, queue)


def _freeze(request: Request, batch: str, form: Parameters, lake: Lake, queue: WorkQueue) -> Response:
    asked, batches = asked_policy(form), _batches(lake, batch, form)
    name = text_of(form, "name")
    if not name:
        hint = "up to 100 letters, digits, '.', '_' and '-'"
        raise BadRequest("the dataset has no name", hint=hint, parameter="name")
    body = DatasetRequest(
        name=name,
        batches=[one.id for one in batches],
        policy=asked.policy,
        script=choice(form, "script", Script) or Script.AS_HEARD,
        gold=bool(form.get("gold")),
        allow_mixed=bool(form.get("allow_mixed")),
    )
    answer = Response()
    state = create_dataset(body, lake, queue, answer)
    frozen = render(request, "explore_frozen.html", dataset=state)
    frozen.headers["Location"] = answer.headers["Location"]  # for the audit log
    return frozen


def _batches(lake: Lake, batch: str, parameters: Parameters) -> list[Batch]:
    names = dict.fromkeys([batch, *(name for name in parameters.getlist("batch") if name)])
    if len(names) > MOST_BATCHES:
        raise BadRequest(f"{len(names)} batches are too many; {MOST_BATCHES} can be explored at once")
    found = [lake.batches.get(name) for name in names]
    return list({one.id: one for one in found}.values())


def _indexed(lake: Lake, queue: WorkQueue, batch: str, parameters: Parameters) -> list[Batch]:
    """The batches of a query, whose index a request can read.

    Raises:
        IndexIncomplete: workers must make it first.
    """
    batches = _batches(lake, batch, parameters)
    require_index(batches, lake, queue)
    return batches


def _panel(parameters: Parameters) -> str:
    show = text_of(parameters, "show") or PANELS[0]
    if show not in PANELS:
        raise not_one_of("show", show, PANELS)
    return show


def _metrics(policy: Policy) -> list[Metric]:
    return [metric for metric in Metric if metric in METRICS or policy.weights is not None]


def _series(explorer: Explorer, batches: list[Batch], asked: AskedPolicy) -> Iterator[tuple[str, str, AlphaCurve]]:
    """Each curve with its kind and name: the policy, the presets, the measures under the policy's other rules."""
    all_parts = explorer.parts(batches)  # once: parts of a batch in progress are read from its recordings' files
    yield "policy", asked.policy.name, explorer.curve(all_parts, asked.policy)
    for name, preset in PRESETS.items():
        yield "preset", name, explorer.curve(all_parts, preset)
    for metric in _metrics(asked.policy):
        if metric is not asked.policy.metric:
            yield "measure", SHORT_NAMES[metric], explorer.curve(all_parts, asked.policy.varied(metric=metric))


def _chunk_query(query: Parameters, batch: Batch, asked: AskedPolicy) -> str:
    """The query for links to chunks: the batch, and the policy with its α and rules."""
    kept = ("policy", "metric", "alpha", "rules", "on")
    leave = tuple({name for name in query if name not in kept})
    return link(query, leave=leave, batch=batch.id, policy=asked.value)
