"""Which `k2d up` runs for a store on this machine, by the record `up/RUN.json` that it keeps as long as it lives."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2d.processes import machine, start_of
from k2d.settings import Settings

FOLDER: Final = "up"


@dataclass(frozen=True, slots=True)
class RunningUp:
    """A `k2d up` that lives."""

    pid: int
    url: str  # of its API

    def __str__(self) -> str:
        return f"`k2d up` (pid {self.pid}) runs for this store at {self.url}"


def local_folder(settings: Settings) -> Path:
    """Where `k2d up` keeps what belongs to this machine: in a local store; for a remote one, in the cache.

    Its content may be lost at any time.
    """
    if "://" not in settings.store:
        return Path(settings.store)
    return settings.cache / FOLDER / hashlib.sha256(settings.store.encode()).hexdigest()[:16]


def running_up(settings: Settings) -> RunningUp | None:
    """The `k2d up` of the settings' store that lives on this machine; None if there is none, or none says where.

    running_up(load()).url  # http://127.0.0.1:8080
    """
    for path in sorted((local_folder(settings) / FOLDER).glob("*.json")):
        try:
            record = json.loads(path.read_text("utf-8"))
            pid, url = int(record["up"]), str(record["url"])
            if record["machine"] == machine() and record["started"] is not None and record["started"] == start_of(pid):
                return RunningUp(pid, url)
        except (OSError, ValueError, TypeError, KeyError):  # it has just ended, or is of an earlier version
            continue
    return None
