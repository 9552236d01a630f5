"""Whom a filter leaves out: shares, intervals by recording, and a warning that is a test."""

import numpy as np
import pytest
from corpora import simulated

from k2d.corpus.audit import _wilson, audit
from k2d.corpus.distinct import distinct_parts
from k2d.corpus.statistics import quantile, tail
from k2d.filtering.policy import DEFAULT, PAPER, decide
from k2d.store import Lake

STRICT = DEFAULT.model_copy(update={"alpha": 0.1})


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return Lake(str(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def fair(lake):
    return simulated(lake, recordings=16, name="fair", seed=6)[0]


@pytest.fixture(scope="module")
def unfair(lake):
    return simulated(lake, recordings=16, name="unfair", mixed_risk=0.25)[0]


def test_shares_add_up_and_are_those_of_decide(lake, unfair):
    found = audit(lake, [unfair], STRICT)
    (part,) = distinct_parts(lake, [unfair])
    whole = decide(STRICT, part.chunks).accepted
    salvaged = decide(STRICT, part.segments).accepted & ~whole[part.segments["chunk"]]
    kept = part.chunks["duration_s"][whole].sum() + part.segments["duration_s"][salvaged].sum()
    assert found.share == pytest.approx(float(kept) / found.seconds, abs=1e-4)
    for by in ("code mixing", "language", "duration", "source"):
        groups = [group for group in found.groups if group.by == by]
        assert sum(group.seconds for group in groups) == pytest.approx(found.seconds)
        assert sum(group.seconds_kept for group in groups) == pytest.approx(float(kept), rel=1e-4)
        assert sum(group.chunks for group in groups) == len(whole)
    for group in found.groups:
        assert group.share_band[0] <= group.share <= group.share_band[1]
        assert group.chunk_share_band[0] <= group.chunk_share <= group.chunk_share_band[1]


def test_a_filter_that_removes_code_switching_is_warned_of(lake, unfair):
    found = audit(lake, [unfair], STRICT)
    assert len(found.warnings) == 2  # by the index and by the language
    assert all("code-switched speech is filtered out faster" in warning for warning in found.warnings)
    (mixed,) = [group for group in found.groups if (group.by, group.name) == ("language", "zh-en")]
    (plain,) = [group for group in found.groups if (group.by, group.name) == ("language", "zh")]
    assert mixed.behind == pytest.approx(plain.share - mixed.share, abs=1e-3)
    assert mixed.behind_band[0] > 0
    assert plain.behind < 0


def test_a_bare_difference_is_no_warning(lake, fair):
    """The same disagreement for everyone: some difference there always is, and it means nothing."""
    found = audit(lake, [fair], STRICT)
    assert any(group.behind for group in found.groups)
    assert found.warnings == ()
    assert audit(lake, [fair], PAPER.model_copy(update={"alpha": 1.0})).warnings == ()


def test_a_fair_filter_is_warned_of_no_more_often_than_the_level_says(lake):
    """Recordings that vary as wholes: counting chunks as if they were independent would warn far too often."""
    from k2d.corpus.audit import _FIXED, _audit_of, _GroupSums

    rng = np.random.default_rng(8)
    fixed = [("all", "all"), *((by, name) for by, names in _FIXED.items() for name in names)]
    place = fixed.index(("language", "zh-en"))
    warned, rounds = 0, 600
    for _ in range(rounds):
        values = np.zeros((24, 4, len(fixed)))
        chunks = rng.integers(20, 60, 24)
        kept = rng.binomial(chunks, rng.beta(2, 1, 24))  # a recording passes or fails nearly as a whole
        for at in (0, place):
            rows = slice(None) if at == 0 else slice(None, None, 2)
            values[rows, :, at] = np.stack([10.0 * kept, 10.0 * chunks, kept, chunks], axis=1)[rows]
        sums = _GroupSums(len(fixed))
        sums.add(values)
        warned += bool(_audit_of(fixed, sums, {}, policy=DEFAULT, confidence=0.95).warnings)
    assert warned / rounds <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / rounds)
    assert warned > 0


def test_a_recording_in_two_batches_counts_once(lake, fair):
    assert audit(lake, [fair, fair], DEFAULT).seconds == audit(lake, [fair], DEFAULT).seconds


def test_few_recordings_are_described_and_not_tested(lake):
    batch, _ = simulated(lake, recordings=3, name="tiny", mixed_risk=0.5)
    found = audit(lake, [batch], STRICT)
    assert found.warnings == ()
    assert all(group.p_value is None for group in found.groups)
    assert all(group.share_band[1] - group.share_band[0] > 0.3 for group in found.groups if group.recordings < 3)


TABLE = [
    (0.95, 1, 6.3138),
    (0.975, 1, 12.7062),
    (0.95, 5, 2.0150),
    (0.975, 10, 2.2281),
    (0.999, 3, 10.2145),
    (0.975, 1000, 1.9623),
    (0.5, 7, 0.0),
    (0.025, 10, -2.2281),
]


@pytest.mark.parametrize(("level", "degrees", "value"), TABLE)
def test_student_s_t_is_that_of_the_tables(level, degrees, value):
    assert quantile(level, degrees) == pytest.approx(value, abs=1e-4)
    assert tail(value, degrees) == pytest.approx(1 - level, abs=1e-5)


def test_wilson_stays_within_0_and_1():
    for share in (0.0, 0.5, 1.0):
        low, high = _wilson(share, 0.0, 40, 10, 0.95)
        assert 0 <= low <= share <= high <= 1
        assert high - low < 0.5
