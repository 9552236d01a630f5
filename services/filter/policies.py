"""Policies: the presets, and a preview of what a policy would keep, from stored evidence; no model runs."""

from fastapi import APIRouter

from k2d.corpus import views
from k2d.corpus.audit import Audit, audit
from k2d.documents import AuditRequest, PolicyItem, Preview, PreviewRequest
from k2d.filtering.policy import PRESETS, explain
from services.filter.context import InLake, InQueue
from services.filter.index_jobs import require_index
from services.web.problems import EVERYWHERE, responses

router = APIRouter(prefix="/v1/policies", tags=["policies"], responses=EVERYWHERE)


@router.get("", summary="The presets, in plain language")
def list_policies() -> list[PolicyItem]:
    return [PolicyItem(policy=policy, explanation=explain(policy)) for policy in PRESETS.values()]


@router.post("/preview", summary="What a policy would keep, and the curve over α", responses=responses(404))
def preview(body: PreviewRequest, lake: InLake, queue: InQueue) -> Preview:
    batches = [lake.batches.get(name) for name in dict.fromkeys(body.batches)]
    require_index(batches, lake, queue)
    return views.preview(lake, batches, body.policy, metrics=body.curve)


@router.post("/audit", summary="What share of which speech a policy keeps, with warnings", responses=responses(404))
def audit_policy(body: AuditRequest, lake: InLake, queue: InQueue) -> Audit:
    batches = [lake.batches.get(name) for name in dict.fromkeys(body.batches)]
    require_index(batches, lake, queue)
    return audit(lake, batches, body.policy, confidence=body.confidence)
