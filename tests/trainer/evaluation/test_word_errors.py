"""jiwer's counts, which are published, against our own, which are another implementation."""

import random

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d.filtering.distance import counts
from k2d.schema import Counts
from k2d.text.reading import read
from trainer.evaluation.word_errors import count_word_errors

WORDS = ["model", "loss", "the", "a", "3", "我", "們", "好", "的", "カ", "e\u0301", "İ", "ß"]
tokens = st.lists(st.sampled_from(WORDS), max_size=25)


def changed(reference: list[str], draws: random.Random) -> list[str]:
    """A transcript with some tokens deleted, inserted and substituted."""
    kept = [token for token in reference if draws.random() > 0.1]
    for _ in range(draws.randint(0, 5)):
        kept.insert(draws.randint(0, len(kept)), draws.choice(WORDS))
    return [draws.choice(WORDS) if draws.random() < 0.1 else token for token in kept]


def test_thousands_of_pairs_have_as_many_edits_as_by_our_own_alignment() -> None:
    draws = random.Random(0)
    total = Counts()
    references, hypotheses = [], []
    for _ in range(5000):
        reference = [draws.choice(WORDS) for _ in range(draws.randint(0, 40))]
        hypothesis = changed(reference, draws)
        published, own = count_word_errors(reference, hypothesis), counts(reference, hypothesis)
        assert (published.edits, published.reference_length, published.hypothesis_length) == (
            own.edits,
            own.reference_length,
            own.hypothesis_length,
        )
        total += published
        references.append(" ".join(reference))
        hypotheses.append(" ".join(hypothesis))
    # pooled counts give the rate that jiwer itself computes over the whole set
    assert total.edits / total.reference_length == jiwer.wer(references, hypotheses)


@given(reference=tokens, hypothesis=tokens)
def test_rates_are_equal(reference: list[str], hypothesis: list[str]) -> None:
    published, own = count_word_errors(reference, hypothesis), counts(reference, hypothesis)
    assert (published.rate, published.bounded) == (own.rate, own.bounded)


@given(text=st.text(max_size=40), other=st.text(max_size=40))
def test_tokens_of_any_text_reach_jiwer_unchanged(text: str, other: str) -> None:
    reference, hypothesis = read(text).tokens, read(other).tokens
    assert count_word_errors(reference, hypothesis).edits == counts(reference, hypothesis).edits


@pytest.mark.parametrize("bad", [["a b"], [""], ["a", ""]])
def test_a_token_with_a_space_is_a_bug(bad: list[str]) -> None:
    with pytest.raises(AssertionError, match="empty or contains a space"):
        count_word_errors(bad, ["a"])


def test_an_empty_reference_has_insertions_only() -> None:
    assert count_word_errors([], ["a", "b"]) == Counts(insertions=2)
    assert count_word_errors(["a"], []) == Counts(deletions=1)
    assert count_word_errors([], []) == Counts()
