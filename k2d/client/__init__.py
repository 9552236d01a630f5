"""Who does the work: a labeling API over HTTP, or this process. One interface (`Backend`), typed results.

Importing this loads neither audio nor Arrow; `Embedded` loads them when it is asked for.
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
