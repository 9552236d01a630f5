"""The console's words: English in templates and code, and a table of translations for every other language."""

import json
import string
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

COOKIE: Final = "k2d_language"
ENGLISH: Final = "en"
LANGUAGES: Final[Mapping[str, str]] = {ENGLISH: "English", "zh-Hant": "繁體中文"}  # by what they call themselves


class _Formatter(string.Formatter):
    """str.format, with `{count:one|many}` for words that follow a number."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        one, bar, many = format_spec.partition("|")
        if not bar:
            return super().format_field(value, format_spec)
        return one if str(value) == "1" else many


_FORMATTER: Final = _Formatter()


class Words:
    """Translates the console's texts.

    Words("en")("{count} {count:recording|recordings}", count=1)  # "1 recording"
    Words("zh-Hant")("{count} {count:recording|recordings}", count=12)  # "12 個錄音"
    """

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else ENGLISH
        self._table = {} if self.language == ENGLISH else table(self.language)

    def __call__(self, text: str, **values: Any) -> str:
        """The text in this language, with the values in its braces; English where there is no translation.

        `{count:file|files}` is "file" where `count` is 1, and "files" otherwise.
        """
        translated = self._table.get(text, text)
        return _FORMATTER.vformat(translated, (), values) if values else translated


@cache
def table(language: str) -> dict[str, str]:
    """The translations of a language, by the English text."""
    words: dict[str, str] = json.loads((files(__package__) / f"words.{language}.json").read_text("utf-8"))
    return words


def preferred(cookie: str | None, accept_language: str) -> str:
    """The language someone chose, or else the first of the browser's that there is.

    preferred(None, "zh-TW,zh;q=0.9,en;q=0.8") == "zh-Hant"
    """
    if cookie in LANGUAGES:
        return str(cookie)
    for entry in accept_language.split(","):
        tag = entry.partition(";")[0].strip().lower()
        if tag.startswith("zh"):
            return "zh-Hant"
        if tag.startswith("en"):
            return ENGLISH
    return ENGLISH
