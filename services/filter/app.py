"""The labeling API: a thin host. Everything it knows is in the lake; everything it starts is in the queue."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

import k2d
from k2d.logs import setup as setup_logs
from k2d.settings import Settings, load
from k2d.store import Lake
from services.filter import batches, chunks, datasets, health, policies
from services.filter.queue import WorkQueue
from services.web import problems
from services.web.limits import BearerToken, BodyLimit
from services.web.timing import Timed

log = structlog.get_logger()

DESCRIPTION = """
POST audio, get it labeled by a teacher, doubted by a validator, filtered, and frozen into a dataset.
Errors are problem documents (RFC 9457) with a stable `code` and, where there is one, a `hint`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the API over one lake and one queue.

    Raises:
        BadRequest: a setting is unknown or impossible.
    """
    settings = settings or load()
    setup_logs(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log.info("labeling API started", store=settings.store, allowed_sources=settings.allowed_sources)
        yield

    app = FastAPI(title="k2d labeling API", version=k2d.__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.settings = settings
    app.state.lake = Lake(settings.store)
    app.state.queue = WorkQueue(settings)
    for router in (batches.router, chunks.router, policies.router, datasets.router, health.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    if settings.api_token is not None:
        app.add_middleware(BearerToken, token=settings.api_token.get_secret_value())
    app.add_middleware(Timed)
    return app
