"""The FastAPI host of a teacher or validator: routers over one model."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import generate_latest

import k2d
from k2d.logs import setup as setup_logs
from k2d.settings import Settings, load
from services.inference import batch_metrics, transcriptions, windows
from services.inference.disconnect import ClientGone
from services.inference.endpoints import ENDPOINTS
from services.inference.host import Host, InHost
from services.web import middleware, problems
from services.web.request_metrics import REGISTRY

CLIENT_CLOSED_REQUEST: Final = 499  # nginx's status; the answer is not read, but the metrics count it

DESCRIPTION: Final = """
A Whisper model behind a micro-batcher: windows of many recordings and clients share engine calls.
Errors are problem documents (RFC 9457); 503 says in `Retry-After` when to ask again.
"""

operations = APIRouter(tags=["operations"])


@operations.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok", "version": k2d.__version__}


@operations.get("/readyz", summary="The model has transcribed its golden clips", responses=problems.responses(503))
async def readyz(host: InHost) -> dict[str, object]:
    return {"status": "ok", "version": k2d.__version__, **host.describe()}


@operations.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(host: InHost) -> Response:
    batch_metrics.LOADED.set(host.loaded)
    batch_metrics.WAITING.set(host.waiting)
    return Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4")


def create_app(role: str, settings: Settings | None = None, on_failure: Callable[[], None] = lambda: None) -> FastAPI:
    """Build the server of one role, "teacher" or "validator".

        uvicorn.run(create_app("teacher", load(teacher="openai/whisper-base")), port=8001)

    `on_failure` is called when the model cannot be loaded, or fails to transcribe the golden clips.

    Raises:
        BadRequest: a setting is unknown, or names no model for this role.
    """
    settings = settings or load()
    setup_logs(settings)
    host = Host(role, settings, on_failure)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        host.start()
        yield
        await host.stop()

    app = FastAPI(
        title=f"k2d {role}",
        version=k2d.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # services.web.docs
        redoc_url=None,
    )
    app.state.host = host
    app.state.settings = settings
    for router in (windows.router, transcriptions.router, operations):
        app.include_router(router)

    @app.exception_handler(ClientGone)
    async def handle_client_gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    middleware.install(app, settings, ENDPOINTS)
    return app
