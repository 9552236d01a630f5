"""Pages of batches."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.filter.batches import list_batches
from services.filter.console.page import PageRoute, render
from services.filter.context import InLake, InQueue

router = APIRouter(include_in_schema=False, route_class=PageRoute)

PAGE = 50  # batches on a page


@router.get("/")
async def batches_page(request: Request, lake: InLake, queue: InQueue, cursor: str | None = None) -> Response:
    page = await asyncio.to_thread(list_batches, lake, queue, PAGE, cursor)
    return render(request, "batches.html", page=page)
