"""Edits between two token sequences by jiwer: what every published error rate is made of. Pure.

jiwer is a second implementation, of others: tests compare it with `k2d.filtering.distance.counts` over random texts.
Tokens are joined by spaces and split there again, so it compares our own mixed tokens as they are. (Its `mer` is the
*match* error rate, not the mixed one; only its counts are used.)
"""

from collections.abc import Sequence
from typing import Final

import jiwer

from k2d.schema import Counts

SPACE: Final = " "
SPLIT: Final = jiwer.Compose([jiwer.ReduceToListOfListOfWords(word_delimiter=SPACE)])  # and nothing else


def count_word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Count hits, substitutions, deletions and insertions of an alignment with the fewest edits.

    count_word_errors(["我", "用", "model"], ["我", "用", "motel"])  # Counts(hits=2, substitutions=1)
    """
    output = jiwer.process_words(
        _join(reference), _join(hypothesis), reference_transform=SPLIT, hypothesis_transform=SPLIT
    )
    return Counts(output.hits, output.substitutions, output.deletions, output.insertions)


def _join(tokens: Sequence[str]) -> str:
    text = SPACE.join(tokens)
    assert [token for token in text.split(SPACE) if token] == list(tokens), (
        f"a token is empty or contains a space: {tokens}"
    )
    return text
