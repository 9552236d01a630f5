"""Keeps the models of the latest batch in memory, so that the next batch with the same ones loads none."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeVar, cast


class Closable(Protocol):
    """A model in memory."""

    def close(self) -> None:
        """Free the weights."""
        ...


Model = TypeVar("Model", bound=Closable)


@dataclass(slots=True)
class _Entry:
    key: tuple[Any, ...]
    model: Closable
    in_use: bool = True


class ModelCache:
    """Models in this process by reference, one of each; a process that runs several batches has one cache.

        models = ModelCache()
        models.keep_only(["packaged:whisper-base"])  # closes all others, before any is loaded
        engine = models.open("packaged:whisper-base", key=("int8", digest), load=lambda: engine_of(...))
        models.give_back(engine)  # instead of engine.close(): it stays in memory

    Bounded by the models of one batch, which are in memory together anyway. Thread-safe, but a model that is loaded
    holds up the others.
    """

    def __init__(self) -> None:
        self.loads = 0  # how many models were loaded so far
        self._lock = Lock()
        self._entries: dict[str, _Entry] = {}

    def keep_only(self, references: Iterable[str]) -> None:
        """Close the models that are not in use and have another reference."""
        kept = set(references)
        with self._lock:
            for reference in [name for name, entry in self._entries.items() if not entry.in_use and name not in kept]:
                self._entries.pop(reference).model.close()

    def open(self, reference: str, *, key: tuple[Any, ...], load: Callable[[], Model]) -> Model:
        """The model that is here, if it has this key and is not in use; else the one that `load` returns, after the one
        with another key was closed.

        Args:
            key: everything that decides what `load` returns.

        Raises:
            K2DError: that of `load`.
        """
        with self._lock:
            entry = self._entries.get(reference)
            if entry is not None and not entry.in_use:
                if entry.key == key:
                    entry.in_use = True
                    return cast(Model, entry.model)
                self._entries.pop(reference).model.close()
            model = load()
            self.loads += 1
            self._entries.setdefault(reference, _Entry(key, model))  # a second one of a reference is not kept
            return model

    def give_back(self, model: Closable) -> None:
        """Keep a model for the next batch. One that is not of this cache, or the second of its reference, is closed."""
        with self._lock:
            for entry in self._entries.values():
                if entry.model is model:
                    entry.in_use = False
                    return
        model.close()

    def close(self) -> None:
        """Close the models that are not in use."""
        self.keep_only(())
