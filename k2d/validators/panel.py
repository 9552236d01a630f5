"""The panel of a batch: its listeners in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from k2d.keys import digest
from k2d.validators.model import ModelListener
from k2d.validators.names import JOINT
from k2d.validators.validator import Listener

OPINIONS_VERSION = 1  # of how opinions are stored; what a listener does has its own version in its key


@dataclass(frozen=True, slots=True)
class Panel:
    """The first listener is the paper's validator: the distances are its own. Evidence comes from all."""

    first: ModelListener
    others: tuple[Listener, ...] = ()

    def __iter__(self) -> Iterator[Listener]:
        return iter((self.first, *self.others))

    @property
    def name(self) -> str:
        """What every record calls it."""
        return JOINT.join(listener.name for listener in self)

    @property
    def key(self) -> tuple[Any, ...]:
        """What of the panel goes into the key of its facts."""
        return tuple((listener.name, listener.key) for listener in self)


def opinions_key(label_key: str, listener: Listener) -> str:
    """Where a listener's opinions on one recording's labels are: the same in every panel it sits in."""
    return digest("opinions", OPINIONS_VERSION, label_key, listener.name, listener.key)
