"""The probe's pure half: best paths, alignment against a plain oracle, the stored file, who judges whom."""

import json
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from k2d.errors import ModelError
from k2d.validators.probe import ctc
from k2d.validators.probe.network import Layers, Probe, dump, fold_of, frames_of, hash_of, load
from k2d.validators.probe.validator import probe_hypothesis

UNITS = ("-", "?", "m", "a", "uo", "K")


def log_softmax(scores: np.ndarray) -> np.ndarray:
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def saying(units: list[int], *, frames_each: int = 2, size: int = len(UNITS)) -> np.ndarray:
    """Posteriors of a voice that says these units very clearly, a blank after each."""
    path = [place for unit in units for place in (*[unit] * frames_each, ctc.BLANK)]
    scores = np.zeros((len(path), size))
    scores[np.arange(len(path)), path] = 8.0
    return log_softmax(scores)


def probe(folds: int = 3, *, seen: tuple[str, ...] = (), width: int = 8, seed: int = 0) -> Probe:
    draws = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return draws.normal(size=shape).astype(np.float32)

    return Probe(
        folds=tuple(Layers(some(4, width, 3), some(4), some(len(UNITS), 4, 3), some(len(UNITS))) for _ in range(folds)),
        mean=some(width),
        scale=np.abs(some(width)),
        units=UNITS,
        recordings=np.array(sorted(map(hash_of, seen)), np.uint64),
        about={"teacher": "packaged:whisper-base", "teacher_digest": "d01c"},
    )


# ---- paths --------------------------------------------------------------------------------------------------------


def test_the_best_path_drops_blanks_and_repeats() -> None:
    best = ctc.best_path(saying([2, 3, 3, 5]))
    assert best.units == (2, 3, 3, 5)
    assert ctc.best_path(np.zeros((0, 6), np.float32)) == ctc.BestPath((), 0.0)


@pytest.mark.parametrize("seed", range(30))
def test_alignment_finds_what_a_plain_search_finds(seed: int) -> None:
    draws = np.random.default_rng(seed)
    frames, length = int(draws.integers(0, 7)), int(draws.integers(1, 6))
    posteriors = log_softmax(draws.normal(0, 3, (frames, 4))) if frames else np.zeros((0, 4), np.float32)
    text = draws.integers(1, 4, length).tolist()

    @cache
    def best(frame: int, state: int) -> float:
        """The best way from here to the end; state 2k is the blank before unit k, 2k + 1 the unit itself."""
        at_a_blank = state % 2 == 0 and state < 2 * length
        leave_out = ctc.FLOOR + best(frame, state + 2) if at_a_blank else -np.inf
        if frame == frames:
            return max(leave_out, 0.0 if state >= 2 * length - 1 else -np.inf)
        following = [state, state + 1]
        if state % 2 and state + 2 < 2 * length and text[state // 2] != text[state // 2 + 1]:
            following.append(state + 2)
        return max(leave_out, *(spend(frame, to) for to in following if to <= 2 * length))

    def spend(frame: int, state: int) -> float:
        unit = text[state // 2] if state % 2 else ctc.BLANK
        return float(np.clip(posteriors[frame, unit], ctc.FLOOR, 0.0)) + best(frame + 1, state)

    owned = ctc.align(posteriors, text)
    assert owned.shape == (length,)
    assert owned.sum() == pytest.approx(best(0, 0), abs=1e-4)
    assert (owned <= 0).all()


def test_a_text_that_was_said_scores_as_the_best_path_does() -> None:
    said = [2, 3, 5, 5, 4]
    posteriors = saying(said)
    assert ctc.align(posteriors, said).sum() == pytest.approx(ctc.best_path(posteriors).logprob, abs=1e-4)


def test_what_is_wrong_costs_where_it_is_wrong() -> None:
    said = [2, 3, 4, 5]
    right = ctc.align(saying(said), said)
    wrong = ctc.align(saying(said), [2, 3, 3, 5])
    assert wrong[2] < right[2] - 3
    np.testing.assert_allclose(wrong[[0, 1, 3]], right[[0, 1, 3]], atol=0.1)


def test_speech_that_the_text_lacks_costs_too() -> None:
    assert ctc.align(saying([2, 3, 4, 5]), [2, 5]).sum() < ctc.align(saying([2, 5]), [2, 5]).sum() - 6


def test_a_loop_far_longer_than_its_audio_is_dear_and_finite() -> None:
    owned = ctc.align(saying([2, 3]), [2, 3] * 200)
    assert ctc.FLOOR <= owned.mean() < 0.95 * ctc.FLOOR
    assert len(ctc.align(saying([2]), [])) == 0


# ---- the network --------------------------------------------------------------------------------------------------


def test_half_as_many_frames_come_out_and_they_are_probabilities() -> None:
    posteriors = probe().posteriors(np.random.default_rng(1).normal(size=(7, 8)).astype(np.float16), "rec_1")
    assert posteriors.shape == (4, len(UNITS))
    np.testing.assert_allclose(np.exp(posteriors).sum(axis=1), 1.0, atol=1e-5)
    assert (frames_of(0), frames_of(1), frames_of(320), frames_of(321)) == (0, 1, 1, 2)


def test_a_known_recording_is_judged_by_the_fold_without_it_and_a_new_one_by_all() -> None:
    known = probe(seen=("rec_1", "rec_2"))
    encoded = np.random.default_rng(1).normal(size=(10, 8)).astype(np.float32)
    assert [known.trained_on(name) for name in ("rec_1", "rec_2", "rec_3")] == [True, True, False]

    def alone(fold: int, name: str = "anyone") -> np.ndarray:
        only = probe(seen=("rec_1", "rec_2"))
        return Probe((only.folds[fold],), only.mean, only.scale, UNITS, only.recordings, {}).posteriors(encoded, name)

    own = fold_of("rec_1", 3)
    np.testing.assert_allclose(known.posteriors(encoded, "rec_1"), alone(own), atol=1e-5)
    mean = np.mean([alone(fold) for fold in range(3)], axis=0)  # log posteriors differ from logits by frames' constants
    mean -= np.log(np.exp(mean).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(known.posteriors(encoded, "rec_3"), mean, atol=1e-4)


def test_another_encoder_s_width_is_refused() -> None:
    with pytest.raises(ModelError, match="width 8, not 9"):
        probe().posteriors(np.zeros((4, 9), np.float32), "rec_1")


def test_the_network_is_the_one_that_was_trained() -> None:
    torch = pytest.importorskip("torch")
    from trainer.probe.training import ProbeNetwork

    torch.manual_seed(0)
    network = ProbeNetwork(8, len(UNITS)).eval()
    stored = Probe((network.layers(),), np.zeros(8, np.float32), np.ones(8, np.float32), UNITS, np.zeros(0, "u8"), {})
    encoded = np.random.default_rng(2).normal(size=(11, 8)).astype(np.float32)
    with torch.inference_mode():
        wanted = torch.log_softmax(network(torch.from_numpy(encoded.T)[None])[0].T, dim=-1).numpy()
    np.testing.assert_allclose(stored.posteriors(encoded, "rec_1"), wanted, atol=1e-5)


# ---- as stored ----------------------------------------------------------------------------------------------------


def test_a_probe_comes_back_as_it_was_stored() -> None:
    made = probe(seen=("rec_1", "rec_2"))
    data = dump(made)
    assert dump(load(data)) == data
    back = load(data)
    assert (back.units, dict(back.about), back.trained_on("rec_2")) == (UNITS, dict(made.about), True)
    encoded = np.ones((6, 8), np.float16)
    np.testing.assert_array_equal(back.posteriors(encoded, "rec_1"), made.posteriors(encoded, "rec_1"))


def test_others_can_read_the_file() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    made = probe()
    tensors = safetensors.load(dump(made))
    np.testing.assert_array_equal(tensors["2.first"], made.folds[2].first)


@pytest.mark.parametrize("damage", [lambda d: d[:40], lambda d: d[:-9], lambda d: b"\xff" * 8 + d[8:], lambda d: b""])
def test_a_damaged_file_is_refused(damage) -> None:
    with pytest.raises(ModelError, match="damaged"):
        load(damage(dump(probe())))


def test_another_version_is_refused() -> None:
    data = dump(probe())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = json.loads(header["__metadata__"]["probe"]) | {"version": 99}
    header["__metadata__"]["probe"] = json.dumps(about)
    text = json.dumps(header).encode()
    with pytest.raises(ModelError, match="version 99"):
        load(len(text).to_bytes(8, "little") + text + data[8 + size :])


# ---- hypotheses -----------------------------------------------------------------------------------------------------


def test_a_hypothesis_scores_each_segment_and_one_without_sounds_not_at_all() -> None:
    hypothesis = probe_hypothesis(
        probe(), ["媽", " ...", " 我 K"], np.ones((40, 8), np.float16), "rec_1", name="probe:ab"
    )
    assert (hypothesis.validator, hypothesis.perturbation, hypothesis.is_phonemes) == ("probe:ab", "as is", True)
    assert len(hypothesis.forced_logprobs) == 3
    assert hypothesis.forced_logprobs[1] == pytest.approx(ctc.FLOOR, abs=1e-3)
    assert all(ctc.FLOOR * 40 <= score <= 0 for score in hypothesis.forced_logprobs)
    assert all(float(np.float32(score)) == score for score in (*hypothesis.forced_logprobs, hypothesis.avg_logprob))
    assert set(hypothesis.text.split()) <= set(UNITS)
    assert all(a != ctc.BLANK for a, _ in pairwise(ctc.best_path(saying([2, 2])).units))
