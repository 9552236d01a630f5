"""Adds the console to the labeling API."""

from fastapi import FastAPI

from services.filter.console import batches, files, reviews, sign_in


def install(app: FastAPI) -> None:
    """Add the console's pages and files to an app.

    install(app)  # its pages are at /
    """
    for router in (files.router, sign_in.router, batches.router, reviews.router):
        app.include_router(router)
