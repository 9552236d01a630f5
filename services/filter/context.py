"""What handlers are given: settings, lake, queue, the feeds of event streams, and the policy that a request names."""

from typing import Annotated, cast

from fastapi import Depends, Query, Request

from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, PRESETS, Policy, from_yaml
from k2d.schema import Metric
from k2d.settings import Settings
from k2d.store import Lake
from services.filter.events import BatchFeeds
from services.filter.queue import WorkQueue


def _settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def _lake(request: Request) -> Lake:
    return cast(Lake, request.app.state.lake)


def _queue(request: Request) -> WorkQueue:
    return cast(WorkQueue, request.app.state.queue)


def _feeds(request: Request) -> BatchFeeds:
    return cast(BatchFeeds, request.app.state.feeds)


def _policy(
    policy: Annotated[
        str | None, Query(max_length=4000, description="A preset's name, or a policy as JSON; default: `evidence`.")
    ] = None,
    metric: Annotated[Metric | None, Query(description="Distance to judge by; default: the policy's.")] = None,
    alpha: Annotated[float | None, Query(ge=0, le=1, description="Threshold; default: the policy's.")] = None,
) -> Policy:
    if policy is None:
        base = DEFAULT
    elif policy.lstrip().startswith("{"):
        base = from_yaml(policy, name="the policy of the query")  # JSON is YAML
    elif policy in PRESETS:  # never a path: a request opens no file of the server
        base = PRESETS[policy]
    else:
        raise BadRequest(f"unknown policy: {policy!r}", hint=f"one of {', '.join(PRESETS)}, or a policy as JSON")
    return base.varied(metric=metric, alpha=alpha)


InSettings = Annotated[Settings, Depends(_settings)]
InLake = Annotated[Lake, Depends(_lake)]
InFeeds = Annotated[BatchFeeds, Depends(_feeds)]
InQueue = Annotated[WorkQueue, Depends(_queue)]
InPolicy = Annotated[Policy, Depends(_policy)]
