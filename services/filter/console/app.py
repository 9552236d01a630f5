"""Adds the console to the labeling API."""

from fastapi import FastAPI

from k2d.corpus.explore import Explorer
from services.filter.console import (
    batches,
    chunks,
    datasets,
    deletions,
    explore,
    files,
    fleet,
    keys,
    reviews,
    runs,
    sign_in,
)


def install(app: FastAPI) -> None:
    """Add the console's pages and files to an app.

    install(app)  # its pages are at /
    """
    app.state.explorer = Explorer(app.state.lake)
    routers = (
        files.router,
        sign_in.router,
        batches.router,
        deletions.router,
        explore.router,
        chunks.router,
        reviews.router,
        datasets.router,
        runs.router,
        fleet.router,
        keys.router,
    )
    for router in routers:
        app.include_router(router)
