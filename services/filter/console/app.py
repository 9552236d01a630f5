"""Adds the console to the labeling API."""

from fastapi import FastAPI

from services.filter.console import batches, datasets, files, fleet, keys, runs, sign_in


def install(app: FastAPI) -> None:
    """Add the console's pages and files to an app.

    install(app)  # its pages are at /
    """
    routers = (
        files.router,
        sign_in.router,
        batches.router,
        datasets.router,
        runs.router,
        fleet.router,
        keys.router,
    )
    for router in routers:
        app.include_router(router)
