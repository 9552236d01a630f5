"""Bands: they hold the figure, narrow with data, are paired and seeded, and resample recordings, not utterances."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.bootstrap import Band, band, pooled_rates, resample_rates, sum_by_recording

rows = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30)


def bands(pairs, *, draws=400, seed=0):
    edits, tokens = (np.array([[pair[i]] for pair in pairs], float) for i in (0, 1))
    return band(pooled_rates(edits, tokens)[0], resample_rates(edits, tokens, draws=draws, seed=seed)[:, 0])


@settings(max_examples=100, deadline=None)
@given(rows)
def test_a_band_holds_its_figure(pairs):
    found = bands(pairs)
    total = sum(tokens for _, tokens in pairs)
    if not total:
        assert found == Band(None, None, None)
    else:
        assert found.value == sum(edits for edits, _ in pairs) / total
        assert found.low <= found.value <= found.high


def test_equal_rates_give_no_width_and_more_data_a_narrower_band():
    assert bands([(1, 3), (2, 6), (3, 9)]) == Band(1 / 3, 1 / 3, 1 / 3)
    few, many = bands([(0, 10), (4, 10)] * 5), bands([(0, 10), (4, 10)] * 500)
    assert few.value == many.value == 0.2
    assert (many.high - many.low) < (few.high - few.low) / 5


def test_the_width_is_that_of_the_binomial():
    """1,000 recordings of one token, 30 % wrong: the standard error is √(0.3 · 0.7 / 1000) = 1.45 %."""
    found = bands([(1, 1)] * 300 + [(0, 1)] * 700, draws=4000)
    assert abs((found.high - found.low) / (2 * 1.96 * 0.01449) - 1) < 0.1


def test_models_are_drawn_in_pairs():
    """B makes one edit more in every recording: the difference has no spread, though the rates have."""
    a = np.array([[0.0], [5.0], [9.0], [1.0]])
    edits, tokens = np.hstack([a, a + 1]), np.full((4, 2), 10.0)
    rates = resample_rates(edits, tokens, draws=500, seed=1)
    assert np.ptp(rates[:, 0]) > 0.3
    assert np.allclose(rates[:, 1] - rates[:, 0], 0.1)


def test_a_seed_is_a_result():
    edits, tokens = np.array([[1.0], [0.0], [3.0]]), np.full((3, 1), 5.0)
    one, again, other = (resample_rates(edits, tokens, draws=50, seed=seed) for seed in (7, 7, 8))
    assert (one == again).all()
    assert (one != other).any()


def test_draws_in_slices_are_as_many(monkeypatch):
    edits, tokens = np.ones((5, 2)), np.full((5, 2), 4.0)
    monkeypatch.setattr("trainer.evaluation.bootstrap._WEIGHTS", 35)  # seven draws at a time
    rates = resample_rates(edits, tokens, draws=100, seed=0)
    assert rates.shape == (100, 2)
    assert (rates == 0.25).all()


def test_utterances_of_one_recording_stay_together():
    values = np.array([[1.0], [2.0], [3.0]])
    assert sum_by_recording(values, ["a", "b", "a"]).tolist() == [[4.0], [2.0]]


def test_one_recording_has_no_band():
    assert bands([(2, 4)]) == Band(0.5, None, None)
    assert resample_rates(np.zeros((0, 1)), np.zeros((0, 1)), draws=3, seed=0).shape == (3, 1)
