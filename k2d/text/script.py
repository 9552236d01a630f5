"""Converts labels to one script, Traditional (Taiwan) or Simplified, character by character, and tells their script.

OpenCC has the characters and decides by its phrases where one Simplified character stands for several Traditional ones
(头发 → 頭髮, 发现 → 發現). Vocabulary is never changed: 软件 becomes 軟件, not 軟體 (OpenCC's `s2tw`, not `s2twp`).

OpenCC expects a text in one script, but labels mix them, and many characters are in both (里, 后, 面, 只, 系). So:

- A character that only Traditional text has stays, but for variants that Taiwan writes otherwise (裏 → 裡, 衞 → 衛),
  and for OpenCC's phrases where the text is mixed (头發 → 頭髮).
- A character that only Simplified text has is converted.
- What both have is converted like the rest, unless the text is Traditional already: 系上 (the department) stays 系上 in
  Traditional text, where OpenCC would write 繫上. There it changes only where it is unusual by itself and one of
  OpenCC's phrases says so (這里 → 這裡, but 余先生 stays).
- Japanese stays: stretches of kana and of Han characters that are all in common use in Japan.
"""

import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import opencc

from k2d.schema import LabelScript, Script
from k2d.text.normalise import HAN
from k2d.text.tokens import is_han

# Increase it when a conversion gives other characters. Part of the digest of datasets in one script, with the name of
# the converter, whose dictionaries change between its versions.
SCRIPT_VERSION: Final = 1
CONVERTER: Final = f"OpenCC {opencc.__version__}"
STANDARDS: Final = {Script.TRADITIONAL: "s2tw", Script.SIMPLIFIED: "tw2s"}  # OpenCC's names for the characters used

_KANA: Final = "\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d"  # without ・ and ー, which Chinese text has too
_WITH_KANA: Final = re.compile(rf"[ー{HAN}]*[{_KANA}][{_KANA}ー{HAN}]*")
_COMPATIBILITY: Final = re.compile("[\uf900-\ufaff]")  # Han characters that are in Unicode twice
_TAI: Final = "台"  # Taiwan's standard writes 臺 wherever OpenCC's phrases do not say otherwise
_ZHE: Final = "著"  # 著名 in both scripts, but 看著 is 看着 in Simplified: OpenCC's `t2s` does not convert it

# Both standards list the characters in common use first: Big5 those of Taiwan, JIS X 0208 (here in Shift JIS) Japan's.
_BIG5_COMMON: Final = range(0xA440, 0xC67F)
_JIS_COMMON: Final = range(0x889F, 0x9873)
# Big5 has these for rare senses; in no phrase of OpenCC 1.4.2 are they Traditional. Taiwan writes 聽兒壞並撲掛.
_RARE: Final = frozenset("听儿坏并扑挂")


def convert(text: str, script: Script) -> str:
    """Write a text in one script; it keeps its length, and everything but Han characters.

        convert("后面有一只猫, 这里的头发 very 干净", Script.TRADITIONAL)  # "後面有一隻貓, 這裡的頭髮 very 乾淨"
        convert("後面有一隻貓", Script.SIMPLIFIED)  # "后面有一只猫"

    The context of a character is the whole text, so give a whole label rather than its words. Source: docs/store.md.
    """
    if script is Script.AS_HEARD or not text:
        return text
    analysis = _analyse(text)
    return "".join(_traditional(analysis) if script is Script.TRADITIONAL else _simplified(analysis))


def convert_parts(parts: Sequence[str], script: Script) -> list[str]:
    """Convert texts that follow one another, such as a label's segments, each in the context of all.

    convert_parts(["我的头", "发很长"], Script.TRADITIONAL)  # ["我的頭", "髮很長"]
    """
    converted, at = convert("".join(parts), script), 0
    pieces = []
    for part in parts:
        pieces.append(converted[at : at + len(part)])
        at += len(part)
    return pieces


def script_of(text: str) -> LabelScript:
    """Tell which script a label is in, by the characters that only one of them has.

    script_of("客户說")  # LabelScript.TRADITIONAL: Hong Kong writes 户 too
    script_of("公里")  # LabelScript.NEITHER: both scripts have these characters
    """
    analysis = _analyse(text)
    has_traditional, has_simplified = any(analysis.is_traditional), any(analysis.is_simplified)
    if has_traditional and has_simplified:
        return LabelScript.MIXED
    if has_traditional or has_simplified:
        return LabelScript.TRADITIONAL if has_traditional else LabelScript.SIMPLIFIED
    return LabelScript.NEITHER


@dataclass(frozen=True, slots=True)
class _Analysis:
    """A text with its readings, all of its length."""

    text: str
    common: str  # with Hong Kong's forms (衞) replaced by the common Traditional ones
    simplified: str  # `common` in Simplified characters
    converted: str  # `simplified` in Taiwan's characters, by OpenCC's phrases
    is_traditional: Sequence[bool]  # only Traditional text has the character
    is_simplified: Sequence[bool]  # only Simplified text has it
    is_japanese: Sequence[bool]


def _analyse(text: str) -> _Analysis:
    text = _COMPATIBILITY.sub(lambda match: unicodedata.normalize("NFC", match[0]), text)
    hong_kong = _run("hk2t", text)
    common = "".join(
        other if not _is_common(character) else character for character, other in zip(text, hong_kong, strict=True)
    )
    simplified = _run("t2s", common)
    standard = _run("s2t", simplified)
    japanese = [False] * len(text)
    for match in _WITH_KANA.finditer(text):
        if all(_is_japanese(character) for character in match[0] if is_han(character)):
            japanese[match.start() : match.end()] = [True] * len(match[0])
    return _Analysis(
        text,
        common,
        simplified,
        _run("s2tw", simplified),
        [a != b and not skip for a, b, skip in zip(text, simplified, japanese, strict=True)],
        [
            a == b == c != d and not skip and not _is_common(a)
            for a, b, c, d, skip in zip(text, common, simplified, standard, japanese, strict=True)
        ],
        japanese,
    )


def _traditional(analysis: _Analysis) -> list[str]:
    """The characters in Taiwan's standard."""
    text = analysis.text
    taiwan = _run("t2tw", analysis.common)
    phrases = _run(_PHRASES, analysis.simplified)
    is_mixed = any(analysis.is_simplified)
    is_done = any(analysis.is_traditional) and not is_mixed
    characters = list(analysis.converted)
    for place, character in enumerate(text):
        in_phrase = phrases[place] != analysis.simplified[place]
        if analysis.is_japanese[place]:
            characters[place] = character
        elif analysis.is_traditional[place]:
            characters[place] = phrases[place] if is_mixed and in_phrase else taiwan[place]
        elif is_done and _is_common(character) and character != _TAI:
            characters[place] = phrases[place] if _alone(character) != character else character
    return characters


def _simplified(analysis: _Analysis) -> list[str]:
    """The Simplified characters."""
    text = analysis.text
    characters = list(text)
    mainland = _run("tw2s", "".join(_traditional(analysis))) if _ZHE in text else ""
    for place, character in enumerate(text):
        if analysis.is_traditional[place]:
            characters[place] = analysis.simplified[place]
        elif character == _ZHE and not analysis.is_japanese[place]:
            characters[place] = mainland[place]
    return characters


def _run(config: str, text: str) -> str:
    """Convert with one of OpenCC's configurations; character by character if the length would change."""
    converter = _converter(config)
    converted = str(converter.convert(text))
    if len(converted) == len(text):
        return converted
    alone = ((character, str(converter.convert(character))) for character in text)
    return "".join(other if len(other) == 1 else character for character, other in alone)


@cache
def _alone(character: str) -> str:
    """Taiwan's form of a character without context."""
    return _run("s2tw", character)


@cache
def _is_common(character: str) -> bool:
    """Whether a character is in common use in Taiwan."""
    return character not in _RARE and int.from_bytes(character.encode("big5", "ignore")) in _BIG5_COMMON


@cache
def _is_japanese(character: str) -> bool:
    """Whether a Han character is in common use in Japan."""
    return character == "々" or int.from_bytes(character.encode("shift_jis", "ignore")) in _JIS_COMMON


_PHRASES: Final = "s2tw by phrases alone"


@cache
def _converter(config: str) -> Any:
    return _phrase_converter() if config == _PHRASES else opencc.OpenCC(config)


def _phrase_converter() -> Any:
    """OpenCC's `s2tw` without its table of single characters, so that only what a phrase covers is converted.

    OpenCC has no such configuration; this one is its own, with one dictionary less.
    """
    folder = Path(opencc.__file__).parent / "clib" / "share" / "opencc"
    document = _without_characters(json.loads((folder / "s2tw.json").read_text("utf-8")), folder)
    with tempfile.TemporaryDirectory(prefix="k2d-opencc-") as temporary:
        file = Path(temporary) / "phrases.json"
        file.write_text(json.dumps(document), "utf-8")
        return opencc.OpenCC(str(file))


def _without_characters(value: Any, folder: Path) -> Any:
    """The configuration without dictionaries of single characters, the others by their full paths."""
    if isinstance(value, list):
        return [kept for item in value if (kept := _without_characters(item, folder)) is not None]
    if not isinstance(value, dict):
        return value
    if "file" in value:
        return None if "Characters" in value["file"] else value | {"file": str(folder / value["file"])}
    return {key: kept for key, item in value.items() if (kept := _without_characters(item, folder)) is not None}
