"""Terms: names and jargon that a teacher is told beforehand, and the prompt that tells it."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from k2d.errors import BadRequest
from k2d.schema import MIXED

# The sentence that carries terms where Chinese is spoken, in Traditional characters as Whisper mostly writes. After a
# bare list of English terms Whisper base translates into English, after a list without a full stop it goes on with it
# more often (docs/LOG.md).
CHINESE: Final = frozenset((MIXED, "zh", "yue"))
OPENING: Final = "這段錄音會提到："
FULL_STOP: Final = "。"
MAX_CHARACTERS: Final = 8192  # of a prompt; the model reads 223 tokens, hardly 1,000 characters

_BORDERS: Final = re.compile("[,，、;；\r\n]")
_SPECIAL: Final = re.compile(r"<\|[^|]*\|>")


def parse_terms(text: str) -> tuple[str, ...]:
    """Split a list of terms: one a line, or separated by commas; each once, in order.

        parse_terms("NTU COOL, 余思齊\\n反向傳播")  # ("NTU COOL", "余思齊", "反向傳播")

    An empty text has no terms.

    Raises:
        BadRequest: the text has separators only, a control character, or one of Whisper's special tokens.
    """
    text = unicodedata.normalize("NFC", text.removeprefix("\ufeff"))
    if special := _SPECIAL.search(text):
        raise BadRequest(f"a term contains a special token: {special[0][:40]}", hint="leave out <|…|>")
    control = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()), None)
    if control is not None:
        raise BadRequest(f"terms contain the control character {control!r}", hint="give plain text in UTF-8")
    terms = tuple(dict.fromkeys(filter(None, (" ".join(part.split()) for part in _BORDERS.split(text)))))
    if text and not any(character.isalnum() for term in terms for character in term):
        raise BadRequest("there is no term in the list", hint="give one term a line, or separate them by commas")
    return terms


def terms_prompt(terms: Sequence[str], *, language: str) -> str | None:
    """The initial prompt that tells a teacher these terms; None without terms. At most MAX_CHARACTERS, of whole terms.

    terms_prompt(["NTU COOL", "loss"], language="zh-en")  # "這段錄音會提到：NTU COOL、loss。"
    """
    opening, separator, end = (OPENING, "、", FULL_STOP) if language in CHINESE else ("", ", ", "")
    prompt = ""
    for term in terms:
        longer = f"{prompt}{separator}{term}" if prompt else f"{opening}{term}"
        if len(longer) + len(end) > MAX_CHARACTERS:
            break
        prompt = longer
    return f"{prompt}{end}" if prompt else None


def terms_of(prompt: str) -> tuple[str, ...]:
    """The terms of a prompt; of any other text its parts between commas.

    terms_of("這段錄音會提到：NTU COOL、loss。")  # ("NTU COOL", "loss")
    """
    parts = (part.strip() for part in _BORDERS.split(prompt.removeprefix(OPENING).removesuffix(FULL_STOP)))
    return tuple(part for part in parts if part)


def shorter_prompts(prompt: str) -> list[str]:
    """A prompt with its first term alone, its first two, and so on, up to all but the last.

    shorter_prompts("a, b, c")  # ["a", "a, b"]
    """
    end = FULL_STOP if prompt.endswith(FULL_STOP) else ""
    return [prompt[: match.start()].rstrip() + end for match in _BORDERS.finditer(prompt) if match.start()]
