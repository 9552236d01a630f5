"""Word timestamps are read from heads that exist, in a student cut from a teacher and in any exported model."""

from collections.abc import Sequence

import pytest

from trainer.model.alignment_heads import alignment_heads

KNOWN = [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("known", "layers", "expected"),
    [
        (KNOWN, range(4), KNOWN),  # a model's own
        (KNOWN, (0, 3), [[0, 1]]),  # of a cut student: layer 2 is gone
        (KNOWN, (0, 2), [[0, 1], [1, 0]]),  # layer 2 of the teacher is the student's layer 1
        ([[1, 0], [5, 1]], range(2), [[1, 0]]),  # layer 5 does not exist
        # without any: all heads of the last half of the layers
        ([[0, 9]], range(2), [[1, 0], [1, 1]]),  # head 9 does not exist
        (KNOWN, (3,), [[0, 0], [0, 1]]),
        (None, range(2), [[1, 0], [1, 1]]),
        ((), range(3), [[1, 0], [1, 1], [2, 0], [2, 1]]),
    ],
)
def test_heads_are_those_of_layers_that_exist(
    known: list[list[int]] | None, layers: Sequence[int], expected: list[list[int]]
) -> None:
    assert alignment_heads(known, layers=layers, heads=2) == expected
