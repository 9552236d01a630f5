"""The labeling API: routers over one lake and one queue. It keeps no state of its own: any number of them may run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI

import k2d
from k2d.logs import setup as setup_logs
from k2d.settings import Settings, load
from k2d.store import Lake
from services.filter import batches, chunks, datasets, health, policies, reviews, sources_api, validators
from services.filter.console import app as console
from services.filter.console.page import refused_page
from services.filter.endpoints import ENDPOINTS
from services.filter.events import BatchFeeds
from services.filter.queue import WorkQueue
from services.web import middleware

log = structlog.get_logger()

DESCRIPTION: Final = """
POST audio: a teacher labels it, validators check the labels, and a dataset is frozen from what a policy keeps.
Errors are problem documents (RFC 9457) with a stable `code` and, where there is one, a `hint`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the API.

        uvicorn.run(create_app(load(store="s3://bucket/k2d")), port=8080)

    Raises:
        BadRequest: a setting is unknown or impossible.
    """
    settings = settings or load()
    setup_logs(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        log.info("labeling API started", store=settings.store, allowed_sources=settings.allowed_sources)
        yield

    app = FastAPI(
        title="k2d labeling API",
        version=k2d.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # services.web.docs
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.lake = Lake(settings.store)
    app.state.queue = WorkQueue(settings)
    app.state.feeds = BatchFeeds(lambda batch: batches.batch_status(batch, app.state.lake, app.state.queue))
    app.state.is_ready = health.readiness(app.state.lake, app.state.queue)
    app.state.exposition = health.metrics_call(app.state.queue)
    routers = (
        batches.router,
        sources_api.router,
        chunks.router,
        policies.router,
        validators.router,
        datasets.router,
        reviews.router,
        health.router,
    )
    for router in routers:
        app.include_router(router)
    console.install(app)
    middleware.install(app, settings, ENDPOINTS, refused_page)
    return app
