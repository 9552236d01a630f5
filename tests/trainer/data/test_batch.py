"""Cutting a step into micro-batches: every row once, the longest first, as many parts as asked."""

import pytest

from trainer.data.batch import DecoderTokens, PreparedRow, cut_by_length


def rows(*lengths: int) -> list[PreparedRow]:
    return [PreparedRow(f"{n}", None, DecoderTokens(tuple(range(length)), 1), 1.0) for n, length in enumerate(lengths)]


@pytest.mark.parametrize(
    ("lengths", "parts", "cut"),
    [
        ((5, 9, 7, 3), 2, [["1", "2"], ["0", "3"]]),
        ((5, 5, 5, 5), 2, [["0", "1"], ["2", "3"]]),  # equal lengths stay in order
        ((5, 9, 7), 2, [["1"], ["2", "0"]]),  # a row was skipped: still two
        ((5,), 2, [["0"]]),
        ((), 2, []),
        ((4, 8, 6), 1, [["1", "2", "0"]]),
    ],
    ids=str,
)
def test_cut_by_length(lengths: tuple[int, ...], parts: int, cut: list[list[str]]) -> None:
    assert [[row.id for row in part] for part in cut_by_length(rows(*lengths), parts)] == cut
