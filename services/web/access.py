"""Who may call which endpoint: keys with roles, a table from endpoint to least role, and the audit log of changes."""

import asyncio
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2d.errors import BadRequest, K2DError, StoreError
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.access import AccessKey, AccessRole, hash_of, id_in, matching
from services.web.pools import KEYS
from services.web.problems import asks_for_page, problem
from services.web.sessions import ANONYMOUS_ID, COOKIE, CSRF_HEADER, TOKEN_ID, Session, Sessions, fits

log = structlog.get_logger()

MIN_TOKEN_CHARACTERS: Final = 16
KEYS_FRESH_S: Final = 5.0  # a key that is made or revoked counts on all servers after this time
USE_NOTED_S: Final = 60.0  # the time of a key's last use is stored at most this often
READING: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class EndpointAccess:
    """What an endpoint needs: the least role (None: no key), and the action the audit log names, if it is a change."""

    least: AccessRole | None
    action: str | None = None
    page: bool = False  # of the console: refusals are pages, and changes need a session's token
    streams: bool = False  # it reads its body block by block, up to K2D_MAX_UPLOAD_BYTES; others read documents


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. In `scope["state"]["caller"]`."""

    name: str  # as the audit log has it
    role: AccessRole


OPEN: Final = EndpointAccess(None)
# every host has these: orchestrators and Prometheus ask without a key; the API's description is no secret
EVERY_HOST: Final[Mapping[str, EndpointAccess]] = {
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": OPEN,
    "GET /openapi.json": OPEN,
    "GET /docs": OPEN,
    "GET /docs/{asset}": OPEN,
}
UNKNOWN: Final = EndpointAccess(AccessRole.ADMIN)  # what the table does not have
ANONYMOUS: Final = Caller("anonymous", AccessRole.ADMIN)  # everybody, where there are no keys


class Authenticator:
    """Finds the caller of a request by its key: K2D_API_TOKEN is one of an admin, others are in the store.

    Authenticator(settings).caller("Bearer k2d_…")
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Raises:
            BadRequest: K2D_API_TOKEN is short; or the host is beyond loopback, and there is no key.
            StoreError: the store cannot be read, and there is no K2D_API_TOKEN.
        """
        self.allow_anonymous, self._clock = settings.allow_anonymous, clock
        token = settings.api_token.get_secret_value() if settings.api_token else None
        if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
            raise BadRequest(
                f"K2D_API_TOKEN has {len(token)} characters; at least {MIN_TOKEN_CHARACTERS} are needed",
                hint="for instance the output of openssl rand -hex 32; or `k2d keys create`",
            )
        self._token = hash_of(token) if token else None
        self._lake: Lake | None = None
        self.sessions: Sessions | None = None
        try:
            self._lake = Lake(settings.store)
            self.sessions = Sessions(self._lake)
        except StoreError as error:
            if self._token is None:
                raise
            log.warning("keys of the store are not known here, only K2D_API_TOKEN", error=error.message)
        self._keys: list[AccessKey] = []
        self._read_at: float | None = None
        self._noted: dict[str, float] = {}
        self._reading = asyncio.Lock()
        if not (is_loopback(settings.host) or settings.allow_anonymous or self._token or self._read_keys()):
            raise BadRequest(
                f"no key is set, and K2D_HOST={settings.host} is reached from other machines",
                hint="set K2D_API_TOKEN, or `k2d keys create`; K2D_ALLOW_ANONYMOUS=true lets everybody in",
            )

    async def caller(self, header: str) -> Caller | None:
        """The caller with this Authorization header; None if it has no valid key.

        Raises:
            StoreError: the store cannot be read.
        """
        scheme, _, secret = header.partition(" ")
        secret = secret.strip()
        presented = secret if scheme.lower() == "bearer" else ""
        if presented and self._token is not None and matching([_token_key(self._token)], presented):
            return Caller("K2D_API_TOKEN", AccessRole.ADMIN)
        key = matching(await self._fresh_keys(), presented) if presented else None
        if key is None:
            return None
        await self._note_use(key)
        return Caller(f"{key.id} {key.name}", key.role)

    async def sign_in(self, secret: str) -> str | None:
        """Begin a session with a key; returns the value of its cookie, None if the key is not valid.

        Raises:
            StoreError: the store cannot be read.
        """
        if await self.caller(f"Bearer {secret}") is None or self.sessions is None:
            return None
        key = matching(await self._fresh_keys(), secret.strip())
        key_id, sha256 = (key.id, key.sha256) if key is not None else (TOKEN_ID, self._token or "")
        return await asyncio.to_thread(self.sessions.cookie, key_id, sha256)

    async def session(self, cookie: str) -> tuple[Session, Caller] | None:
        """The session of a cookie, and whose it is; None if it is forged or too old, or its key no longer valid.

        Raises:
            StoreError
        """
        if not cookie or self.sessions is None:
            return None
        session = await asyncio.to_thread(self.sessions.read, cookie)
        if session is None:
            return None
        if session.key_id == ANONYMOUS_ID:
            return None if await self.is_required() else (session, ANONYMOUS)
        keys = [_token_key(self._token)] if self._token else []
        for key in (*keys, *await self._fresh_keys()):
            if fits(session, key) and key.revoked_at is None:
                return session, Caller(key.name if key.id == TOKEN_ID else f"{key.id} {key.name}", key.role)
        return None

    async def is_required(self) -> bool:
        """Whether there is any key. Revoked ones count: taking the last key away opens nothing.

        Raises:
            StoreError
        """
        return self._token is not None or bool(await self._fresh_keys())

    def forget_keys(self) -> None:
        """Read the keys again at the next request: one was made or revoked here. Other servers take KEYS_FRESH_S."""
        self._read_at = None

    async def _fresh_keys(self) -> list[AccessKey]:
        """All keys, read again when older than KEYS_FRESH_S; what a request contains decides nothing about reading."""
        async with self._reading:
            if self._read_at is None or self._clock() - self._read_at >= KEYS_FRESH_S:
                await KEYS.run(self._read_keys)
        return self._keys

    def _read_keys(self) -> list[AccessKey]:
        self._keys = self._lake.access.all() if self._lake is not None else []
        self._read_at = self._clock()
        return self._keys

    async def _note_use(self, key: AccessKey) -> None:
        now = self._clock()
        if self._lake is not None and now - self._noted.get(key.id, -USE_NOTED_S) >= USE_NOTED_S:
            self._noted[key.id] = now
            with suppress(StoreError):  # a full disk keeps nobody from reading
                await KEYS.run(self._lake.access.mark_used, key.id)

    async def record(self, action: str, caller: Caller, *, target: str, status: int, address: str) -> None:
        """Append a change to the audit log; where that fails, the log says so."""
        if self._lake is None:
            return
        try:
            await KEYS.run(
                self._lake.audit_log.record, action, by=caller.name, target=target, status=status, address=address
            )
        except StoreError as error:
            log.error("audit log not written", action=action, by=caller.name, target=target, error=error.message)


class FailedAttempts:
    """Slows down whoever sends wrong keys: each failure of an address waits longer. Valid keys never wait."""

    FREE: Final = 3  # failures without a wait
    FIRST_S: Final = 0.1
    LONGEST_S: Final = 3.0
    FORGOTTEN_S: Final = 300.0
    MOST_ADDRESSES: Final = 10_000
    MOST_WAITING: Final = 100  # at once; further ones are refused without a wait

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep, self._clock = sleep, clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting = 0

    async def fail(self, address: str) -> int:
        """Count a failure of this address, and wait; returns how many there were."""
        count, last = self._failures.pop(address, (0, 0.0))
        count = 1 if self._clock() - last > self.FORGOTTEN_S else count + 1
        self._failures[address] = (count, self._clock())
        while len(self._failures) > self.MOST_ADDRESSES:
            self._failures.popitem(last=False)
        if count > self.FREE and self._waiting < self.MOST_WAITING:
            self._waiting += 1
            try:
                await self._sleep(min(self.LONGEST_S, self.FIRST_S * 2 ** min(count - self.FREE - 1, 10)))
            finally:
                self._waiting -= 1
        return count


class AccessControl:
    """Middleware that lets a request pass when its key has the endpoint's least role, and logs changes.

    An endpoint that is not in the table needs an admin. Answers 401 without a valid key, 403 with too small a role.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        endpoints: Mapping[str, EndpointAccess],
        attempts: FailedAttempts,
        refused_page: Callable[[Scope, Response], Response] | None = None,
    ) -> None:
        """`refused_page` makes a page of a refusal (401, 403, 503) where the endpoint is a page, or
        where a browser asks for what is not there."""
        self.app, self.authenticator, self.attempts, self.refused_page = app, authenticator, attempts, refused_page
        self._endpoints = [_compiled(name, endpoint) for name, endpoint in endpoints.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no host has WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        endpoint = self._endpoint(scope)
        scope.setdefault("state", {})["streams"] = endpoint.streams
        if endpoint.least is None:
            await self.app(scope, receive, send)
            return
        try:
            caller = await self._caller(scope, endpoint)
            refusal = await self._refusal(scope, endpoint.least, caller)
        except K2DError as error:
            refusal = problem(error.status, error.code, error.message, hint=error.hint)
            caller = None
        if refusal is not None or caller is None:
            assert refusal is not None
            is_page = endpoint.page or (endpoint is UNKNOWN and asks_for_page(scope))
            if is_page and self.refused_page is not None:
                refusal = self.refused_page(scope, refusal)
            await refusal(scope, receive, send)
            if caller not in (None, ANONYMOUS) and endpoint.action:
                assert caller is not None
                await self._record(scope, endpoint.action, caller, 403, None)
            return
        scope.setdefault("state", {})["caller"] = caller
        if endpoint.action is None:
            await self.app(scope, receive, send)
            return
        status, location = 500, None

        async def send_and_note(message: Message) -> None:
            nonlocal status, location
            if message["type"] == "http.response.start":
                status, location = message["status"], Headers(raw=message["headers"]).get("location")
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            await self._record(scope, endpoint.action, caller, status, location)

    async def _caller(self, scope: Scope, endpoint: EndpointAccess) -> Caller | None:
        """Who sent a request: by its key, or by its session, whose token it has to carry if it changes anything."""
        headers = Headers(scope=scope)
        if header := headers.get("authorization", ""):
            return await self.authenticator.caller(header) if await self.authenticator.is_required() else ANONYMOUS
        found = await self.authenticator.session(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))
        if found is None:
            return None if await self.authenticator.is_required() else ANONYMOUS
        session, caller = found
        is_change = scope["method"] not in READING
        if is_change and (endpoint.page or caller is not ANONYMOUS) and self.authenticator.sessions is not None:
            self.authenticator.sessions.check_csrf(session.cookie, headers.get(CSRF_HEADER, ""))
        scope.setdefault("state", {})["session"] = session
        return caller

    async def _refusal(self, scope: Scope, least: AccessRole, caller: Caller | None) -> Response | None:
        if caller is None:
            return await self._unauthorized(scope)
        if caller is ANONYMOUS and not (self.authenticator.allow_anonymous or _came_by_loopback(scope)):
            return problem(
                403,
                "no_keys",
                "this server has no keys, so it answers this machine only",
                hint="set K2D_API_TOKEN, or make a key with `k2d keys create`",
            )
        if not caller.role.covers(least):
            log.warning("not allowed", by=caller.name, role=caller.role, path=scope["path"], address=_address(scope))
            hint = f"ask an admin for a key with the role {least}"
            detail = f"this needs the role {least}, and the key has {caller.role}"
            return problem(403, "forbidden", detail, hint=hint, role=caller.role, least_role=least)
        return None

    async def _unauthorized(self, scope: Scope) -> Response:
        header, address = Headers(scope=scope).get("authorization", ""), _address(scope)
        if header:
            failures = await self.attempts.fail(address)
            # an id is no secret; anything else that was sent may be one, mistyped
            key_id = id_in(header.partition(" ")[2].strip())
            log.warning("wrong key", address=address, key_id=key_id, path=scope["path"], failures=failures)
        answer = problem(
            401, "unauthorized", "a valid key is required, as a bearer token", hint="set K2D_API_TOKEN on the client"
        )
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    async def _record(self, scope: Scope, action: str, caller: Caller, status: int, location: str | None) -> None:
        target = location or scope["path"]
        await self.authenticator.record(action, caller, target=target, status=status, address=_address(scope))

    def _endpoint(self, scope: Scope) -> EndpointAccess:
        """The endpoint of a request, by the same patterns that the router has."""
        path, method = str(scope["path"]), str(scope["method"])
        root = str(scope.get("root_path", ""))
        path = path.removeprefix(root) if root and path.startswith(root + "/") else path
        method = "GET" if method == "HEAD" else method
        for known_method, pattern, endpoint in self._endpoints:
            if method == known_method and pattern.match(path):
                return endpoint
        return UNKNOWN


def is_loopback(host: str) -> bool:
    """Whether a server on this host name or address is reached from this machine only."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def _came_by_loopback(scope: Scope) -> bool:
    """Whether a request came to a loopback address of this machine, or by something that is no network."""
    host = (scope.get("server") or ("", None))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True  # a Unix socket, or a test without one
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _compiled(name: str, endpoint: EndpointAccess) -> tuple[str, re.Pattern[str], EndpointAccess]:
    method, path = name.split(" ")
    return method, compile_path(path)[0], endpoint


def _token_key(sha256: str) -> AccessKey:
    return AccessKey(TOKEN_ID, "K2D_API_TOKEN", AccessRole.ADMIN, sha256, "", "")
