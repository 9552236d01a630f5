"""Puts error handlers, limits, the token and request metrics around an app: the same ones for every HTTP host."""

from fastapi import FastAPI

from k2d.settings import Settings
from services.web import problems
from services.web.limits import BearerToken, BodyLimit
from services.web.request_metrics import RequestMetrics


def install(app: FastAPI, settings: Settings) -> None:
    """Add to `app` what every host has. What is added last is outermost: metrics count refusals too.

    app = FastAPI()
    install(app, load())
    """
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    if settings.api_token is not None:
        app.add_middleware(BearerToken, token=settings.api_token.get_secret_value())
    app.add_middleware(problems.UnexpectedErrors)
    app.add_middleware(RequestMetrics)
