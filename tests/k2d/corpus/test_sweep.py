"""Sweeps: sums over parts are those of the verdicts row by row, whatever columns were read and in how many parts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import JudgedPart, policies
from judged import parts as judged_parts
from lakes import batch, copy, put_recording
from oracles import kept, ledger, salvaged_ms

from k2d.corpus import chunk as chunk_detail
from k2d.corpus import chunk_pages, column_files, views
from k2d.corpus import index as indices
from k2d.corpus.index import parts, read_index
from k2d.corpus.sweep import sweep
from k2d.documents import ChunkFilter
from k2d.filtering.policy import DEFAULT, PAPER, PRESETS, REASONS, STATUSES, Policy, Weights, evidence_columns
from k2d.schema import Metric, Reason, Status
from k2d.store import Lake
from k2d.store import batches as positions

ID = "b_0123456789abcdef"
JUDGE = Policy(name="judge", metric=Metric.EVIDENCE, weights=Weights(bias=-4.0, disagreement=8.0), salvage=True)


@pytest.fixture
def parts_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (positions, indices, chunk_pages):
        monkeypatch.setattr(module, "PART_RECORDINGS", 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Six recordings, to be read in three parts of two."""
    lake = Lake(str(tmp_path_factory.mktemp("written") / "lake"))
    lake.batches.put(batch(6))
    for number in range(6):
        spans = [(i / 5, i / 5 + 0.2) for i in range(number)]
        spoiled = frozenset((i, i % 2) for i in range(0, number, 3))
        put = put_recording(lake, number, spans, bad=spoiled, rejected=frozenset({4}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(positions, "PART_RECORDINGS", 2)
            lake.batches.put_result(ID, put)
    return lake


@pytest.fixture
def lake(written: Lake, tmp_path: Path, parts_of_two: None) -> Lake:
    return copy(written, tmp_path / "lake")


# ---- sums ---------------------------------------------------------------------------------------------------------


@given(policies, st.lists(judged_parts, max_size=3))
def test_the_ledger_is_that_of_the_rows_one_by_one(policy: Policy, swept: list[JudgedPart]) -> None:
    sums = sweep(swept, policy)
    counted = {
        (status, reason): (int(sums.chunks[row, column]), int(sums.ms[row, column]))
        for row, status in enumerate(STATUSES)
        for column, reason in enumerate(REASONS)
        if sums.chunks[row, column]
    }
    assert counted == ledger(policy, swept)
    salvaged = [ms for part in swept for ms in salvaged_ms(policy, part)]
    assert (sums.salvaged_chunks, sums.salvaged_ms) == (sum(ms > 0 for ms in salvaged), sum(salvaged))
    assert sums.sample == 1.0


@settings(max_examples=60)  # each judges every row by itself at every α
@given(policies, st.lists(judged_parts, max_size=2), st.lists(st.floats(0, 1), min_size=1, max_size=3), st.data())
def test_the_curve_is_that_of_the_rows_one_by_one(
    policy: Policy, swept: list[JudgedPart], alphas: list[float], data: st.DataObject
) -> None:
    metrics = data.draw(st.lists(st.sampled_from(Metric), max_size=3))
    ascending = sorted(alphas)
    curves = sweep(swept, policy, alphas=ascending, metrics=metrics).curves
    known = {metric for metric in metrics if metric is not Metric.EVIDENCE or policy.weights is not None}
    assert set(curves) == (known if swept else set())
    for metric, curve in curves.items():
        other = policy.varied(metric=metric)
        expected = [kept(other.model_copy(update={"alpha": alpha}), swept) for alpha in ascending]
        points = zip(curve.chunks.tolist(), curve.ms.tolist(), curve.salvaged_ms.tolist(), strict=True)
        assert list(points) == expected


# ---- ledgers, pages and curves of a batch -------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [JUDGE, DEFAULT, PAPER, PAPER.varied(metric=Metric.MER_BOUNDED, alpha=0.15)])
def test_a_preview_is_the_sum_of_the_chunks(lake: Lake, policy: Policy) -> None:
    chunks = list(chunk_pages.all_chunks(lake, lake.batches.get(ID), policy))
    assert len(chunks) == 15
    preview = views.preview(lake, [lake.batches.get(ID)], policy)
    spans = {chunk.id: round(1000 * (chunk.end_s - chunk.start_s)) for chunk in chunks}
    accepted = [chunk for chunk in chunks if chunk.verdict is Status.ACCEPTED]
    partly = [chunk for chunk in chunks if chunk.salvaged_s]
    assert not {chunk.id for chunk in accepted} & {chunk.id for chunk in partly}
    assert preview.chunks.accepted == len(accepted)
    assert preview.chunks.salvaged == len(partly)
    assert preview.chunks.rejected == len(chunks) - len(accepted) - len(partly)
    ms = {name: round(1000 * seconds) for name, seconds in preview.seconds}
    assert ms["accepted"] == sum(spans[chunk.id] for chunk in accepted)
    assert ms["salvaged"] == sum(round(1000 * chunk.salvaged_s) for chunk in partly)
    assert sum(ms.values()) == sum(spans.values())
    for reason, counts in preview.reasons.items():
        assert counts.chunks == sum(chunk.reason == reason for chunk in chunks)
    assert preview.salvage_sample == 1.0


@pytest.mark.parametrize("preset", [*PRESETS, "judge"])
def test_the_curve_of_a_preview_is_that_of_every_alpha(lake: Lake, preset: str) -> None:
    policy = PRESETS.get(preset, JUDGE)
    whole = lake.batches.get(ID)
    preview = views.preview(lake, [whole], policy, metrics=tuple(Metric))
    assert set(preview.curve) == set(Metric) - ({Metric.EVIDENCE} if policy.weights is None else set())
    swept = list(parts(lake, ID))
    for metric, points in preview.curve.items():
        assert [point.alpha for point in points] == list(views.ALPHAS)
        for point in points:
            chunks, ms, salvaged = kept(policy.varied(metric=metric, alpha=point.alpha), swept)
            assert (point.chunks, point.seconds, point.salvaged) == (chunks, ms / 1000, salvaged / 1000)
    for point in preview.curve[policy.metric]:
        direct = views.preview(lake, [whole], policy.varied(alpha=point.alpha))
        assert (point.chunks, point.seconds) == (direct.chunks.accepted, direct.seconds.accepted)
        assert point.salvaged == direct.seconds.salvaged


def test_beyond_a_limit_salvage_is_estimated_and_says_so(lake: Lake) -> None:
    exact = sweep(parts(lake, ID), JUDGE)
    assert exact.sample == 1.0
    assert exact.salvaged_ms == 100 * exact.salvaged_chunks > 0
    sampled = sweep(parts(lake, ID), JUDGE, exact_up_to=10)  # two of three parts hold 15 chunks
    assert sampled.sample == pytest.approx((1 + 9) / 15)
    assert np.array_equal(sampled.chunks, exact.chunks)
    assert np.array_equal(sampled.ms, exact.ms)
    assert 0.5 * exact.salvaged_ms <= sampled.salvaged_ms <= 2 * exact.salvaged_ms


def test_pages_go_through_all_parts(lake: Lake) -> None:
    cursor, ids = None, []
    while True:
        page = chunk_pages.page(lake, lake.batches.get(ID), JUDGE, limit=4, cursor=cursor)
        assert len(page.chunks) == 4 or page.next is None
        ids += [chunk.id for chunk in page.chunks]
        cursor = page.next
        if cursor is None:
            break
    assert len(ids) == len(set(ids)) == 15
    assert ids == read_index(lake, ID, ["id"])["id"].to_pylist()


def test_a_chunk_tells_all_that_is_known_of_it(lake: Lake) -> None:
    where = ChunkFilter(recording="talk-3.flac", verdict=Status.REJECTED)
    (chunk, *_) = chunk_pages.all_chunks(lake, lake.batches.get(ID), JUDGE, where=where)
    detail = chunk_detail.detail(lake, chunk.id, JUDGE)
    assert (detail.verdict, detail.reason) == (Status.REJECTED, Reason.SUBSTITUTION)
    assert detail.salvaged_s == chunk.salvaged_s == 0.1
    bad, good = detail.segments
    assert (bad.verdict, bad.salvaged) == (Status.REJECTED, False)
    assert (good.verdict, good.salvaged, good.id) == (Status.ACCEPTED, True, f"{chunk.id}.001")
    assert detail.contributions == {"bias": -4.0, "disagreement": pytest.approx(7.6)}
    assert detail.distances[Metric.EVIDENCE] == pytest.approx(1 / (1 + np.exp(4 - 7.6)), abs=1e-4)
    assert [hypothesis.perturbation for hypothesis in detail.hypotheses] == ["speed 1.12", "band-pass"]
    steps = detail.hypotheses[0].diff
    assert "".join(step.teacher_text for step in steps) == detail.teacher_text
    assert "".join(step.validator_text for step in steps) == "我們 use kafka"
    assert "judge" in detail.explanation
    by_paper = chunk_detail.detail(lake, chunk.id, PAPER)
    assert by_paper.contributions == {}
    assert by_paper.distances[Metric.EVIDENCE] is None
    assert {segment.verdict for segment in by_paper.segments} == {None}


def test_columns_of_segments_have_those_of_evidence() -> None:
    assert set(evidence_columns([])) <= set(column_files.SEGMENTS.names)
