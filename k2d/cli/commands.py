"""All commands. Importing a module below registers its commands with `app`.

The commands of services and trainer are found by entry points (pyproject.toml, group k2d.commands).
"""

from importlib.metadata import entry_points

from k2d.cli import (  # noqa: F401
    audit,
    calibrate,
    datasets,
    forget,
    housekeeping,
    inspect,
    keys,
    label,
    models,
    parity,
    policy,
    reviews,
    store,
    sweep,
    validators,
    watch,
)
from k2d.cli.base import GROUPS, app

for _entry in sorted(entry_points(group="k2d.commands")):
    _entry.load()

app.registered_commands.sort(key=lambda command: GROUPS.index(str(command.rich_help_panel)))
