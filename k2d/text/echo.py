"""Detects a text that repeats its prompt, as Whisper does over silence and music.

The prompt is the text the decoder was conditioned on: the initial prompt, the previous text, or both.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final

from k2d.text.reading import read
from k2d.text.tokens import is_han

# Least number of distinct tokens (an English word counts as two). Chosen: people really do say shorter texts twice.
LEAST_WEIGHT: Final = 8


def echo(text: str, prompt: str) -> float:
    """Share of a text that repeats its prompt: 0 (nothing, or the text is too short to tell) to 1.

    echo("今天我們來看反向傳播", "今天我們來看反向傳播和梯度")  # 1.0
    """
    return echo_share(read(text).tokens, read(prompt).tokens) if prompt else 0.0


def terms_share(tokens: Sequence[str], terms: Collection[tuple[str, ...]]) -> float:
    """Share of mixed tokens that are terms of a prompt, in any order: whole ones, and single words of theirs.

        terms_share(["loss", "cool", "ntu", "ok"], {("ntu", "cool"), ("loss",)})  # 0.75

    A single Han character of a term does not count, since other words have it too.
    """
    words = {token for term in terms for token in term if not is_han(token)}
    lengths = sorted({len(term) for term in terms if term}, reverse=True)
    covered = at = 0
    while at < len(tokens):
        pieces = (tuple(tokens[at : at + length]) for length in lengths)
        term = next((piece for piece in pieces if piece in terms), ())
        covered += len(term) or tokens[at] in words
        at += len(term) or 1
    return covered / max(1, len(tokens))


def echo_share(tokens: Sequence[str], prompt: Sequence[str]) -> float:
    """`echo` for mixed tokens: the share of the tokens with a neighbour that is their neighbour in the prompt too.

    Pairs are counted rather than one long common run, because an echo may start late, drop a word, repeat itself or
    reorder the prompt's terms. Single tokens do not count: the terms of a lecture recur anyway.
    """
    different = set(tokens)
    if 2 * len(different) - sum(map(is_han, different)) < LEAST_WEIGHT:
        return 0.0
    prompt_pairs = set(pairwise(prompt))
    known = [False, *[pair in prompt_pairs for pair in pairwise(tokens)], False]
    return sum([before or after for before, after in pairwise(known)]) / len(tokens)
