"""Evidence: what it says of plain cases, the laws it keeps, and the paper's distances against a slow oracle."""

from dataclasses import fields, replace

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_oracle import mixed_tokens, phonemes

from k2d.filtering.distance import compare
from k2d.filtering.evidence import ChunkEvidence, ChunkTexts, mean_logprob, weigh, weigh_many
from k2d.schema import Counts, Evidence, Hypothesis, Segment, join_text
from k2d.text.sounds import decode, encode

FRESH = "卡爸怕媽發" * 6  # no phoneme but a is in 你好 or 謝謝
words = st.sampled_from(["我", "你", "好", "天", "銀行", "長大", " model ", " 2 ", "二", " a ", " Okay. ", "，", "カ"])
texts = st.lists(words, max_size=12).map("".join)


def segments(*texts: str, logprob: float = -0.3) -> list[Segment]:
    return [
        Segment(3.0 * place, 3.0 * place + 3, text, tuple(range(len(text))), logprob, 0.1, 1.2, 0.0, "zh")
        for place, text in enumerate(texts)
    ]


def hypothesis(
    text: str, *, validator: str = "model:small", scores: tuple[float, ...] = (), probe: bool = False
) -> Hypothesis:
    return Hypothesis(validator, "as is", text, -0.2, scores, is_phonemes=probe)


def weighed_from(label: str | list[str], *said: str) -> ChunkEvidence:
    label = [label] if isinstance(label, str) else label
    return weigh(segments(*label), [hypothesis(text) for text in said])


TERMS = "這段錄音會提到：NTU COOL、gradient descent、反向傳播、sourdough、余思齊。"


@pytest.mark.parametrize(
    "label", ["NTU COOL、反向傳播", "sourdough", "余思齊、sourdough、NTU COOL", "sourdough, gradient, cool"]
)
@pytest.mark.parametrize("said", ["", "謝謝大家", "嗯"])
def test_terms_that_nobody_heard_are_an_echo(label: str, said: str) -> None:
    assert weigh(segments(label), [hypothesis(said)], prompt=TERMS).evidence.is_echo
    assert not weigh(segments(label), [hypothesis(said)]).evidence.is_echo


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("NTU COOL、反向傳播", "NT 庫 反向傳播"),
        ("gradient descent 反向傳播", "gradient the cent 反相傳播"),
        ("余思齊", "于思其"),
        ("今天要講 gradient descent 和反向傳播", "謝謝大家"),  # unconfirmed, but more than terms
    ],
)
def test_terms_that_were_said_are_no_echo(label: str, said: str) -> None:
    assert not weigh(segments(label), [hypothesis(said)], prompt=TERMS).evidence.is_echo


def test_an_echo_in_one_segment_is_an_echo_of_the_chunk() -> None:
    said = [hypothesis("今天天氣很好")]
    result = weigh(segments("今天天氣很好", "NTU COOL、反向傳播、sourdough"), said, prompt=TERMS)
    assert [evidence.is_echo for evidence in result.segment_evidence] == [False, True]
    assert result.evidence.is_echo


# ---- plain cases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("我們有 2 個 model", "我们有两个 model"),  # numerals, script
        ("二十五 percent", "25%"),
        ("two models", "2 models"),
        ("OK 看著", "okay 看着"),  # spellings, variants
        ("他在公式", "她再攻勢"),  # homophones
        ("「謝謝」 GPU!", "谢谢 gpu"),
    ],
)
def test_what_sounds_the_same_is_no_error(label: str, said: str) -> None:
    e = weighed_from(label, said).evidence
    assert (e.disagreement_most, e.zh_error, e.en_error, e.substituted, e.deleted, e.inserted) == (0,) * 6


def test_homophones_are_counted_as_what_they_are() -> None:
    assert weighed_from("他在公式", "她再公式").evidence.homophones == 0.5
    assert weighed_from("他在公式", "他在公式").evidence.homophones == 0


def test_edits_belong_to_the_segment_they_are_in() -> None:
    good, bad, extra = weighed_from(
        ["今天天氣很好", " 我們用 transformer", " 謝謝"], "今天天氣很好我們用船謝謝你喔"
    ).segment_evidence
    assert good.disagreement_middle == 0
    assert bad.en_error == 1
    assert (extra.substituted, extra.inserted, extra.deleted) == (0, 0, 0.5)


def test_a_wrong_word_is_wholly_wrong_and_a_wrong_character_by_its_phonemes() -> None:
    assert weighed_from("model", "motel").evidence.disagreement_middle == 1
    e = weighed_from("好", "號").evidence  # the same toneless
    assert e.disagreement_middle == 0
    e = weighed_from("好", "澳").evidence  # h ao, ao
    assert (e.disagreement_middle, e.zh_error, e.inserted) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("label", "said", "deleted", "inserted"),
    [("", "", 0, 0), ("", "你好", 1, 0), ("你好", "", 0, 1), ("。", "…", 0, 0)],
)
def test_nothing_said_or_nothing_written(label: str, said: str, deleted: float, inserted: float) -> None:
    weighed = weighed_from(label, said)
    e = weighed.evidence
    assert (e.deleted, e.inserted, e.disagreement_most) == (deleted, inserted, max(deleted, inserted))
    assert weighed.segment_evidence == (e,)


def test_a_segment_without_text_among_others() -> None:
    first, empty, last = weighed_from(["你好", "", "再見"], "你好再見").segment_evidence
    assert (first.disagreement_most, empty.phonemes, empty.disagreement_most, last.disagreement_most) == (0, 0, 0, 0)


def test_a_translation_flips_and_a_loan_word_does_not() -> None:
    said = "我覺得很好吃 我覺得不錯的啊"
    kept, flipped = weighed_from(["我覺得很好吃", " I think it is good"], said).segment_evidence
    assert kept.flip == 0
    assert flipped.flip > 0.5
    whole = weighed_from(["我覺得很好吃", " I think it is good"], said).evidence
    assert whole.flip == flipped.flip
    assert weighed_from(["OK"], "好").evidence.flip < 0.5


def test_hypotheses_are_gathered_as_least_middle_and_most() -> None:
    e = weighed_from("你好謝天", "你好謝天", "你好", "").evidence
    assert (e.disagreement_least, e.disagreement_middle, e.disagreement_most) == (0, 0.5, 1)
    assert e.inserted == 0.5


def test_a_looping_hypothesis_is_compared_for_what_it_says() -> None:
    weighed = weighed_from("謝謝大家來上課", "謝謝大家" * 30)
    assert weighed.distances.validator_repetition > 5
    assert weighed.evidence.hypothesis_repetition > 5
    assert 0.3 < weighed.evidence.disagreement_middle < 0.6
    assert weighed_from("今天我們要談 model 的架構", "好" * 200).evidence.disagreement_middle > 0.9


def test_signals_of_the_teacher_and_forced_logprobs_of_the_validators() -> None:
    label = [
        replace(segments("你好")[0], avg_logprob=-1.0, temperature=0.4),
        replace(segments("謝謝大家來")[0], avg_logprob=-0.1, no_speech_prob=0.7, compression_ratio=2.0),
    ]
    e = weigh(label, [hypothesis("你好"), hypothesis("謝謝", validator="b")]).evidence
    assert e.forced_logprob == e.avg_logprob == pytest.approx(mean_logprob(label), abs=1e-4)
    assert (e.temperature, e.no_speech_prob, e.compression_ratio) == pytest.approx((0.4, 0.7, 2.0))
    scored = [
        hypothesis("你好", scores=(-0.5, -2.5)),
        hypothesis("你好", validator="b", scores=(-1.5, -0.5)),
        hypothesis("x"),
    ]
    weighed = weigh(label, scored)
    assert [one.forced_logprob for one in weighed.segment_evidence] == [-1.0, -1.5]
    assert weighed.evidence.forced_logprob == pytest.approx((2 * -1.0 + 5 * -1.5) / 7, abs=1e-4)  # a token's mean


def test_rules_see_the_worst_segment() -> None:
    weighed = weighed_from(["今天上課", " 字幕由 Amara.org 社區提供", " " + "對啊" * 8], "今天上課")
    assert [one.is_phrase for one in weighed.segment_evidence] == [False, True, False]
    assert weighed.evidence.is_phrase
    assert weighed.segment_evidence[2].loops == weighed.evidence.loops == 8
    assert weighed.segment_evidence[0].loops == 0
    echo = weigh(
        segments("今天的主題是強化學習與控制"), [hypothesis("")], prompt="今天的主題是強化學習與控制，還有別的"
    )
    assert echo.evidence.is_echo
    assert not weighed_from("今天的主題是強化學習與控制", "").evidence.is_echo


def test_repetition_is_counted_within_a_segment() -> None:
    one, two = weighed_from(["今天天氣真的很好", " 今天天氣真的很好"], "x").segment_evidence
    assert one.teacher_repetition == two.teacher_repetition == 1
    assert weighed_from(["今天天氣真的很好", " 今天天氣真的很好"], "x").evidence.teacher_repetition == 2


def test_a_probe_is_aligned_by_phonemes_alone() -> None:
    label = segments("我們", " train model")
    e = weigh(label, [hypothesis("uo m en T R EY N M AA D AH L", validator="probe:1", probe=True)])
    assert e.evidence.disagreement_most == 0
    assert (e.distances.mixed, e.distances.phonemes) == (Counts(hits=4), Counts(hits=12))
    e = weigh(label, [hypothesis("uo m en T R EY N M AA T AH L", validator="probe:1", probe=True)])
    assert e.segment_evidence[0].disagreement_most == 0
    assert e.segment_evidence[1].en_error == e.segment_evidence[1].disagreement_most == pytest.approx(1 / 9, abs=1e-4)
    assert e.distances.mixed == Counts(hits=3, substitutions=1)


def test_to_weigh_takes_a_segment_and_a_hypothesis() -> None:
    with pytest.raises(ValueError, match="at least one segment"):
        weigh(segments("你好"), [])
    with pytest.raises(ValueError, match="at least one segment"):
        weigh([], [hypothesis("你好")])


# ---- laws ---------------------------------------------------------------------------------------------------------


def floats(e: Evidence) -> dict[str, float]:
    return {field.name: getattr(e, field.name) for field in fields(e) if field.type is float}


@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=3))
def test_evidence_is_in_range_and_survives_storing(label: list[str], said: list[str]) -> None:
    weighed = weighed_from(label, *said)
    for e in (weighed.evidence, *weighed.segment_evidence):
        for name, value in floats(e).items():
            assert value == float(np.float32(value)), name
            if name not in ("duration_s", "forced_logprob", "avg_logprob", "compression_ratio"):
                assert 0 <= value <= 1, name
        assert e.disagreement_least <= e.disagreement_middle <= e.disagreement_most
        if e.disagreement_least == e.disagreement_most:  # one hypothesis, or all alike
            parts = e.substituted + e.deleted + e.inserted
            assert parts == pytest.approx(e.disagreement_middle, abs=3e-4) or parts > 1


@given(st.lists(texts, min_size=1, max_size=4), texts)
def test_segments_add_up_to_the_chunk(label: list[str], said: str) -> None:
    weighed = weighed_from(label, said)
    text = join_text(label)
    for name in ("zh_tokens", "en_tokens", "other_tokens", "phonemes"):
        assert sum(getattr(one, name) for one in weighed.segment_evidence) == getattr(weighed.evidence, name)
    assert weighed.evidence.phonemes == len(phonemes(mixed_tokens(text)))
    assert (weighed.evidence.zh_tokens, weighed.evidence.en_tokens) == (
        weighed.distances.zh_tokens,
        weighed.distances.en_tokens,
    )


@settings(max_examples=60)
@given(st.permutations(range(1, 13)), st.sampled_from(["replace", "drop", "add"]))
def test_more_edits_never_lower_disagreement(order: list[int], how: str) -> None:
    label = "你好謝謝你好謝謝你好謝謝你"
    disagreements = []
    for edits in range(0, 13, 3):
        tokens: list[str] = list(label)
        for place in order[:edits]:
            tokens[place] = {"replace": FRESH[place], "drop": "", "add": tokens[place] + FRESH[place]}[how]
        disagreements.append(weighed_from(label, "".join(tokens)).evidence.disagreement_middle)
    assert disagreements == sorted(disagreements)
    assert disagreements[0] == 0 < disagreements[-1]


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=3), st.lists(texts, min_size=2, max_size=4), st.randoms())
def test_order_matters_for_the_distances_alone(label: list[str], said: list[str], random: object) -> None:
    hypotheses = [hypothesis(text, validator=f"model:{place}") for place, text in enumerate(said)]
    there, back = weigh(segments(*label), hypotheses), weigh(segments(*label), hypotheses[::-1])
    assert there.evidence == back.evidence
    assert there.segment_evidence == back.segment_evidence
    assert there.distances == compare(join_text(label), [said[0]])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.lists(texts, min_size=1, max_size=3), st.lists(texts, min_size=1, max_size=2)), max_size=5)
)
def test_many_are_weighed_as_each_alone(chunks: list[tuple[list[str], list[str]]]) -> None:
    many = [ChunkTexts(segments(*label), [hypothesis(text) for text in said]) for label, said in chunks]
    assert weigh_many(many) == [weigh(each.segments, each.hypotheses) for each in many]


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_a_hypothesis_in_phonemes_counts_as_one_in_text(label: list[str], said: str) -> None:
    """Of Mandarin alone, where a token is wrong by the share of its phonemes, the two count the same phonemes."""
    label = ["".join(c for c in text if c in "我你好天") for text in label]
    spoken = "".join(c for c in said if c in "我你好天")
    as_units = hypothesis(" ".join(phonemes(mixed_tokens(spoken))), probe=True)
    by_text, by_units = weighed_from(label, spoken), weigh(segments(*label), [as_units])
    assert by_text.evidence.zh_error == by_units.evidence.zh_error
    assert by_text.distances.phonemes == by_units.distances.phonemes


# ---- the paper's distances ----------------------------------------------------------------------------------------


def oracle(reference: list[str], hypothesis: list[str]) -> Counts:
    """By jiwer, over tokens that are private words."""
    if not reference:
        return Counts(insertions=len(hypothesis))
    names: dict[str, str] = {}
    both = [" ".join(names.setdefault(one, f"w{len(names)}") for one in side) for side in (reference, hypothesis)]
    found = jiwer.process_words(*both)
    return Counts(found.hits, found.substitutions, found.deletions, found.insertions)


@given(st.lists(texts, min_size=1, max_size=3), st.lists(texts, min_size=1, max_size=2))
def test_distances_are_the_papers(label: list[str], said: list[str]) -> None:
    distances, text = weighed_from(label, *said).distances, join_text(label)
    assert distances == compare(text, said)
    teacher = mixed_tokens(text)
    assert distances.mixed == sum((oracle(mixed_tokens(one), teacher) for one in said), Counts())
    assert distances.phonemes == sum((oracle(phonemes(mixed_tokens(one)), phonemes(teacher)) for one in said), Counts())


def test_looping_hypotheses_leave_the_papers_distances_alone() -> None:
    assert weighed_from("謝謝大家來", "謝謝大家" * 20).distances == compare("謝謝大家來", ["謝謝大家" * 20])


@given(st.lists(st.sampled_from(["x", "ie", "AH", "ueng", "K", "カ", "é", "㐂"])))
def test_sounds_give_their_phonemes_back(units: list[str]) -> None:
    assert list(decode(encode(units))) == units
