"""What every page has: a template, the reader's language, the session, and headers that allow nothing foreign."""

import json
import secrets
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.types import Scope

import k2d
from k2d.errors import K2DError
from k2d.store.access import AccessRole
from services.filter.console import files, formats
from services.filter.console.errors import page_error, value_members
from services.filter.console.words import COOKIE as LANGUAGE_COOKIE
from services.filter.console.words import LANGUAGES, Words, preferred
from services.web.access import ANONYMOUS, Authenticator, Caller
from services.web.problems import problem_document
from services.web.sessions import ANONYMOUS_ID, COOKIE, HOURS

THEME_COOKIE: Final = "k2d_theme"
THEMES: Final = ("auto", "light", "dark")
SIGN_IN: Final = "/sign-in"
# blob: is audio that a script has fetched before it is asked for. The nonce, a new one for each page, is for the style
# element that wavesurfer puts into its shadow tree.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)

_environment = Environment(
    loader=PackageLoader(__package__, "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= formats.FILTERS
_environment.globals |= {"static": files.address, "version": k2d.__version__}


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page, or a part of one.

    Templates have, beside `values`: `_` (words), `caller`, `may(role)`, `csrf`, `language`, `theme`, `path`, `nonce`.

        return render(request, "batches.html", batches=batches)
    """
    words = words_of(request.scope, request.headers, request.cookies)
    cookie, is_new = _session_cookie(request)
    authenticator: Authenticator | None = getattr(request.app.state, "authenticator", None)
    sessions = authenticator.sessions if authenticator else None
    caller: Caller | None = request.scope.get("state", {}).get("caller")
    theme = request.cookies.get(THEME_COOKIE, "auto")
    nonce = secrets.token_urlsafe(16)
    text = _environment.get_template(template).render(
        {
            "_": words,
            "caller": caller,
            "anonymous": caller is ANONYMOUS,
            "may": lambda role: caller is not None and caller.role.covers(AccessRole(role)),
            "csrf": sessions.csrf_token(cookie) if sessions and cookie else "",
            "language": words.language,
            "languages": LANGUAGES,
            "theme": theme if theme in THEMES else "auto",
            "root": request.scope.get("root_path", "") + "/",
            "path": request.url.path,
            "query": request.url.query,
            "nonce": nonce,
        }
        | values
    )
    response = HTMLResponse(text, status_code=status, headers=_headers(words, nonce))
    if is_new:
        set_session(response, request, cookie)
    return response


def set_session(response: Response, request: Request, cookie: str) -> None:
    """Put a session's cookie on a response. It is sent over HTTPS only, unless it never leaves this machine."""
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=HOURS * 3600,
        path=request.scope.get("root_path", "") + "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def words_of(scope: Scope, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Words:
    """The words for whoever sent a request."""
    return Words(preferred(cookies.get(LANGUAGE_COOKIE), headers.get("accept-language", "")))


def refused_page(scope: Scope, refusal: Response) -> Response:
    """A refusal as a page: whoever has no key is sent to sign in and comes back after it."""
    request = Request(scope)
    if refusal.status_code == 401:
        target = request.scope.get("root_path", "") + SIGN_IN
        if request.headers.get("hx-request"):
            return Response(status_code=401, headers={"HX-Redirect": target})
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{target}?{urlencode({'next': wanted})}", 303)
    return error_page(request, json.loads(bytes(refusal.body)))


def error_page(request: Request, problem: Mapping[str, Any]) -> Response:
    """A problem document as a page, or as the notice that a part of a page shows."""
    is_part = bool(request.headers.get("hx-request"))
    root = request.scope.get("root_path", "") + "/"
    words = words_of(request.scope, request.headers, request.cookies)
    error = page_error(problem, words, path=request.url.path.removeprefix(root), query=request.url.query)
    status = int(problem["status"])
    return render(request, "notice.html" if is_part else "error.html", status=status, code=status, error=error)


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def with_error_pages(request: Request) -> Response:
            try:
                return await handler(request)
            except K2DError as error:
                return error_page(
                    request, problem_document(error.status, error.code, error.message, hint=error.hint, **error.details)
                )
            except RequestValidationError as error:
                first = error.errors()[0]
                about = value_members(first)
                return error_page(request, problem_document(422, "invalid_request", str(first["msg"]), **about))
            except HTTPException as error:
                code = HTTPStatus(error.status_code).name.lower()
                return error_page(request, problem_document(error.status_code, code, str(error.detail)))

        return with_error_pages


def _session_cookie(request: Request) -> tuple[str, bool]:
    """The session's cookie, and whether it is new: where no key is needed a session begins with the first page."""
    session = request.scope.get("state", {}).get("session")
    if session is not None:
        return session.cookie, False
    authenticator: Authenticator | None = getattr(request.app.state, "authenticator", None)
    if request.scope.get("state", {}).get("caller") is ANONYMOUS and authenticator and authenticator.sessions:
        return authenticator.sessions.cookie(ANONYMOUS_ID), True
    return "", False


def _headers(words: Words, nonce: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY.format(nonce=nonce),
        "Content-Language": words.language,
        # with no-referrer, browsers send `Origin: null` with forms, and are refused as a foreign page is
        "Referrer-Policy": "same-origin",
        "Vary": "Cookie, Accept-Language, HX-Request",
    }
