"""k2d: label, filter and distil code-switched speech.

The public API (docs/python.md shows each name at work):

    import k2d

    backend = k2d.Embedded(k2d.load_settings(store="data"))  # or k2d.Client("http://127.0.0.1:8080")
    status = backend.label(["talk.m4a"], k2d.BatchOptions(name="talks"), wait=True)
    print(status.ledger.seconds.accepted)

Importing this package loads no torch, no CTranslate2, no FastAPI and no RQ; a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from k2d.version import __version__

if TYPE_CHECKING:
    from k2d.client import Client, Embedded
    from k2d.documents import BatchOptions
    from k2d.errors import K2DError
    from k2d.filtering.policy import Policy
    from k2d.settings import Settings
    from k2d.settings import load as load_settings
    from k2d.store import Lake

__all__ = [
    "BatchOptions",
    "Client",
    "Embedded",
    "K2DError",
    "Lake",
    "Policy",
    "Settings",
    "__version__",
    "load_settings",
]

_PUBLIC: Final = {  # name: its module, and what it is called there
    "BatchOptions": ("k2d.documents", "BatchOptions"),
    "Client": ("k2d.client", "Client"),
    "Embedded": ("k2d.client", "Embedded"),
    "K2DError": ("k2d.errors", "K2DError"),
    "Lake": ("k2d.store", "Lake"),
    "Policy": ("k2d.filtering.policy", "Policy"),
    "Settings": ("k2d.settings", "Settings"),
    "load_settings": ("k2d.settings", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, member = _PUBLIC[name]
    return getattr(import_module(module), member)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
