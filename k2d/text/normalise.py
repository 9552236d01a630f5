"""One written form for both sides of a comparison.

The order is the paper's: Whisper's BasicTextNormalizer, then OpenCC Traditional → Simplified (`t2s`). Written anew from
the normaliser's behaviour; it differs where that behaviour loses words or glues them together:

- ’ and ‑ are written ' and -, and both stay inside a Latin word (don't, gpt-4o), as the mixed token wants. Whisper
  makes spaces of them.
- A point inside a number stays (3.5 is one token), a comma that groups digits goes (1,000 → 1000).
- Symbols that are spoken become words: 20% → 20 percent, C++ → c plus plus, R&D → r and d, a@b → a at b, C# → c sharp.
  All others are silent and become spaces, as with Whisper.
- What stands in brackets is a remark or a special token and goes, full-width brackets and 【】 〔〕 included; a space
  remains, so that no two words are glued together. Titles and quotes (《》 「」 “”) lose their marks, not their words.
- Characters without width go. Digits of other scripts become ASCII.

Letters and digits of every script survive; what is a token in them is the business of `k2d.text.tokens`.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

import opencc

# Both for use inside a character class. Digits, and Latin letters after lower-casing (Latin-1, Extended A to E, IPA).
LATIN = (
    r"a-z0-9\u00df-\u00f6\u00f8-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua723-\ua787\ua78b-\ua7ff\uab30-\uab5a\uab5c-\uab64"
)
# Ideographs with all their extensions, the repetition mark 々, and the zero 〇 (which Unicode counts as a number).
HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"

Replacement = str | Callable[[re.Match[str]], str]

# Remarks and special tokens, found before NFKC so that ⑴, which NFKC writes as (1), stays a word.
BRACKETS: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    (re.compile(r"[<\[＜［][^>\]＞］]*[>\]＞］]"), " "),
    (re.compile(r"[(（][^)）]+[)）]"), " "),
    (re.compile(r"【[^】]*】|〔[^〕]*〕"), " "),
)

# What is said for a symbol, and the comma that only groups digits.
SPOKEN: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    (re.compile(r"(?<=[0-9])\s*%"), " percent "),
    (re.compile(rf"(?<=[{LATIN}])\s*\++"), lambda match: " plus" * match[0].count("+") + " "),
    (re.compile(rf"(?<=[{LATIN}])\s*&\s*(?=[{LATIN}])"), " and "),
    (re.compile(rf"(?<=[{LATIN}])@(?=[{LATIN}])"), " at "),
    (re.compile(r"(?<=[a-z])#"), " sharp "),
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""),
)

# Apostrophes and hyphens that are not inside a Latin word, points that are not inside a number.
LOOSE = re.compile(
    rf"['-](?:(?<![{LATIN}]['-])|(?![{LATIN}]))|\.(?:(?<![0-9]\.)|(?![0-9]))"  # the sign first: that is quick to find
)

_FOLDED = {"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "‐": "-", "‑": "-", "'": "'", "-": "-", ".": "."}
_HAS_BRACKET = re.compile(r"[<\[＜［(（【〔]")
_HAS_SPOKEN = re.compile(r"[%+&@#]|[0-9],[0-9]")
_HAS_INNER = re.compile(r"['.-]")


def normalise(text: str) -> str:
    """Bring text to the form in which it is compared: lower-case, Simplified, words apart by single spaces.

    Applying it twice changes nothing. Text may be of any length and script; no input is an error.
    Source: method.md, section 2.
    """
    return simplify(clean(text))


def clean(text: str) -> str:
    """Everything of `normalise` but the step to Simplified characters."""
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
    """Lower-case and compatibility-compose (NFKC), in Whisper's order: NFKC can bring back capitals (㏎)."""
    return unicodedata.normalize("NFKC", text.lower()).lower()


def simplify(text: str) -> str:
    """Traditional to Simplified Chinese, by OpenCC's `t2s`. Merges 乾, 幹 and 干: fit to compare, not to store."""
    return str(_converter().convert(text))


@cache
def _converter() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


class _Letters(dict[int, str]):
    """A `str.translate` table that decides when a character is first met: letters and digits stay, the rest goes."""

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


LETTERS = _Letters()
