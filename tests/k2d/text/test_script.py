"""Labels in one script: characters change, never words, lengths, letters, digits or punctuation."""

import json

import opencc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from places import ROOT

from k2d.schema import LabelScript, Script
from k2d.text.normalise import simplify
from k2d.text.script import convert, convert_parts, script_of

TRADITIONAL, SIMPLIFIED, AS_HEARD = Script.TRADITIONAL, Script.SIMPLIFIED, Script.AS_HEARD

# Simplified, and what Taiwan writes: one Simplified character stands for several Traditional ones
PAIRS = [
    ("头发很长，发现理发店", "頭髮很長，發現理髮店"),
    ("干净的饼干，干部干涉，若干人在干什么", "乾淨的餅乾，幹部干涉，若干人在幹什麼"),
    ("皇后在后面，后天以后", "皇后在後面，後天以後"),
    ("公里这里，里面的邻里", "公里這裡，裡面的鄰里"),
    ("台风来了，我们在舞台", "颱風來了，我們在舞臺"),
    ("吃面条的方面，里面，面包", "吃麵條的方面，裡面，麵包"),
    ("只有一只猫", "只有一隻貓"),
    ("征求象征，长征", "徵求象徵，長征"),
    ("复杂的复习，重复", "複雜的複習，重複"),
    ("日历和历史", "日曆和歷史"),
    ("几个茶几", "幾個茶几"),
    ("我们听说坏了", "我們聽說壞了"),
    ("看着显著的着火", "看著顯著的著火"),
    ("乾隆与乾坤", "乾隆與乾坤"),
]

# As a lecturer in Taiwan would be transcribed: must stay as it is
TAIWAN = [
    "余先生跟范老師、游同學、周杰倫都在系上",
    "宣布停課，皇后走了三里路，里長說只有干涉沒有用",
    "這間老麵店的方面",
    "郁小姐說征服、北斗、山谷、丰采、茶几",
    "GPT-4 的 loss 是 3.5，我們用 1,000 筆資料",
]

# Taiwanese words, Mainland ones: both in either script
WORDS = [("软件鼠标信息内存", "軟件鼠標信息內存"), ("软体滑鼠资讯记忆体", "軟體滑鼠資訊記憶體")]


@pytest.mark.parametrize(("simplified", "traditional"), PAIRS + WORDS)
def test_words_stay_and_their_characters_change(simplified: str, traditional: str) -> None:
    assert convert(simplified, TRADITIONAL) == traditional
    assert convert(traditional, SIMPLIFIED) == simplified
    assert convert(simplified, SIMPLIFIED) == simplified
    assert convert(traditional, TRADITIONAL) == traditional


@pytest.mark.parametrize("text", TAIWAN)
def test_what_is_traditional_already_stays(text: str) -> None:
    assert convert(text, TRADITIONAL) == text
    assert convert(convert(text, SIMPLIFIED), SIMPLIFIED) == convert(text, SIMPLIFIED)


@pytest.mark.parametrize(
    ("mixed", "traditional", "simplified"),
    [
        ("就起床去搭小火车，三點半", "就起床去搭小火車，三點半", "就起床去搭小火车，三点半"),
        ("頭发和头發", "頭髮和頭髮", "头发和头发"),  # mixed within a word
        ("這里面有人", "這裡面有人", "这里面有人"),  # a character of both scripts, in Traditional text
        ("在這里，在后面，台灣", "在這裡，在後面，臺灣", "在这里，在后面，台湾"),
        ("我們今天学習 deep learning 的发展", "我們今天學習 deep learning 的發展", "我们今天学习 deep learning 的发展"),
        ("爷爷小时候很窮", "爺爺小時候很窮", "爷爷小时候很穷"),
    ],
)
def test_labels_mixed_within_a_row(mixed: str, traditional: str, simplified: str) -> None:
    assert convert(mixed, TRADITIONAL) == traditional
    assert convert(mixed, SIMPLIFIED) == simplified


@pytest.mark.parametrize(
    ("hong_kong", "taiwan", "simplified"),
    [
        ("裏面的衞生", "裡面的衛生", "里面的卫生"),
        ("客户説線上綫", "客戶說線上線", "客户说线上线"),
        ("麪包羣眾，牀邊", "麵包群眾，床邊", "面包群众，床边"),
        ("看着溫度和温度，喺度", "看著溫度和溫度，喺度", "看着温度和温度，喺度"),
    ],
)
def test_hong_kong_variants(hong_kong: str, taiwan: str, simplified: str) -> None:
    assert convert(hong_kong, TRADITIONAL) == taiwan
    assert convert(hong_kong, SIMPLIFIED) == simplified
    assert script_of(hong_kong) is LabelScript.TRADITIONAL


@pytest.mark.parametrize("text", ["学校です。国会の議員", "中国語を勉強しています", "データ", "人々の声"])
def test_japanese_stays(text: str) -> None:
    assert convert(text, TRADITIONAL) == convert(text, SIMPLIFIED) == text
    assert script_of(text) is LabelScript.NEITHER


def test_chinese_around_japanese_is_converted() -> None:
    assert convert("我们学了ありがとう这个词", TRADITIONAL) == "我們學了ありがとう這個詞"
    assert convert("我們學了ありがとう這個詞", SIMPLIFIED) == "我们学了ありがとう这个词"
    assert convert("鮮の味，汉堡", TRADITIONAL) == "鮮の味，漢堡"


@pytest.mark.parametrize(
    "text",
    ["", " ", "Hello, it's 3.5 GB?!", "“引” ‘x’《a》「b」…——（c）", "<|0.00|> ok <|2.50|>", "ㄅㄆㄇ 한국어 ½ ㎏ 😀 é"],
)
def test_everything_else_stays(text: str) -> None:
    kept = text.replace("引", "")
    assert convert(kept, TRADITIONAL) == convert(kept, SIMPLIFIED) == kept
    assert script_of(kept) is LabelScript.NEITHER


def test_as_heard_is_as_heard() -> None:
    assert convert("裏面的头發", AS_HEARD) == "裏面的头發"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("今天天氣很好", LabelScript.TRADITIONAL),
        ("今天天气很好", LabelScript.SIMPLIFIED),
        ("昨天客户那邊", LabelScript.TRADITIONAL),  # 户 is Hong Kong's too
        ("三點去搭火车", LabelScript.MIXED),
        ("公里只有台上", LabelScript.NEITHER),  # both scripts have these
        ("hello", LabelScript.NEITHER),
    ],
)
def test_scripts_of_labels(text: str, script: LabelScript) -> None:
    assert script_of(text) is script


def test_a_segment_is_converted_in_the_context_of_its_neighbours() -> None:
    assert convert_parts([" 我的头", "发很长", "", " ok"], TRADITIONAL) == [" 我的頭", "髮很長", "", " ok"]


CHINESE = st.text(st.sampled_from("".join(a + b for a, b in PAIRS) + "里后干面只系余范游台着著裏衞户abc 3.5，の"))


@given(st.one_of(st.text(), CHINESE))
@example("㐀𠮷\u8c48\ufe00𪚥")
@example("\x00后")
@example("\uf9e9")  # 里 once more
def test_properties(text: str) -> None:
    for script in (TRADITIONAL, SIMPLIFIED):
        converted = convert(text, script)
        assert len(converted) == len(text)
        assert convert(converted, script) == converted
        assert all(a == b for a, b in zip(text, converted, strict=True) if a.isascii() or not a.isalpha())


@given(CHINESE)
def test_there_and_back(text: str) -> None:
    text = text.replace("の", "")  # what becomes Japanese stays
    assert convert(convert(text, TRADITIONAL), SIMPLIFIED) == convert(text, SIMPLIFIED)


@given(CHINESE)
def test_words_are_those_of_the_label(text: str) -> None:
    """Nothing that normalisation tells apart changes, but for the particle 著, which `t2s` leaves."""
    for script in (TRADITIONAL, SIMPLIFIED):
        same = simplify(convert(text, script)).replace("著", "着").replace("幺", "么")
        assert same == simplify(text).replace("裏", "里").replace("衞", "卫").replace("著", "着").replace("幺", "么")


def test_simplified_text_becomes_what_opencc_writes() -> None:
    """The sample sentences, which are Taiwanese, and the same in Simplified characters."""
    lines = (ROOT / "examples/audio/manifest.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    s2tw, t2s = opencc.OpenCC("s2tw"), opencc.OpenCC("t2s")
    for text in texts:
        assert convert(text, TRADITIONAL) == text
        assert convert(text, SIMPLIFIED) == t2s.convert(text)
        assert convert(t2s.convert(text), TRADITIONAL) == s2tw.convert(t2s.convert(text))
