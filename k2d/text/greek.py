"""Names of Greek letters, as which they are read aloud."""

import re
import unicodedata
from functools import cache
from typing import Final

_GREEK: Final = re.compile("[\u0370-\u03ff\u1f00-\u1fff]+")
_LONGEST: Final = 3  # letters; chosen: αβ is two letters, λόγος is a Greek word
_NAME_LIST: Final = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi
omega digamma
"""
_NAMES: Final = frozenset(_NAME_LIST.split())


def letter_names(token: str) -> tuple[str, ...] | None:
    """The English names of a token's letters if it consists of a few Greek letters, else None.

    letter_names("αβ")  # ('alpha', 'beta')
    """
    if len(token) > _LONGEST or not _GREEK.fullmatch(token):
        return None
    names = tuple(map(_name, token))
    return names if all(names) else None


@cache
def _name(letter: str) -> str:
    """From its Unicode name: GREEK SMALL LETTER LAMDA → lambda; empty where it has none of the letters' names."""
    words = unicodedata.name(letter, "").lower().replace("lamda", "lambda").split()
    return next((word for word in words if word in _NAMES), "")
