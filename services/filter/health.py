"""Liveness, readiness and metrics. They wait for nothing that a client can make slow: their threads are their own."""

import asyncio
from typing import Final, cast

from fastapi import APIRouter, Request, Response

import k2d
from k2d.documents import Health
from k2d.errors import StoreError
from k2d.store import Lake
from services.filter.queue import WorkQueue
from services.filter.queue_metrics import exposition
from services.web.pools import HEALTH, SharedCall
from services.web.problems import responses

router = APIRouter(tags=["operations"])

READY_S: Final = 10.0  # for the store and Redis to answer


def readiness(lake: Lake, queue: WorkQueue) -> tuple[SharedCall, SharedCall]:
    """The checks of /readyz; however many ask at once, each runs once."""
    return SharedCall(HEALTH, lake.check), SharedCall(HEALTH, queue.check)


def metrics_call(queue: WorkQueue) -> SharedCall:
    """The text of /metrics, as `readiness`."""
    return SharedCall(HEALTH, lambda: exposition(queue))


@router.get("/healthz", summary="The process answers")
async def healthz() -> Health:
    return Health(version=k2d.__version__)


@router.get("/readyz", summary="The lake can be written and Redis takes jobs", responses=responses(503))
async def readyz(request: Request) -> Health:
    checks = cast(tuple[SharedCall, SharedCall], request.app.state.is_ready)
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.gather(*(check() for check in checks))
    except TimeoutError:
        hint = "is its disk, its network or Redis stuck?"
        raise StoreError(f"store and queue did not answer within {READY_S:.0f} s", hint=hint) from None
    return Health(version=k2d.__version__)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    text = await cast(SharedCall, request.app.state.exposition)()
    return Response(cast(bytes, text), media_type="text/plain; version=0.0.4")
