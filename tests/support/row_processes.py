"""The processes that prepare training rows, as a test sees them from outside."""

from contextlib import suppress

import psutil

from trainer.data.processes import PROCESS_MODULE


def row_processes(parent: int | None = None) -> list[psutil.Process]:
    """Those of a process (None: of this one) that are alive."""
    found = []
    for child in psutil.Process(parent).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended; a zombie has no command line any more
            if PROCESS_MODULE in child.cmdline():
                found.append(child)
    return found
