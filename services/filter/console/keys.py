"""Pages for admins: keys, and the audit log."""

import re
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from k2d.errors import BadRequest
from k2d.store import Lake
from k2d.store.access import AccessKey, AccessRole
from services.filter.console.page import PageRoute, render
from services.filter.context import InLake
from services.web.access import Authenticator, Caller

router = APIRouter(include_in_schema=False, route_class=PageRoute)

DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
ENTRIES: Final = 500  # of a day on a page


@router.get("/keys")
def keys_page(request: Request, lake: InLake) -> Response:
    return render(request, "keys.html", **_listed(lake), roles=list(AccessRole))


@router.post("/keys")
def create_key(
    request: Request,
    lake: InLake,
    name: Annotated[str, Form(max_length=200)],
    role: Annotated[AccessRole, Form()] = AccessRole.VIEWER,
) -> Response:
    """Make a key and show it, this once."""
    caller = cast(Caller, request.scope["state"]["caller"])
    is_first = not lake.access.all()
    key, secret = lake.access.create(name.strip(), role, created_by=caller.name)
    _authenticator(request).forget_keys()
    response = render(request, "keys_list.html", **_listed(lake, made=key, secret=secret, is_first=is_first))
    response.headers["Location"] = f"/keys/{key.id}"  # what the audit log names
    return response


@router.post("/keys/{key_id}/revoke")
def revoke_key(request: Request, key_id: str, lake: InLake) -> Response:
    lake.access.revoke(key_id)
    _authenticator(request).forget_keys()
    return render(request, "keys_list.html", **_listed(lake))


@router.get("/audit-log")
def audit_log_page(request: Request, lake: InLake, day: str | None = None, action: str = "", by: str = "") -> Response:
    """A day's changes, newest first: of the last day that has any, unless one is named."""
    if day is not None and not DAY.fullmatch(day):
        raise BadRequest(f"not a day: {day[:40]!r}", parameter="day", value=day[:40], form="2026-11-22")
    days = lake.audit_log.days()
    shown = day or (days[0] if days else None)
    entries = list(lake.audit_log.entries(shown))[::-1] if shown else []
    actions = sorted({str(entry.get("action", "")) for entry in entries})
    chosen = [
        entry
        for entry in entries
        if action in ("", entry.get("action")) and by.casefold() in str(entry.get("by", "")).casefold()
    ]
    return render(
        request,
        "audit_log.html",
        days=days,
        day=shown,
        entries=chosen[:ENTRIES],
        total=len(chosen),
        actions=actions,
        action=action,
        by=by,
    )


def _authenticator(request: Request) -> Authenticator:
    return cast(Authenticator, request.app.state.authenticator)


def _listed(
    lake: Lake, *, made: AccessKey | None = None, secret: str | None = None, is_first: bool = False
) -> dict[str, Any]:
    keys = lake.access.all()
    used = {key.id: lake.access.last_used(key.id) for key in keys}
    return {"keys": keys, "used": used, "made": made, "secret": secret, "is_first": is_first}
