"""A bounded memory of what was read from files that never change."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Final, TypeVar, cast

_T = TypeVar("_T")

REMEMBERED: Final = 4096  # values; chosen: the ledgers of thirty batches of 120,000 recordings, a few kB each


class Memory:
    """Remembers values by key, the ones used last. Can be shared between threads.

    memory = Memory()
    memory.recall(("ledger", stem), lambda: read(stem))
    """

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def recall(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value of a key; `make` is called where it is not remembered, by two threads at once perhaps."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return cast(_T, self._values[key])
        value = make()
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value

    def drop(self, key: Hashable) -> None:
        """Forget a key."""
        with self._lock:
            self._values.pop(key, None)
