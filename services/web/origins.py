"""Middleware against foreign web pages: checks Host and Origin, and puts security headers on every answer.

A page of any site can make a browser send requests to a server that only the browser's machine reaches: by a form or a
script of its own (the Origin gives it away), or by a host name of its own that it lets point to that server (DNS
rebinding: the Host gives it away).
"""

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2d.errors import K2DError
from services.web.problems import problem

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FOREIGN_SITES: Final = ("cross-site", "same-site")  # values of Sec-Fetch-Site: another site, another host of this one


class SecurityHeaders:
    """Middleware that adds HEADERS to every answer, unless the answer has a header of that name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class OriginCheck:
    """Middleware that answers 400 to a foreign Host, and 403 to what a page of another origin sends.

    `allowed` are host names, or patterns `*.example.org`. An IP address is never foreign, since no one else can let a
    name point to it. Where nothing is allowed and every request needs a key
    (`needs_key`), any name is taken: a page without a key gets nothing.
    """

    def __init__(self, app: ASGIApp, *, allowed: Sequence[str], needs_key: Callable[[], Awaitable[bool]]) -> None:
        self.app, self.needs_key = app, needs_key
        self.allowed = [name.lower().rstrip(".") for name in allowed]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        hosts = headers.getlist("host")  # without one it comes from no browser
        if len(hosts) > 1 or (hosts and not await self._is_own(host)):
            refusal = problem(
                400,
                "host_refused",
                f"this server is not called {host[:100]!r}",
                hint="ask it by its IP address or as localhost, or add the name to K2D_ALLOWED_HOSTS",
            )
            await refusal(scope, receive, send)
            return
        if self._is_foreign(headers, host, scope["method"]):
            hint = "pages of other origins may not use this server; K2D_ALLOWED_HOSTS names hosts whose pages may"
            refusal = problem(403, "origin_refused", "the request comes from a page of another origin", hint=hint)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _is_own(self, host: str) -> bool:
        name = _name(host)
        if name is None:
            return False
        if name == "localhost" or _is_address(name):
            return True
        if self.allowed:
            return self._is_allowed(name)
        with suppress(K2DError):  # a store that cannot be read says of no key
            return await self.needs_key()
        return False

    def _is_allowed(self, name: str) -> bool:
        return any(
            name == known or (known.startswith("*.") and name.endswith(known[1:]) and name != known[2:])
            for known in self.allowed
        )

    def _is_foreign(self, headers: Headers, host: str, method: str) -> bool:
        origin = headers.get("origin")
        if origin is None:
            link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
            return headers.get("sec-fetch-site") in FOREIGN_SITES and not link
        try:
            parts = urlsplit(origin)
        except ValueError:  # no browser sends it
            return True
        if parts.scheme not in ("http", "https"):  # `null`: a sandboxed page, or a file
            return True
        if parts.netloc.lower() in (host.lower(), host.lower().removesuffix(_DEFAULT_PORTS[parts.scheme])):
            return False
        name = _name(parts.netloc)
        return name is None or not self._is_allowed(name)


_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def _name(host: str) -> str | None:
    """The name or address in a Host header, in lower case without port and brackets; None if it has neither."""
    with suppress(ValueError):
        parts = urlsplit(f"//{host}")
        if parts.hostname and parts.netloc == host and "@" not in host and (parts.port or 0) >= 0:
            return parts.hostname.rstrip(".")
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
