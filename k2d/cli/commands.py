"""All commands: each of these modules registers its own with `app` when it is imported."""

from k2d.cli import datasets, demo, doctor, inspect, label, models, parity, serve, triton, up  # noqa: F401
