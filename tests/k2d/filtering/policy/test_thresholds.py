"""The least α that keeps each chunk and segment: equal to what `decide` keeps, at any α."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from judged import JudgedPart, by_evidence, parts, policies

from k2d.filtering.policy import Policy, decide, least_alpha, metric_column, policy_columns, thresholds
from k2d.schema import Metric

alphas = st.floats(0, 1)


def alphas_of(policy: Policy, part: JudgedPart, drawn: list[float]) -> list[float]:
    """Any α, its ends, and α that equal a chunk's or a segment's distance: where ≤ and < differ."""
    ties = [*metric_column(policy, part.chunks)]
    if policy.metric is Metric.EVIDENCE:
        ties += [*metric_column(policy, part.segments)]
    return [0.0, 1.0, *drawn, *(float(value) for value in ties if 0 <= value <= 1)]


@given(policies, parts, alphas, alphas)
def test_a_larger_alpha_never_rejects_what_a_smaller_one_kept(
    policy: Policy, part: JudgedPart, first: float, second: float
) -> None:
    low, high = sorted((first, second))
    t = thresholds(policy, part)
    assert not (t.whole(low) & ~t.whole(high)).any()
    kept = [t.whole(alpha)[t.chunk] | np.isin(np.arange(len(t.segments)), t.salvaged(alpha)) for alpha in (low, high)]
    assert not (kept[0] & ~kept[1]).any()
    for alpha, segments in zip((low, high), kept, strict=True):
        assert np.array_equal(segments, t.segments <= alpha)


@given(policies, parts, st.lists(alphas, max_size=3))
def test_chunks_are_kept_whole_exactly_where_decide_accepts(
    policy: Policy, part: JudgedPart, drawn: list[float]
) -> None:
    t = thresholds(policy, part)
    for alpha in alphas_of(policy, part, drawn):
        at = policy.model_copy(update={"alpha": alpha})
        assert np.array_equal(t.whole(alpha), decide(at, part.chunks).accepted)


@given(policies, parts, st.lists(alphas, max_size=3))
def test_segments_are_salvaged_exactly_where_decide_accepts_them_alone(
    policy: Policy, part: JudgedPart, drawn: list[float]
) -> None:
    t = thresholds(policy, part)
    for alpha in alphas_of(policy, part, drawn):
        salvaged = np.zeros(len(part.segments["ms"]), np.bool_)
        if policy.salvage:
            at = policy.model_copy(update={"alpha": alpha})
            whole = decide(at, part.chunks).accepted[part.segments["chunk"]]
            salvaged = decide(at, part.segments).accepted & (part.segments["ms"] > 0) & ~whole
        assert t.salvaged(alpha).tolist() == np.flatnonzero(salvaged).tolist()


@given(policies, parts, st.lists(alphas, max_size=3))
def test_thresholds_for_one_alpha_keep_the_same_there(policy: Policy, part: JudgedPart, drawn: list[float]) -> None:
    every = thresholds(policy, part)
    for alpha in alphas_of(policy, part, drawn):
        alone = thresholds(policy, part, alpha=alpha)
        assert np.array_equal(alone.chunks, every.chunks)
        assert np.array_equal(alone.whole(alpha), every.whole(alpha))
        assert np.array_equal(alone.salvaged(alpha), every.salvaged(alpha))


@given(policies, parts, st.lists(alphas, max_size=3))
def test_nothing_is_salvaged_of_a_chunk_that_is_kept_whole(
    policy: Policy, part: JudgedPart, drawn: list[float]
) -> None:
    t = thresholds(policy, part)
    for alpha in alphas_of(policy, part, drawn):
        rows = t.salvaged(alpha)
        assert not t.whole(alpha)[part.segments["chunk"][rows]].any()
        assert (np.diff(rows) > 0).all()
        assert policy.salvage or not len(rows)


@given(by_evidence, parts)
def test_a_chunk_kept_whole_keeps_its_segments(policy: Policy, part: JudgedPart) -> None:
    t = thresholds(policy, part)
    assert (t.segments <= t.chunks[t.chunk]).all()


@given(policies, parts)
def test_a_policy_reads_the_columns_it_names_and_no_others(policy: Policy, part: JudgedPart) -> None:
    few = {name: part.chunks[name] for name in policy_columns(policy)}
    some, every = decide(policy, few), decide(policy, part.chunks)
    assert np.array_equal(some.status, every.status)
    assert np.array_equal(some.reason, every.reason)
    assert np.array_equal(least_alpha(policy, few), least_alpha(policy, part.chunks))
    assert len(set(policy_columns(policy))) == len(policy_columns(policy))
