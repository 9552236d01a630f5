"""All commands: each of these modules registers its own with `app` when it is imported.

The trainer's come by entry point (pyproject.toml, group k2d.commands): the kernel does not import the trainer.
"""

from importlib.metadata import entry_points

from k2d.cli import audit, calibrate, datasets, inspect, label, models, parity, policy, validators  # noqa: F401
from services.commands import demo, doctor, serve, triton, up  # noqa: F401

for _entry in sorted(entry_points(group="k2d.commands")):
    _entry.load()
