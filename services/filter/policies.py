"""Policies: the presets, and a preview of what a policy would keep, from stored evidence; no model runs."""

from fastapi import APIRouter

from k2d.corpus import views
from k2d.corpus.audit import Audit, audit
from k2d.documents import AuditRequest, PolicyItem, Preview, PreviewRequest
from k2d.filtering.policy import PRESETS, explain
from k2d.store import Lake
from services.filter.context import InLake, InQueue
from services.filter.index_jobs import require_index
from services.filter.queue import WorkQueue
from services.web.pools import PREVIEWS, QUESTIONS
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1/policies", tags=["policies"], responses=EVERYWHERE)


@router.get("", summary="The presets, in plain language")
def list_policies() -> list[PolicyItem]:
    return [PolicyItem(policy=policy, explanation=explain(policy)) for policy in PRESETS.values()]


@router.post("/preview", summary="What a policy would keep, and the curve over α", responses=responses(404))
async def preview(body: PreviewRequest, lake: InLake, queue: InQueue) -> Preview:
    return await PREVIEWS.run(_preview, body, lake, queue)


@router.post("/audit", summary="What share of which speech a policy keeps, with warnings", responses=responses(404))
async def audit_policy(body: AuditRequest, lake: InLake, queue: InQueue) -> Audit:
    return await QUESTIONS.run(_audit, body, lake, queue)


def _preview(body: PreviewRequest, lake: Lake, queue: WorkQueue) -> Preview:
    batches = [lake.batches.get(name) for name in dict.fromkeys(body.batches)]
    require_index(batches, lake, queue)
    return views.preview(lake, batches, body.policy, metrics=body.curve)


def _audit(body: AuditRequest, lake: Lake, queue: WorkQueue) -> Audit:
    batches = [lake.batches.get(name) for name in dict.fromkeys(body.batches)]
    require_index(batches, lake, queue)
    return audit(lake, batches, body.policy, confidence=body.confidence)
