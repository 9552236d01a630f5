"""Adds to a host's OpenAPI description what middleware may answer: every status of every endpoint is described."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI

from services.web.access import EndpointAccess
from services.web.problems import responses

# a foreign Host, a foreign Origin, a body that is too large
ANY_ENDPOINT: Final = (400, 403, 413)
# besides: no valid key, and a store whose keys cannot be read
GUARDED_ENDPOINT: Final = (401, 503)


def install(app: FastAPI, endpoints: Mapping[str, EndpointAccess]) -> None:
    """Complete `app.openapi()` by what the middleware of `services.web.middleware` answers."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path, operations in described()["paths"].items():
                for method, operation in operations.items():
                    endpoint = endpoints.get(f"{method.upper()} {path}")
                    _complete(operation, is_guarded=endpoint is None or endpoint.least is not None)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(operation: dict[str, Any], *, is_guarded: bool) -> None:
    for status, response in responses(*ANY_ENDPOINT, *(GUARDED_ENDPOINT if is_guarded else ())).items():
        known = operation["responses"].setdefault(str(status), response)
        # an endpoint with errors of another form: what middleware answers is a problem document all the same
        known["content"] = response["content"] | known.get("content", {})
