"""Metrics over columns: each against a plain version for one chunk, and the paper's composite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import DISTANCES, some_distances
from oracles import distance

from k2d.filtering.distance import compare
from k2d.filtering.policy import METRICS, SHORT_NAMES, columns_of, distances
from k2d.schema import Counts, Distances, Metric

speech = st.text(alphabet="我你好謝天銀行ab c'1，。", max_size=30)


def measured(metric: Metric, chunk: Distances, repetition_max: int = 5) -> float:
    [value] = distances(metric, columns_of([chunk]), repetition_max)
    return float(value)


@given(st.lists(some_distances, max_size=6), st.sampled_from(DISTANCES), st.integers(1, 9))
def test_columns_hold_the_metrics_of_each_chunk(chunks: list[Distances], metric: Metric, limit: int) -> None:
    expected = [distance(metric, chunk, limit) for chunk in chunks]
    assert distances(metric, columns_of(chunks), limit).tolist() == expected


def test_every_metric_but_evidence_is_a_distance_with_a_name() -> None:
    assert set(METRICS) == set(DISTANCES)
    assert set(SHORT_NAMES) == set(Metric)
    with pytest.raises(KeyError):
        distances(Metric.EVIDENCE, columns_of([]))


@given(st.lists(some_distances, max_size=6), st.sampled_from(DISTANCES))
def test_a_metric_reads_the_columns_it_names_and_no_others(chunks: list[Distances], metric: Metric) -> None:
    columns = columns_of(chunks)
    named = {name: columns[name] for name in METRICS[metric].columns}
    assert distances(metric, named).tolist() == distances(metric, columns).tolist()


@given(speech, speech)
def test_bounded_metrics_are_symmetric_and_at_most_one(teacher: str, validator: str) -> None:
    there, back = compare(teacher, [validator]), compare(validator, [teacher])
    for metric in (Metric.MER_BOUNDED, Metric.PER_BOUNDED):
        assert measured(metric, there) == measured(metric, back) <= 1
    assert measured(Metric.COMPOSITE, there) <= 1
    assert measured(Metric.COMPOSITE_BOUNDED, there) <= measured(Metric.COMPOSITE, there)


@given(speech)
def test_a_text_agrees_with_itself(text: str) -> None:
    same = compare(text, [text])
    metrics = (Metric.MER, Metric.PER, Metric.MER_BOUNDED, Metric.PER_BOUNDED)
    assert {measured(metric, same) for metric in metrics} == {0.0}


def test_script_case_punctuation_and_numerals_are_no_difference() -> None:
    chunk = compare("我們有 25 個 GPU，對吧？", ["我们有二十五个gpu对吧"])
    assert measured(Metric.MER, chunk) > 0  # 25 is one token, 二十五 are three
    assert measured(Metric.PER, chunk) == 0
    assert measured(Metric.MER, compare("「謝謝」 Model!", ["谢谢 model"])) == 0


def _chunk(error: float, *, teacher: int = 1, validator: int = 1) -> Distances:
    edits = round(error * 10)
    return Distances(Counts(), Counts(hits=10, insertions=edits), teacher, validator, None, 10, 0)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (_chunk(0.3), 0.3),
        (_chunk(2.5), 1.0),
        (_chunk(0.0, teacher=6), 1.0),  # the teacher loops: rejected
        (_chunk(0.9, validator=6), 0.0),  # only the validator loops: kept
        (_chunk(0.9, teacher=6, validator=6), 1.0),
        (_chunk(0.3, teacher=5, validator=5), 0.3),  # more than 5, strictly
    ],
)
def test_composite_is_the_papers(chunk: Distances, expected: float) -> None:
    assert measured(Metric.COMPOSITE, chunk) == pytest.approx(expected)


def test_composite_takes_another_limit() -> None:
    assert measured(Metric.COMPOSITE, _chunk(0.3, teacher=4), 3) == 1.0
