"""Mixed tokens: the unit of the mixed error rate.

A token is a Han character, or a run of Latin letters and digits with inner ' and - (method.md, section 2). For other
scripts, so that nothing vanishes: those written without spaces (kana, Thai, Khmer …) give one token a character, as Han
does; those written with spaces (Hangul, Cyrillic …) give one token a word.
"""

import re
from collections.abc import Iterable

from k2d.text.normalise import HAN, LATIN, normalise

# Kana, Bopomofo, Thai, Lao, Tibetan, Myanmar, Khmer.
_NO_SPACES = r"\u3041-\u30ff\u31f0-\u31ff\u3105-\u312f\u31a0-\u31bf\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"

# The last alternative takes whatever the others leave: every visible character of a normalised text is in some token.
TOKEN = re.compile(rf"[{HAN}]|[{LATIN}'.-]+|[{_NO_SPACES}]|[^\s{HAN}{LATIN}{_NO_SPACES}'.-]+")

_is_han = re.compile(f"[{HAN}]").match
_HAN_RUN = re.compile(f"[{HAN}]+")
_LATIN_RUN = re.compile(f"[{LATIN}'.-]+")
_is_single = re.compile(f"[{_NO_SPACES}]").match
_is_latin = re.compile(f"[{LATIN}]").match


def mixed_tokens(text: str) -> list[str]:
    """Split any text into mixed tokens; it is normalised first."""
    return split_normalised(normalise(text))


def split_normalised(normalised: str) -> list[str]:
    """Split text that `normalise` has been over; joining the tokens gives it back without its spaces."""
    return TOKEN.findall(normalised)


def is_han(token: str) -> bool:
    """Whether a token is a Han character."""
    return _is_han(token) is not None


def is_latin(token: str) -> bool:
    """Whether a token is a run of Latin letters and digits."""
    return _is_latin(token) is not None


def is_single(token: str) -> bool:
    """Whether a token is a character of another script that is written without spaces."""
    return _is_single(token) is not None


def han_tokens(tokens: Iterable[str]) -> list[str]:
    """The Han characters among tokens, for the Mandarin character error rate."""
    return list(filter(_is_han, tokens))


def latin_tokens(tokens: Iterable[str]) -> list[str]:
    """The Latin and digit tokens among tokens, for the English word error rate."""
    return list(filter(_is_latin, tokens))


def count_scripts(normalised: str) -> tuple[int, int]:
    """How many Han and how many Latin tokens normalised text has, without splitting it."""
    return len(normalised) - len(_HAN_RUN.sub("", normalised)), len(_LATIN_RUN.findall(normalised))


def code_mixing_index(zh_tokens: int, en_tokens: int) -> float:
    """Share of the tokens that are not in the dominant language: 0 monolingual, at most 0.5; 0 without tokens.

    Source: Das and Gambäck, "Identifying Languages at the Word Level in Code-Mixed Indian Social Media Text", 2014.
    """
    total = zh_tokens + en_tokens
    return min(zh_tokens, en_tokens) / total if total else 0.0
