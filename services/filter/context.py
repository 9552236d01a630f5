"""What every endpoint is given: settings, lake, queue."""

from typing import Annotated, cast

from fastapi import Depends, Query, Request

from k2d.policy import DEFAULT, Policy
from k2d.schema import Metric
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.queue import WorkQueue


def _settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def _lake(request: Request) -> Lake:
    return cast(Lake, request.app.state.lake)


def _queue(request: Request) -> WorkQueue:
    return cast(WorkQueue, request.app.state.queue)


def _policy(
    metric: Annotated[Metric | None, Query(description="Distance to judge by; default: the default policy's.")] = None,
    alpha: Annotated[float | None, Query(ge=0, le=1, description="Threshold; default: the default policy's.")] = None,
) -> Policy:
    return DEFAULT.varied(metric=metric, alpha=alpha)


InSettings = Annotated[Settings, Depends(_settings)]
InLake = Annotated[Lake, Depends(_lake)]
InQueue = Annotated[WorkQueue, Depends(_queue)]
InPolicy = Annotated[Policy, Depends(_policy)]
