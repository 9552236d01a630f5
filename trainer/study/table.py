"""Labels with their truth, as columns. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """Labels that have a reference, one entry each; every array has shape (labels,).

    A label's true MER is its edits over the tokens of its reference. Where nothing is said, every token of the label
    is an edit and its true MER is infinite (0 for a label without tokens).
    """

    names: tuple[str, ...]  # for people: the recording, and the chunk in it
    seconds: Floats
    edits: Floats
    tokens: Floats  # of the reference
    switch_edits: Floats  # at switches between the languages
    switch_tokens: Floats
    groups: npt.NDArray[np.int64]  # labels of one group are drawn together: versions and chunks of one recording
    kinds: dict[str, npt.NDArray[np.str_]]  # what tables split by: "language", "set", "length", "code mixing"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def true_mer(self) -> Floats:
        rate = np.where(self.edits > 0, np.inf, 0.0)
        np.divide(self.edits, self.tokens, out=rate, where=self.tokens > 0)
        return rate

    def only(self, rows: Flags) -> "LabelTable":
        """The labels of a mask."""
        return LabelTable(
            names=tuple(name for name, row in zip(self.names, rows, strict=True) if row),
            seconds=self.seconds[rows],
            edits=self.edits[rows],
            tokens=self.tokens[rows],
            switch_edits=self.switch_edits[rows],
            switch_tokens=self.switch_tokens[rows],
            groups=self.groups[rows],
            kinds={kind: values[rows] for kind, values in self.kinds.items()},
        )


def number_groups(groups: Sequence[object]) -> npt.NDArray[np.int64]:
    """A number for each group, equal for equal ones, in order of first appearance.

    number_groups(["a", "b", "a"])  # [0, 1, 0]
    """
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)
