"""The FastAPI host of a teacher or validator: thin; the work is the micro-batcher's and the engine's."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import generate_latest

import k2d
from k2d.logs import setup as setup_logs
from k2d.settings import Settings, load
from services.inference import batch_metrics, transcriptions, windows
from services.inference.host import Host
from services.inference.windows import ClientGone, InHost
from services.web import problems
from services.web.limits import BearerToken, BodyLimit
from services.web.timing import REGISTRY, Timed

CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody reads this answer, but the metrics count it

DESCRIPTION = """
A Whisper model behind a micro-batcher: windows of many recordings and clients meet in one engine call.
Errors are problem documents (RFC 9457); 503 says in `Retry-After` when to ask again.
"""

operations = APIRouter(tags=["operations"])


@operations.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok", "version": k2d.__version__}


@operations.get("/readyz", summary="The model has heard its golden clips", responses=problems.responses(503))
async def readyz(host: InHost) -> dict[str, object]:
    return {"status": "ok", "version": k2d.__version__, **host.describe()}


@operations.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    host: Host = request.app.state.host
    batch_metrics.LOADED.set(host.loaded)
    batch_metrics.WAITING.set(host.waiting)
    return Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4")


def create_app(role: str, settings: Settings | None = None, on_failure: Callable[[], None] = lambda: None) -> FastAPI:
    """Build the server of one role, "teacher" or "validator".

    `on_failure` is called when the model cannot be loaded or hears nothing.

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

    app = FastAPI(title=f"k2d {role}", version=k2d.__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.host = host
    app.state.settings = settings
    app.include_router(windows.router)
    app.include_router(transcriptions.router)
    app.include_router(operations)
    problems.install(app)

    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    if settings.api_token is not None:
        app.add_middleware(BearerToken, token=settings.api_token.get_secret_value())
    app.add_middleware(Timed)
    return app
