"""Signing in with a key, signing out, and a reader's language and colours."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from services.filter.console.page import SIGN_IN, THEME_COOKIE, THEMES, PageRoute, render, set_session
from services.filter.console.words import COOKIE as LANGUAGE_COOKIE
from services.filter.console.words import LANGUAGES
from services.web.access import Authenticator, FailedAttempts, is_loopback
from services.web.sessions import COOKIE

router = APIRouter(include_in_schema=False, route_class=PageRoute)

YEAR_S = 365 * 24 * 3600
_attempts = FailedAttempts()


@router.get(SIGN_IN)
def form(request: Request, next: str = "/") -> Response:
    return render(request, "sign_in.html", next=_own(next), failed=False, unsafe=_is_unsafe(request))


@router.post(SIGN_IN)
async def sign_in(request: Request, key: Annotated[str, Form(max_length=500)], next: str = "/") -> Response:
    if _is_unsafe(request):  # the browser would not keep the cookie, and others could have read the key
        return render(request, "sign_in.html", status=400, next=_own(next), failed=False, unsafe=True)
    authenticator: Authenticator = request.app.state.authenticator
    cookie = await authenticator.sign_in(key)
    if cookie is None:
        await _attempts.fail(request.client.host if request.client else "unknown")
        return render(request, "sign_in.html", status=401, next=_own(next), failed=True, unsafe=False)
    response = RedirectResponse(request.scope.get("root_path", "") + _own(next), status_code=303)
    set_session(response, request, cookie)
    return response


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    response = Response(headers={"HX-Redirect": request.scope.get("root_path", "") + SIGN_IN})
    response.delete_cookie(COOKIE, path=request.scope.get("root_path", "") + "/")
    return response


@router.get("/preferences")
def preferences(request: Request, language: str = "", theme: str = "", next: str = "/") -> Response:
    """Keep a language or colours for a year; they are no secret and change nothing else."""
    response = RedirectResponse(request.scope.get("root_path", "") + _own(next), status_code=303)
    path = request.scope.get("root_path", "") + "/"
    if language in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language, max_age=YEAR_S, path=path, samesite="strict", httponly=True)
    if theme in THEMES:
        response.set_cookie(THEME_COOKIE, theme, max_age=YEAR_S, path=path, samesite="strict", httponly=True)
    return response


def _own(target: str) -> str:
    """A page of this server to go to; the first page for anything else: links from elsewhere lead nowhere else."""
    parts = urlsplit(target)
    is_own = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return target if is_own and target.isprintable() else "/"


def _is_unsafe(request: Request) -> bool:
    """Whether a key would go over a network unencrypted."""
    return request.url.scheme != "https" and not is_loopback(request.url.hostname or "localhost")
