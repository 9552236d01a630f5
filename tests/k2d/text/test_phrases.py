"""Known hallucinations: hits, and speech that only looks like them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reading_oracle import mixed_tokens

from k2d.text import phrases
from k2d.text.phrases import _load, credit_at_edge, credit_line, phrase

HITS = [
    ("字幕由 Amara.org 社區提供", "字幕由 Amara.org 社区提供"),
    ("請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目", "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目"),
    ("请不吝点赞，订阅，转发，打赏支持明镜与点点栏目。", "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目"),
    ("中文字幕志願者 楊茜茜", "中文字幕志愿者"),
    ("字幕by索蘭婭 字幕by索蘭婭", "字幕by"),
    ("優優獨播劇場——YoYo Television Series Exclusive", "优优独播剧场 YoYo Television Series Exclusive"),
    ("詞曲 李宗盛", "词曲 李宗盛"),
    ("MING PAO CANADA // MING PAO TORONTO", "MING PAO CANADA MING PAO TORONTO"),
    ("Thank you for watching!", "Thank you for watching"),
    ("Thanks for watching. Please subscribe. Bye!", "Thanks for watching"),
    ("Subtitles by the Amara.org community", "Subtitles by the Amara.org community"),
    ("Transcribed by https://otter.ai", "Transcribed by https://otter.ai"),
    ("謝謝觀看 謝謝觀看 謝謝觀看", "谢谢观看"),
    ("謝謝大家" * 5, "谢谢大家"),
    ("Thank you. Thank you. Thank you.", "Thank you"),
    ("謝謝大家，我們下期再見", "我们下期再见"),
    ("ご視聴ありがとうございました", "ご視聴ありがとうございました"),
    ("作詞 王小明 作曲 李小白", "作词"),
    ("請按讚、訂閱、分享，並開啟小鈴鐺喔", "按赞订阅分享"),
    ("好了，今天的视频就到这里，感谢大家的观看，我们下期再见", "感谢大家的观看"),
    # 我們, 好, 那 … are in the list too (0×): they say nothing alone, and nothing against what stands beside them
    ("我們 字幕由 Amara.org 社区提供", "字幕由 Amara.org 社区提供"),
    ("好 那 我們 字幕志願者 楊茜茜", "字幕志愿者"),
    ("字幕由 Amara.org 社區提供 大家", "字幕由 Amara.org 社区提供"),
    ("So guys, thanks for watching", "Thanks for watching"),
]

SPEECH = [
    "",
    "。。。",
    "謝謝大家",
    "謝謝大家 謝謝",
    "Thank you.",
    "Thank you. Bye.",
    "好，謝謝大家，再見，拜拜",
    "好，那我們",
    "校對一下翻譯",
    "訂閱",
    "我們今天來講字幕由 Amara.org 社區提供這件事",
    "他說謝謝觀看然後就走了",
    "we thank you for watching the lecture",
    "字幕志願者幫我們翻譯",
    "字幕志願者是一群非常熱心的人他們每天花很多時間",
    "captions by default are off",
    "translated by my friend",
    "如果你喜歡這個 channel 記得 subscribe",
    "今天我們要介紹的是語音辨識模型的知識蒸餾方法以及它在混合語言上的應用",
    "黑板 字幕由 Amara.org 社區提供",  # a word of no phrase; `credit_at_edge` finds the credit
    "我們看 字幕由 Amara.org 社區提供",
    "the 字幕由 Amara.org 社區提供",
    "字幕由 Amara.org 社區提供 黑板",
    "好 那 我們 大家",
    "so everyone",
]


@pytest.mark.parametrize(("text", "expected"), HITS)
def test_hits(text: str, expected: str) -> None:
    assert phrase(text) == expected


@pytest.mark.parametrize("text", SPEECH)
def test_speech_is_no_hit(text: str) -> None:
    assert phrase(text) is None


def test_every_phrase_of_the_list_is_found_alone_and_repeated() -> None:
    for entry in _load():
        said = " ".join([entry.written] * entry.times)
        assert (phrase(said) is not None) == (entry.times > 0), entry
        assert (phrase(f"{said} {said}") is not None) == (entry.times > 0), entry
        assert phrase(f"這裡 {said}") is None, entry


def test_what_stands_among_others_says_nothing_alone() -> None:
    for one in _load():
        if one.times == 0:
            assert phrase(one.written) is None
            assert phrase(f"{one.written} 謝謝觀看") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天就到這裡。字幕由 Amara.org 社區提供", "字幕由 Amara.org 社区提供"),
        ("字幕志願者 楊茜茜 好，我們繼續。", "字幕志愿者"),
        ("下課。請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目", "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目"),
        ("字幕由 Amara.org 社區提供這句話常常出現", None),
        ("模型很常輸出請不吝點贊訂閱轉發打賞支持明鏡與點點欄目", None),
        ("今天就到這裡。謝謝觀看", None),  # people do say that
        ("", None),
    ],
)
def test_a_credit_beside_speech(text: str, expected: str | None) -> None:
    assert credit_at_edge(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("字幕製作：小宇", "字幕制作"),
        ("校對: Anna Lee", "校对"),
        ("校對：", None),
        ("他說：字幕", None),
        ("翻譯：這句話的意思是明天不用來上班", None),
        ("謝謝：大家", None),
    ],
)
def test_a_role_and_a_name(text: str, expected: str | None) -> None:
    assert credit_line(text) == expected


def _in_no_phrase(word: str) -> bool:
    return not any(token in phrase.tokens for phrase in _load() for token in mixed_tokens(word))


written = st.sampled_from([phrase.written for phrase in _load()])
fillers = st.sampled_from([phrase.written for phrase in _load() if phrase.times == 0])
words = st.sampled_from(["黑板", "數學", "kubernetes", "whiteboard"])


@given(st.lists(written, max_size=8), words)
@example(["字幕由 Amara.org 社区提供"], "黑板")
def test_a_word_that_is_in_no_phrase_makes_it_speech(parts: list[str], word: str) -> None:
    assert _in_no_phrase(word)
    assert phrase(" ".join([word, *parts])) is None


@given(st.lists(written, max_size=8), words, st.lists(written, max_size=8))
def test_only_a_name_may_stand_between_phrases(before: list[str], word: str, after: list[str]) -> None:
    """A word of no phrase counts as a name where an open credit (字幕志願者…) ends at most six tokens before it."""
    if phrase(" ".join([*before, word, *after])) is not None:
        lead = tuple(mixed_tokens(" ".join(before)))
        near = {lead[start:end] for end in range(max(0, len(lead) - 6), len(lead) + 1) for start in range(end)}
        assert any(known.open_tail and known.tokens in near for known in _load())


@given(st.lists(fillers, max_size=4), written, st.lists(fillers, max_size=4))
@example(["我们"], "字幕由 Amara.org 社区提供", [])
def test_what_may_stand_among_others_changes_no_hit(before: list[str], said: str, after: list[str]) -> None:
    if phrase(said) is not None:
        assert phrase(" ".join([*before, said, *after])) is not None


@given(st.lists(fillers, max_size=8))
def test_what_may_stand_among_others_says_nothing_however_often(parts: list[str]) -> None:
    assert phrase(" ".join(parts)) is None


def test_long_texts_of_phrases_are_covered_in_one_pass() -> None:
    """Ways to cover a prefix are kept apart by few states, so work grows with the length and not with the ways."""

    def steps(turns: int) -> int:
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        with pytest.MonkeyPatch.context() as patch:
            keep = phrases._keep
            patch.setattr(phrases, "_keep", lambda *arguments: (count(), keep(*arguments)))
            assert phrase("中文字幕" * turns + "完") is None
        return counted

    few, many = steps(50), steps(500)
    assert few >= 50
    assert many <= 12 * few
