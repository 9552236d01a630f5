"""All commands: each of these modules registers its own with `app` when it is imported.

Those of services and trainer are found by entry point (pyproject.toml, group k2d.commands): the kernel names neither.
"""

from importlib.metadata import entry_points

from k2d.cli import audit, calibrate, datasets, inspect, label, models, parity, policy, validators# noqa: F401

for _entry in sorted(entry_points(group="k2d.commands")):
    _entry.load()
