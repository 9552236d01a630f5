"""The hypotheses on a segment that a reviewer may choose from, and where they differ from the label."""

from dataclasses import replace

import pytest
from lakes import chunk, fact

from k2d.corpus.calibration.candidates import candidates_of, stops_of
from k2d.filtering.distance import split_by_segment
from k2d.schema import Hypothesis


@pytest.mark.parametrize(
    ("label", "text", "pieces"),
    [
        ([" 我們 use", " Kafka"], "我們 us kafka", ("我們 us", "kafka")),
        (["今天", "天氣好"], "今天天氣真好", ("今天", "天氣真好")),
        (["今天", "天氣好"], "", ("", "")),
        (["", "好"], "很好", ("", "很好")),
        (["今天，", "好。"], "今天, OK 好!", ("今天, OK", "好!")),
        (["a b", "c d"], "c d", ("", "c d")),
        (["嗯"], "Deadline 是 下禮拜五", ("Deadline 是 下禮拜五",)),
    ],
)
def test_a_hypothesis_is_cut_where_segments_end(label, text, pieces):
    assert split_by_segment(label, text) == pieces


def facts(*hypotheses: Hypothesis):
    plain = fact("f" * 32, "rec_" + "0" * 24, chunk(0, 0.0, 4.0, " 我們 use Kafka"))  # two segments with this text
    return replace(plain, hypotheses=hypotheses)


def heard(text: str, **changes) -> Hypothesis:
    return Hypothesis("model:x", "as is", text, -0.5, **changes)


def test_candidates_differ_from_the_label_and_from_one_another():
    twice = heard("我們 use Kafka 我們 us cafe")
    found = candidates_of(
        facts(heard("我們 use kafka! 我們 use kafka"), twice, twice, heard("我們 use Kafka 他們 use")), 1
    )
    assert [one.text for one in found] == ["我們 us cafe", "他們 use"]
    assert found[0].validators == ("model:x, as is",) * 2


def test_phonemes_and_english_only_texts_are_no_candidates():
    english = replace(heard("kafka"), validator="english:x")
    assert candidates_of(facts(heard("w o m", is_phonemes=True), english), 0) == []


def test_there_are_as_many_as_keys():
    assert len(candidates_of(facts(*(heard(f"{n} 我們 use Kafka 我們 {n}") for n in range(20))), 1)) == 9


def test_stops_are_where_candidates_differ():
    label = "我們 use Kafka"
    found = candidates_of(facts(heard(label + "我們 us Kafka"), heard(label + "我們 use Kafka now")), 1)
    stops = stops_of(label, found)
    assert [label[start:end] for start, end in stops] == ["use", ""]
    assert stops[1] == (len(label), len(label))
    assert stops_of(label, []) == []
