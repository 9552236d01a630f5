"""The page Fleet: whether everything works, in one sentence, and what says so."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.filter.console.page import PageRoute, render
from services.filter.context import InLake, InQueue, InSettings
from services.filter.fleet import look

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/fleet")
async def fleet_page(request: Request, lake: InLake, queue: InQueue, settings: InSettings) -> Response:
    fleet = await look(settings, lake, queue)
    return render(request, "fleet.html", fleet=fleet, grafana_url=settings.grafana_url)


@router.get("/fleet/state")
async def fleet_state(request: Request, lake: InLake, queue: InQueue, settings: InSettings) -> Response:
    """The part of the page that changes."""
    return render(request, "fleet_state.html", fleet=await look(settings, lake, queue))
