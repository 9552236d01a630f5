"""Liveness, readiness and metrics."""

import asyncio

from fastapi import APIRouter, Response

import k2d
from k2d.documents import Health
from services.filter.context import InLake, InQueue
from services.filter.queue_metrics import exposition
from services.web.problems import responses

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="The process answers")
async def healthz() -> Health:
    return Health(version=k2d.__version__)


@router.get("/readyz", summary="The lake can be written and Redis takes jobs", responses=responses(503))
async def readyz(lake: InLake, queue: InQueue) -> Health:
    await asyncio.gather(asyncio.to_thread(lake.check), asyncio.to_thread(queue.check))
    return Health(version=k2d.__version__)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(queue: InQueue) -> Response:
    return Response(exposition(queue), media_type="text/plain; version=0.0.4")
