"""The console's words: every text of a page has a translation, with the same values in it."""

import json
import re
from pathlib import Path

import pytest
from places import ROOT

from k2d.documents import NoLabelSeconds
from k2d.filtering.policy import SHORT_NAMES
from k2d.schema import BatchState
from k2d.wording import audio_length
from services.filter.console import words
from services.filter.console.formats import UNITS, duration, hours
from services.filter.console.verdicts import origin_name
from services.filter.console.words import LANGUAGES, Words, preferred, table
from services.filter.endpoints import ENDPOINTS

CONSOLE = Path(words.__file__).parent
# _("…") in templates and code; texts that are looked up by a value are checked where the values are
CALL = re.compile(r"""\b_\(\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")
OTHERS = [code for code in LANGUAGES if code != words.ENGLISH]


def texts() -> set[str]:
    pages = [*(CONSOLE / "templates").rglob("*.html"), *CONSOLE.glob("*.py")]
    found = set()
    for page in pages:
        if page.name != "words.py":
            found |= {json.loads(f'"{own[0] or own[1]}"') for own in CALL.findall(page.read_text("utf-8"))}
    return found


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_with_its_values(language: str) -> None:
    assert len(texts()) > 20
    missing = sorted((texts() | set(UNITS.values()) | set(NoLabelSeconds.model_fields)) - table(language).keys())
    assert not missing
    for text, translated in table(language).items():
        assert set(re.findall(r"\{(\w+)", text)) >= set(values := re.findall(r"\{(\w+)", translated)), text
        assert set(re.findall(r"\{(\w+)\}", text)) == set(values), text


ACTION = re.compile(r"""(?:audit_log\.|\b_)record\(\s*"([^"]+)\"""")


@pytest.mark.parametrize("language", OTHERS)
def test_values_that_pages_look_up_are_translated(language: str) -> None:
    kernel = {own for page in (ROOT / "k2d").rglob("*.py") for own in ACTION.findall(page.read_text("utf-8"))}
    actions = kernel | {endpoint.action for endpoint in ENDPOINTS.values() if endpoint.action}
    assert {"import reviews", "resume", "draw"} <= actions  # of the audit log
    assert not sorted((actions | set(SHORT_NAMES.values()) | set(BatchState)) - table(language).keys())


# a number that is never 1: more than a limit, the limit itself, steps that are put together
NEVER_ONE = ("{count} files are more than", "{files} files in one request", "mean of {count} steps")


def test_a_plural_behind_a_number_has_its_singular() -> None:
    plural = re.compile(r"\{(?!name|policy|points|size)\w+\} (?:[a-z]+ )?(?!is|has|was|this)[a-z]+s\b")
    found = [text for text in texts() if plural.search(text) and not any(own in text for own in NEVER_ONE)]
    assert found == []


@pytest.mark.parametrize("language", OTHERS)
def test_the_table_is_sorted_and_has_no_text_twice(language: str) -> None:
    pairs = json.loads((CONSOLE / f"words.{language}.json").read_text("utf-8"), object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, "zh-TW,zh;q=0.9,en;q=0.8", "zh-Hant"),
        (None, "de,en;q=0.5", "en"),
        (None, "", "en"),
        ("zh-Hant", "en", "zh-Hant"),
        ("nonsense", "en", "en"),
    ],
)
def test_the_readers_language(cookie: str | None, accepted: str, language: str) -> None:
    assert preferred(cookie, accepted) == language


@pytest.mark.parametrize(
    ("seconds", "length", "wait"),
    [(40.0, "40.0 秒", "40 秒"), (5400.0, "90.0 分鐘", "90 分鐘"), (183600.0, "51.0 小時", "2 天 3 小時")],
)
def test_units_of_time_are_in_the_readers_language(seconds: float, length: str, wait: str) -> None:
    chinese, english = Words("zh-Hant"), Words("en")
    assert (hours(seconds, chinese), duration(seconds, chinese)) == (length, wait)
    assert hours(seconds, english) == audio_length(seconds)


def test_origins_of_labels_are_in_the_readers_language() -> None:
    names = [origin_name(origin, Words("zh-Hant")) for origin in ("teacher", "review", "second decode, beam 1")]
    assert names == ["教師模型", "審閱", "重新解碼，束寬 1"]
    assert origin_name("second decode, beam 5", Words("en")) == "second decode, beam 5"


def test_values_are_put_into_texts() -> None:
    assert Words("en")("Error {code}", code=404) == "Error 404"
    assert Words("zh-Hant")("Error {code}", code=404) == "錯誤 404"
    assert Words("xx").language == "en"
