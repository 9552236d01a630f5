"""Text normalisation: the form in which two transcripts are compared.

The order is the paper's: Whisper's BasicTextNormalizer, then OpenCC Traditional → Simplified (`t2s`). This is a
reimplementation. It differs from Whisper's where that loses words or joins them:

- Apostrophes and hyphens of every kind become ' and -, and both stay inside a Latin word (don't, gpt-4o), as mixed
  tokens require. Whisper replaces them by spaces.
- A point inside a number stays (3.5 is one token); a comma that groups digits is removed (1,000 → 1000).
- Spoken symbols become words: 20% → 20 percent, C++ → c plus plus, R&D → r and d, a@b → a at b, C# → c sharp,
  $5 → 5 dollars. All other symbols become spaces, as in Whisper.
- Initials lose their points (U.S.A. → usa), and abbreviations that only their point tells from a word are written out
  (No. 1 → number 1).
- Characters as written in Taiwan, Hong Kong or Japan become one form (衞 → 卫, 看著 → 看着, 気 → 气).
- Text in brackets is a remark or a special token and is replaced by a space, so that the words around it are not
  joined; full-width brackets and 【】 〔〕 included. Titles and quotes (《》 「」 “”) lose only their marks, and the
  area code of a telephone number stays: (02) 2345-6789.
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
    (re.compile(r"[(（]\+?([0-9]{1,4})[)）]\s*-?(?=[0-9]{3})"), lambda match: match[1] + "-"),
    (re.compile(r"[<\[＜［][^>\]＞］]*[>\]＞］]"), " "),
    (re.compile(r"[(（][^)）]+[)）]"), " "),
    (re.compile(r"【[^】]*】|〔[^〕]*〕"), " "),
)

# Abbreviations that are words without their point, and the words they stand for. Before a number, or before a word.
_BEFORE_NUMBERS: Final = {
    "no": "number",
    "nos": "numbers",
    "fig": "figure",
    "vol": "volume",
    "ch": "chapter",
    "sec": "section",
    "eq": "equation",
    "p": "page",
    "pp": "pages",
    "ext": "extension",
    "ver": "version",
    "jan": "january",
    "feb": "february",
    "mar": "march",
    "apr": "april",
    "jun": "june",
    "jul": "july",
    "aug": "august",
    "sep": "september",
    "oct": "october",
    "nov": "november",
    "dec": "december",
}
_BEFORE_WORDS: Final = {
    "st": "saint",
    "mt": "mount",
    "ft": "fort",
    "gen": "general",
    "col": "colonel",
    "rev": "reverend",
}
ABBREVIATIONS: Final = (*_BEFORE_NUMBERS, *_BEFORE_WORDS, "ph")  # of at most three letters

# An amount of money: the sign before it, with the letters of a country (NT$), or behind it.
_SIGNS: Final = "".join(map(chr, (*range(0xA2, 0xA6), ord("$"), 0x0E3F, 0x17DB, *range(0x20A0, 0x20C1))))
_AMOUNT: Final = r"(?P<amount>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)"
_MULTIPLES: Final = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion"}
_MULTIPLE: Final = (
    rf"(?P<multiple>\s*(?:hundred|thousand|million|billion|trillion)(?![{LATIN}])"
    rf"|(?:[kmbt]|mn|bn)(?![{LATIN}])|\s*[十百千萬万億亿兆]+)?"
)
_SAME_PLURAL: Final = frozenset(("yen", "yuan", "won", "baht", "dong", "kip"))
# The currency is written after the amount as well ($5 dollars, ¥100 元).
_UNIT: Final = (
    r"(?P<unit>\s*(?:[人民美港台臺日歐欧英新]{0,2}[元圓圆円塊块鎊镑幣币]|(?:us |nt |hk )?"
    r"(?:dollars?|cents?|euros?|pounds?|yen|yuan|won|bucks|usd|ntd|twd|hkd|rmb|cny|eur|gbp|jpy)(?![a-z])))?"
)

# Spoken symbols, and commas that group digits.
SPOKEN: Final[tuple[tuple[re.Pattern[str], Replacement], ...]] = (
    (
        re.compile(
            rf"(?<![{LATIN}])(?P<country>[a-z]{{1,3}})?(?<![0-9])(?<![0-9] )"
            rf"(?P<sign>[{_SIGNS}])\s*{_AMOUNT}{_MULTIPLE}{_UNIT}"
        ),
        lambda match: _money(match),
    ),
    (re.compile(rf"{_AMOUNT}{_MULTIPLE}\s*(?P<sign>[{_SIGNS}])"), lambda match: _money(match)),
    (re.compile(r"(?<=[0-9])\s*%"), " percent "),
    (re.compile(rf"(?<=[{LATIN}])\s*\++"), lambda match: " plus" * match[0].count("+") + " "),
    (re.compile(rf"(?<=[{LATIN}])\s*&\s*(?=[{LATIN}])"), " and "),
    (re.compile(rf"(?<=[{LATIN}])@(?=[{LATIN}])"), " at "),
    (re.compile(r"(?<=[a-z])#"), " sharp "),
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""),
    (re.compile(rf"(?<![{LATIN}])ph\.\s?d(?![{LATIN}])\.?"), "phd "),
    (
        re.compile(rf"(?<![{LATIN}'.-])[a-z](?:\.[a-z])+(?![{LATIN}])\.?"),
        lambda match: match[0].replace(".", "") + (" " if match.string[match.end() :][:1] not in "'’" else ""),
    ),
    (
        re.compile(rf"(?<![{LATIN}'-])({'|'.join(_BEFORE_NUMBERS)})\.\s*(?=[0-9])"),
        lambda match: _BEFORE_NUMBERS[match[1]] + " ",
    ),
    (
        re.compile(rf"(?<![{LATIN}'-])({'|'.join(_BEFORE_WORDS)})\.\s*(?=[a-z])"),
        lambda match: _BEFORE_WORDS[match[1]] + " ",
    ),
)


def _money(match: re.Match[str]) -> str:
    """$5 → 5 dollars, NT$1 → 1 nt dollar, €3m → 3 million euros; ¥5 → 5 元 beside Han characters, else 5 yen."""
    multiple = (match["multiple"] or "").strip()
    country = match.groupdict().get("country")
    words = [match["amount"], _MULTIPLES.get(multiple, multiple), country or ""]
    if unit := match.groupdict().get("unit"):
        words.append(unit.strip())
    elif match["sign"] == "¥" and not country and _HAS_HAN.search(match.string):
        words.append("元")
    else:
        singular = currency(match["sign"])
        words.append(singular if match["amount"] == "1" and not multiple else _plural(singular))
    return f" {' '.join(filter(None, words))} "


@cache
def currency(sign: str) -> str:
    """The English name of a currency sign, singular, from its Unicode name: € → euro, ₽ → ruble."""
    words = unicodedata.name(sign).lower().replace("new sheqel", "shekel").split()
    return words[-1] if "sign" not in words else words[words.index("sign") - 1]


def _plural(name: str) -> str:
    return name if name in _SAME_PLURAL else name[:-1] + "ies" if name.endswith("cy") else name + "s"


# Apostrophes and hyphens that are not inside a Latin word, points that are not inside a number.
LOOSE: Final = re.compile(
    rf"['-](?:(?<![{LATIN}]['-])|(?![{LATIN}]))|\.(?:(?<![0-9]\.)|(?![0-9]))"  # matching the sign first is faster
)

_FOLDED: Final = {
    **dict.fromkeys("'’‘‛ʼʹ′`´ˈ＇", "'"),
    **dict.fromkeys("-‐‑‒–−﹣－⁃˗", "-"),  # but not the long dashes between sentences
    ".": ".",
}
_HAS_BRACKET: Final = re.compile(r"[<\[＜［(（【〔]")
HAS_SPOKEN: Final = re.compile(rf"[%+&@#{_SIGNS}]|[0-9],[0-9]|[a-z]\.\s*[a-z0-9]")
_HAS_HAN: Final = re.compile(f"[{HAN}]")
HAS_INNER: Final = re.compile(r"['.-]")


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
    if HAS_SPOKEN.search(text):
        for pattern, replacement in SPOKEN:
            text = pattern.sub(replacement, text)
    text = text.translate(LETTERS)
    if HAS_INNER.search(text):
        text = LOOSE.sub(" ", text)
    return " ".join(text.split())


def fold(text: str) -> str:
    """Lower-case and apply NFKC, in Whisper's order, then lower-case again: NFKC can produce capitals (㏎)."""
    return unicodedata.normalize("NFKC", text.lower()).lower()


def simplify(text: str) -> str:
    """Convert cleaned text from Traditional to Simplified Chinese with OpenCC's `t2s`.

    Taiwan's 著 becomes 着 where it is not zhu (看著, but 著名), which `t2s` leaves alone. Lossy (乾, 幹 and 干 become
    one character), so the result is for comparing, not for storing. As long as the text but for rare compositions.
    """
    text = str(_converter("t2s").convert(text))
    if "著" in text:
        text = _PARTICLE.sub("着", text)
    return text.replace("甚么", "什么")


# 著 is zhu in names of writings and a few other words, and elsewhere the particle 着. From the phrases in pypinyin's
# dictionary in which 著 is read zhu; 著 before 书 is nearly always the particle (看著书).
_PARTICLE: Final = re.compile("(?<![专卓原合名土巨拙撰新昭显编论译较遗共所])著(?![名作者述称录文]|书立)")


@cache
def _converter(chain: str) -> opencc.OpenCC:
    return opencc.OpenCC(chain)


# Variants that OpenCC's tables lack: of the 第一批异体字整理表 (China, 1955), and of the 常用漢字表 (Japan, 2010). 闘
# and such arrive here by way of an older form (鬭) that OpenCC does not simplify.
_MERGED_PAIRS: Final = """
妳你 牠它 砲炮 邨村 碁棋 畧略 裠裙 煖暖 僊仙 糉粽 濶阔 徧遍 竝并 諠喧 懽欢 讙欢 怱匆 犂犁 韮韭 妬妒 姙妊 媿愧
嬾懒 紥扎 鬭斗 鬪斗 鄕乡 鑛矿 澁涩 慙惭 慼戚 隄堤 嶋岛 菓果 菴庵 蒐搜 噉啖 戞戛 寗宁 甯宁 冺泯 喆哲 堃坤 啣衔
揹背 甦苏 倣仿 傚效 勦剿 徬彷 搆构 濬浚 踫碰 糢模 繙翻 賸剩 餽馈 籐藤 鎔熔 鑪炉 痲麻 暱昵 琍璃 玨珏 珮佩 瘉愈
慇殷 鎗枪 毬球 偺咱 啗啖 姪侄 廼乃 迺乃 燄焰 瞇眯 跼局 埜野 頴颖 焔焰 薗园 汚污 鴬莺 廻回 駈驱 栢柏 諌谏 倶俱
繋系 頚颈 戸户 呉吴 娯娱 砿矿 讃赞 姉姊 舎舍 賎贱 疎疏 窓窗 聡聪 駄驮 値值 壷壶 兎兔 涜渎 嚢囊 蝿蝇 溌泼 姫姬
氷冰 冨富 舗铺 頬颊 隣邻 隷隶 竃灶 呑吞 侭尽 叡睿 皐皋
"""
_MERGED: Final = {pair[0]: pair[1] for pair in _MERGED_PAIRS.split()}


_VARIANT_CHAINS: Final = ("tw2t", "hk2t", "jp2t")  # to OpenCC's standard form: from Taiwan, Hong Kong, Japan


@cache
def _variant(character: str) -> str:
    """The standard form of a Han character (衞 → 衛, 気 → 氣); itself where it is one.

    What GB 2312 has is standard Simplified (芸 is not 藝 in Chinese), and what `t2s` converts is standard Traditional.
    """
    merged = _MERGED.get(character)
    if merged or _is_simplified(character) or _converter("t2s").convert(character) != character:
        return merged or character
    for chain in _VARIANT_CHAINS:
        standard = str(_converter(chain).convert(character))
        if len(standard) == 1 and standard != character:
            return _variant(standard)
    return character


def _is_simplified(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


class _Letters(dict[int, str]):
    """A `str.translate` table, filled on first use of a character.

    Letters and digits stay, Han characters in their standard form; the rest is removed.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in _FOLDED:
            kept = _FOLDED[character]
        elif category == "Nd":
            kept = str(unicodedata.decimal(character))  # ٣ → 3
        elif category[0] in "LN":
            kept = _variant(character) if _HAS_HAN.match(character) else character
        else:
            kept = "" if category == "Cf" else " "  # Cf: zero-width joiners, soft hyphens, byte order marks
        self[code] = kept
        return kept


LETTERS: Final = _Letters()
