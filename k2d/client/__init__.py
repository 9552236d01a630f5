"""Clients of the labeling service, with one interface (`Backend`) and typed results.

`Client` uses a labeling API over HTTP, `Embedded` does the work in this process:

    from k2d.client import Client

    status = Client("http://127.0.0.1:8080").label(["talk.m4a"], BatchOptions(name="talks"), wait=True)
    print(status.ledger.seconds.accepted)

Importing this package loads neither audio nor Arrow; accessing `Embedded` does.
"""

from typing import TYPE_CHECKING, Any

from k2d.client.backend import Backend
from k2d.client.http import Client

if TYPE_CHECKING:
    from k2d.client.embedded import Embedded

__all__ = ["Backend", "Client", "Embedded"]


def __getattr__(name: str) -> Any:
    if name == "Embedded":
        from k2d.client.embedded import Embedded

        return Embedded
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
