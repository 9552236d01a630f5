"""Echo: a text that only says its prompt again, as Whisper does where there is nothing to hear.

The prompt is what the decoder was given before the text: the initial prompt, the previous text, or both.
"""

from collections.abc import Sequence
from itertools import pairwise

from k2d.text.tokens import is_han, mixed_tokens

LEAST_WEIGHT = 8  # of different tokens, an English word for two: shorter ones are asked or answered twice as often


def echo(text: str, prompt: str) -> float:
    """How much of a text its prompt has already said: 0 (nothing, or the text is too short to tell) to 1."""
    return echo_share(mixed_tokens(text), mixed_tokens(prompt)) if prompt else 0.0


def echo_share(tokens: Sequence[str], prompt: Sequence[str]) -> float:
    """`echo` for mixed tokens: the share of the tokens that stand beside a neighbour they have in the prompt.

    Not one long run: an echo often starts late, drops a word, comes twice, or lists the prompt's terms in another
    order. Single words do not count: those of a lecture always come back.
    """
    different = set(tokens)
    if 2 * len(different) - sum(map(is_han, different)) < LEAST_WEIGHT:
        return 0.0
    said = set(pairwise(prompt))
    known = [False, *[pair in said for pair in pairwise(tokens)], False]
    return sum([before or after for before, after in pairwise(known)]) / len(tokens)
