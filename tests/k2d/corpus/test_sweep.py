"""Sweeps: sums over parts are those of the verdicts row by row, whatever columns were read and in how many parts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from k2d.filtering.policy.needed import policy_columns
from lakes import batch, put_recording

from k2d.corpus import chunk as chunk_detail
from k2d.corpus import index as indices
from k2d.corpus import numbers, sweep, views
from k2d.filtering.policy import DEFAULT, PAPER, PRESETS, Policy, Weights, curve, decide, evidence_columns
from k2d.filtering.policy.rules import Quorum
from k2d.schema import Metric
from k2d.store import Lake
from k2d.store import batches as positions

ID = "b_0123456789abcdef"
JUDGE = Policy(name="judge", metric=Metric.EVIDENCE, weights=Weights(bias=-4.0, disagreement=8.0), salvage=True)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Six recordings in three parts of two."""
    for module in (positions, indices, views):
        monkeypatch.setattr(module, "PART", 2)
    lake = Lake(str(tmp_path / "lake"))
    lake.batches.put(batch(6))
    for number in range(6):
        spans = [(i / 5, i / 5 + 0.2) for i in range(number)]
        spoiled = frozenset((i, i % 2) for i in range(0, number, 3))
        put = put_recording(lake, number, spans, bad=spoiled, rejected=frozenset({4}))
        lake.batches.put_result(ID, put)
    return lake


some_columns = st.integers(1, 40).flatmap(
    lambda rows: st.builds(lambda seed: _random_columns(np.random.default_rng(seed), rows), st.integers(0, 2**32))
)
some_weights = st.builds(
    Weights,
    bias=st.floats(-5, 5),
    **{
        name: st.one_of(st.just(0.0), st.floats(0, 8))
        for name in ("disagreement", "forced_logprob", "avg_logprob", "temperature", "no_speech_prob", "speech_rate")
    },
)
optional = st.one_of(st.none(), st.floats(0, 1))
some_policies = st.builds(
    Policy,
    reject_empty=st.booleans(),
    repetition_max=st.integers(1, 9),
    loops_max=st.one_of(st.none(), st.integers(1, 9)),
    reject_phrases=st.booleans(),
    reject_echoes=st.booleans(),
    flip_max=optional,
    foreign_max=optional,
    min_phonemes_per_s=optional,
    max_phonemes_per_s=st.one_of(st.none(), st.floats(1, 20)),
    metric=st.sampled_from(Metric),
    alpha=st.floats(0, 1),
    quorum=st.sampled_from(Quorum),
    weights=some_weights,
)


def _random_columns(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    found = {}
    for field in numbers.CHUNKS:
        if field.name in numbers.FLAGS:
            found[field.name] = rng.random(rows) < 0.2
        elif "float" in str(field.type):
            found[field.name] = rng.normal(0, 1, rows).round(4).astype(np.float32)
        else:
            found[field.name] = rng.integers(0, 10, rows).astype(np.int32)
    for name in ("duration_s", "disagreement_least", "temperature", "no_speech_prob"):
        found[name] = np.abs(found[name])
    return found


@given(some_policies, some_columns)
@settings(max_examples=200, deadline=None)
def test_the_columns_a_policy_needs_give_the_verdicts_of_all_columns(
    policy: Policy, columns: dict[str, np.ndarray]
) -> None:
    few = decide(policy, {name: columns[name] for name in policy_columns(policy)})
    every = decide(policy, columns)
    assert np.array_equal(few.status, every.status)
    assert np.array_equal(few.reason, every.reason)


@pytest.mark.parametrize("policy", [JUDGE, DEFAULT, PAPER, PAPER.varied(metric=Metric.MER_BOUNDED, alpha=0.15)])
def test_a_preview_is_the_sum_of_the_chunks(lake: Lake, policy: Policy) -> None:
    chunks = list(views.all_chunks(lake, lake.batches.get(ID), policy, where=views.ChunkFilter()))
    assert len(chunks) == 15
    found = views.preview(lake, [lake.batches.get(ID)], policy)
    spans = {chunk["id"]: round(1000 * (chunk["end_s"] - chunk["start_s"])) for chunk in chunks}
    accepted = [chunk for chunk in chunks if chunk["verdict"] == "accepted"]
    partly = [chunk for chunk in chunks if chunk["salvaged_s"]]
    assert not {chunk["id"] for chunk in accepted} & {chunk["id"] for chunk in partly}
    assert found["chunks"] == {
        "accepted": len(accepted),
        "salvaged": len(partly),
        "rejected": len(chunks) - len(accepted) - len(partly),
    }
    ms = {name: round(1000 * value) for name, value in found["seconds"].items()}
    assert ms["accepted"] == sum(spans[chunk["id"]] for chunk in accepted)
    assert ms["salvaged"] == sum(round(1000 * chunk["salvaged_s"]) for chunk in partly)
    assert sum(ms.values()) == sum(spans.values())
    for reason, tally in found["reasons"].items():
        assert tally["chunks"] == sum(chunk["reason"] == reason for chunk in chunks)
    assert found["salvage_sample"] == 1.0


@pytest.mark.parametrize("preset", [*PRESETS, "judge"])
def test_the_curve_is_that_of_every_alpha(lake: Lake, preset: str) -> None:
    policy = PRESETS.get(preset, JUDGE)
    found = views.preview(lake, [lake.batches.get(ID)], policy, metrics=tuple(Metric))
    assert set(found["curve"]) == set(Metric) - ({Metric.EVIDENCE} if policy.weights is None else set())
    parts = [part.chunks() for part in lake.parts(ID)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in numbers.CHUNKS.names}
    expected = curve(columns, columns["ms"] / 1000, alphas=views.ALPHAS, policy=policy)
    for metric, line in expected.items():
        points = found["curve"][metric]
        assert [point["chunks"] for point in points] == line.chunks.tolist()
        assert [point["seconds"] for point in points] == pytest.approx(line.seconds.tolist())
    for alpha in (0.0, 0.4, 0.8):
        at = policy.varied(alpha=alpha)
        direct = views.preview(lake, [lake.batches.get(ID)], at)
        point = found["curve"][policy.metric][views.ALPHAS.index(alpha)]
        assert point["chunks"] == direct["chunks"]["accepted"]
        assert point["seconds"] == direct["seconds"]["accepted"]
        assert point["salvaged"] == direct["seconds"]["salvaged"]


def test_beyond_a_limit_salvage_is_estimated_and_says_so(lake: Lake) -> None:
    exact = sweep.sweep(lake.parts(ID), JUDGE)
    assert exact.sample == 1.0
    assert exact.salvaged_ms == 100 * exact.salvaged_chunks > 0
    sampled = sweep.sweep(lake.parts(ID), JUDGE, exact_up_to=10)  # two of three parts hold 15 chunks
    assert sampled.sample == pytest.approx((1 + 9) / 15)
    assert np.array_equal(sampled.chunks, exact.chunks)
    assert np.array_equal(sampled.ms, exact.ms)
    assert 0.5 * exact.salvaged_ms <= sampled.salvaged_ms <= 2 * exact.salvaged_ms


def test_pages_go_through_all_parts(lake: Lake) -> None:
    cursor, seen = None, []
    while True:
        page = views.page(lake, lake.batches.get(ID), JUDGE, limit=4, cursor=cursor)
        seen += [chunk["id"] for chunk in page["chunks"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 15
    assert seen == lake.index(ID, ["id"])["id"].to_pylist()


def test_a_chunk_tells_all_that_is_known_of_it(lake: Lake) -> None:
    (chunk, *_) = views.all_chunks(
        lake, lake.batches.get(ID), JUDGE, where=views.ChunkFilter(recording="talk-3.flac", verdict="rejected")
    )
    found = chunk_detail.detail(lake, chunk["id"], JUDGE)
    assert (found["verdict"], found["reason"]) == ("rejected", "substitution")
    assert found["salvaged_s"] == chunk["salvaged_s"] == 0.1
    bad, good = found["segments"]
    assert (bad["verdict"], bad["salvaged"]) == ("rejected", False)
    assert (good["verdict"], good["salvaged"], good["id"]) == ("accepted", True, f"{chunk['id']}.001")
    assert found["contributions"] == {"bias": -4.0, "disagreement": pytest.approx(7.6)}
    assert found["distances"]["evidence"] == pytest.approx(1 / (1 + np.exp(4 - 7.6)), abs=1e-4)
    assert [hypothesis["perturbation"] for hypothesis in found["hypotheses"]] == ["speed 1.12", "band-pass"]
    steps = found["hypotheses"][0]["diff"]
    assert "".join(step["teacher_text"] for step in steps) == found["teacher_text"]
    assert "".join(step["validator_text"] for step in steps) == "我們 use kafka"
    assert "judge" in found["explanation"]
    by_paper = chunk_detail.detail(lake, chunk["id"], PAPER)
    assert by_paper["contributions"] == {}
    assert by_paper["distances"]["evidence"] is None
    assert {segment["verdict"] for segment in by_paper["segments"]} == {None}


def test_numbers_of_segments_have_the_columns_of_evidence() -> None:
    assert set(evidence_columns([])) <= set(numbers.SEGMENTS.names)
