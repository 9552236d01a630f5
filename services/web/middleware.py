"""Puts error handlers, limits, access control, checks of Host and Origin, and request metrics around an app.

The same ones for every HTTP host.
"""

from collections.abc import Callable, Mapping

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Scope

from k2d.settings import Settings
from services.web import docs, openapi, problems
from services.web.access import AccessControl, Authenticator, EndpointAccess, FailedAttempts
from services.web.limits import BodyLimit
from services.web.origins import OriginCheck, SecurityHeaders
from services.web.request_metrics import RequestMetrics
from services.web.slow_bodies import SlowBodies


def install(
    app: FastAPI,
    settings: Settings,
    endpoints: Mapping[str, EndpointAccess],
    refused_page: Callable[[Scope, Response], Response] | None = None,
) -> None:
    """Add to `app` what every host has. What is added last is outermost: metrics count refusals too.

    `refused_page` makes pages of refusals, and for browsers of what is not there; app.state.authenticator is for
    whoever lets people sign in.

        app = FastAPI()
        install(app, load(), {"GET /v1/batches": EndpointAccess(AccessRole.VIEWER)})

    Raises:
        BadRequest, StoreError: as `Authenticator`.
    """
    problems.install(app, endpoints, refused_page)
    docs.install(app)
    openapi.install(app, endpoints)
    authenticator = app.state.authenticator = Authenticator(settings)
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    app.add_middleware(
        AccessControl,
        authenticator=authenticator,
        endpoints=endpoints,
        attempts=FailedAttempts(),
        refused_page=refused_page,
    )
    app.add_middleware(OriginCheck, allowed=settings.allowed_hosts, needs_key=authenticator.is_required)
    app.add_middleware(SlowBodies)
    app.add_middleware(problems.UnexpectedErrors, page_of=refused_page)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics)
