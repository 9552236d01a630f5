"""Text normalisation: the form in which two transcripts are compared.

The order is the paper's: Whisper's BasicTextNormalizer, then OpenCC Traditional → Simplified (`t2s`). This is a
reimplementation. It differs from Whisper's where that loses words or joins them:

- ’ and ‑ become ' and -, and both stay inside a Latin word (don't, gpt-4o), as mixed tokens require. Whisper replaces
  them by spaces.
- A point inside a number stays (3.5 is one token); a comma that groups digits is removed (1,000 → 1000).
- Spoken symbols become words: 20% → 20 percent, C++ → c plus plus, R&D → r and d, a@b → a at b, C# → c sharp. All other
  symbols become spaces, as in Whisper.
- Text in brackets is a remark or a special token and is replaced by a space, so that the words around it are not
  joined; full-width brackets and 【】 〔〕 included. Titles and quotes (《》 「」 “”) lose only their marks.
- Zero-width characters are removed. Digits of other scripts become ASCII digits.

Letters and digits of all scripts are kept; `k2d.text.tokens` splits them into tokens.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Final

import opencc

# Contents of regular expression character classes.
# Digits, and lower-case Latin letters (Latin-1, Latin Extended A to E, IPA).
LATIN: Final = (
    r"a-z0-9\u00df-\u00f6\u00f8-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua723-\ua787\ua78b-\ua7ff\uab30-\uab5a\uab5c-\uab64"
)
# CJK ideographs with all extensions, the repetition mark 々, and the zero 〇 (a number in Unicode).
HAN: Final = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"

Replacement = str | Callable[[re.Match[str]], str]

# Remarks and special tokens. Applied before NFKC, because NFKC turns ⑴ into (1), which must stay.
BRACKETS: Final[tuple[tuple[re.Pattern[str], Replacement], ...]] = (
    (re.compile(r"[<\[＜［][^>\]＞］]*[>\]＞］]"), " "),
    (re.compile(r"[(（][^)）]+[)）]"), " "),
    (re.compile(r"【[^】]*】|〔[^〕]*〕"), " "),
)

# Spoken symbols, and commas that group digits.
SPOKEN: Final[tuple[tuple[re.Pattern[str], Replacement], ...]] = (
    (re.compile(r"(?<=[0-9])\s*%"), " percent "),
    (re.compile(rf"(?<=[{LATIN}])\s*\++"), lambda match: " plus" * match[0].count("+") + " "),
    (re.compile(rf"(?<=[{LATIN}])\s*&\s*(?=[{LATIN}])"), " and "),
    (re.compile(rf"(?<=[{LATIN}])@(?=[{LATIN}])"), " at "),
    (re.compile(r"(?<=[a-z])#"), " sharp "),
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""),
)

# Apostrophes and hyphens that are not inside a Latin word, points that are not inside a number.
LOOSE: Final = re.compile(
    rf"['-](?:(?<![{LATIN}]['-])|(?![{LATIN}]))|\.(?:(?<![0-9]\.)|(?![0-9]))"  # matching the sign first is faster
)

_FOLDED: Final = {"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "‐": "-", "‑": "-", "'": "'", "-": "-", ".": "."}
_HAS_BRACKET: Final = re.compile(r"[<\[＜［(（【〔]")
_HAS_SPOKEN: Final = re.compile(r"[%+&@#]|[0-9],[0-9]")
_HAS_INNER: Final = re.compile(r"['.-]")


def clean(text: str) -> str:
    """Normalise a text, but for the conversion to Simplified characters (`simplify`).

    clean("今天的 Meeting 改到 3.5 點，20% 的人說 don't（笑）")
    # "今天的 meeting 改到 3.5 點 20 percent 的人說 don't"

    Idempotent. Accepts text of any length and script and never raises. Source: docs/method.md.
    """
    if _HAS_BRACKET.search(text):
        for pattern, replacement in BRACKETS:
            text = pattern.sub(replacement, text)
    text = fold(text)
    if _HAS_SPOKEN.search(text):
        for pattern, replacement in SPOKEN:
            text = pattern.sub(replacement, text)
    text = text.translate(LETTERS)
    if _HAS_INNER.search(text):
        text = LOOSE.sub(" ", text)
    return " ".join(text.split())


def fold(text: str) -> str:
    """Lower-case and apply NFKC, in Whisper's order, then lower-case again: NFKC can produce capitals (㏎)."""
    return unicodedata.normalize("NFKC", text.lower()).lower()


def simplify(text: str) -> str:
    """Convert Traditional to Simplified Chinese with OpenCC's `t2s`.

    Lossy (乾, 幹 and 干 become one character), so the result is for comparing, not for storing.
    """
    return str(_converter().convert(text))


@cache
def _converter() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


class _Letters(dict[int, str]):
    """A `str.translate` table, filled on first use of a character: letters and digits stay, the rest is removed."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in _FOLDED:
            kept = _FOLDED[character]
        elif category == "Nd":
            kept = str(unicodedata.decimal(character))  # ٣ → 3
        elif category[0] in "LN":
            kept = character
        else:
            kept = "" if category == "Cf" else " "  # Cf: zero-width joiners, soft hyphens, byte order marks
        self[code] = kept
        return kept


LETTERS: Final = _Letters()
