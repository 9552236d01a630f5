"""Mixed tokens: the unit of the mixed error rate (MER).

A token is a Han character, or a run of Latin letters and digits with inner ' and - (docs/method.md). Other scripts are
tokenised too, so that no text is dropped: scripts written without spaces (kana, Thai, Khmer …) give one token per
character, like Han; scripts written with spaces (Hangul, Cyrillic …) give one token per word.
"""

import re
from collections.abc import Iterable
from typing import Final

from k2d.text.normalise import HAN, LATIN

# Kana, Bopomofo, Thai, Lao, Tibetan, Myanmar, Khmer.
_NO_SPACES: Final = r"\u3041-\u30ff\u31f0-\u31ff\u3105-\u312f\u31a0-\u31bf\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"

# The last alternative matches everything else, so every visible character of a normalised text is part of a token.
TOKEN: Final = re.compile(rf"[{HAN}]|[{LATIN}'.-]+|[{_NO_SPACES}]|[^\s{HAN}{LATIN}{_NO_SPACES}'.-]+")

_is_han = re.compile(f"[{HAN}]").match
_HAN_RUN: Final = re.compile(f"[{HAN}]+")
_LATIN_RUN: Final = re.compile(f"[{LATIN}'.-]+")
_is_single = re.compile(f"[{_NO_SPACES}]").match
_is_latin = re.compile(f"[{LATIN}]").match


def is_han(token: str) -> bool:
    """Whether a token is a Han character."""
    return _is_han(token) is not None


def is_latin(token: str) -> bool:
    """Whether a token is a run of Latin letters and digits."""
    return _is_latin(token) is not None


def is_single(token: str) -> bool:
    """Whether a token is a character of a script other than Han that is written without spaces."""
    return _is_single(token) is not None


def han_tokens(tokens: Iterable[str]) -> list[str]:
    """Select the Han characters, for the Mandarin character error rate (CER)."""
    return list(filter(_is_han, tokens))


def latin_tokens(tokens: Iterable[str]) -> list[str]:
    """Select the Latin and digit tokens, for the English word error rate (WER)."""
    return list(filter(_is_latin, tokens))


def count_scripts(normalised: str) -> tuple[int, int]:
    """Count the Han and the Latin tokens of normalised text, without splitting it."""
    return len(normalised) - len(_HAN_RUN.sub("", normalised)), len(_LATIN_RUN.findall(normalised))


def code_mixing_index(zh_tokens: int, en_tokens: int) -> float:
    """Share of the tokens that are not in the dominant language: 0 (monolingual, or no tokens) to 0.5.

    Source: Das and Gambäck, "Identifying Languages at the Word Level in Code-Mixed Indian Social Media Text", 2014.
    """
    total = zh_tokens + en_tokens
    return min(zh_tokens, en_tokens) / total if total else 0.0
