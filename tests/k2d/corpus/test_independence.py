"""Independence without references: simulated validators whose errors are known must come out in their order."""

import numpy as np
import pytest
from factories import TEXTS, finished_batch

from k2d.corpus.agreement import gather
from k2d.corpus.independence import Observations, compare_validators, phi
from k2d.store import Lake

CHUNKS = 600


class World:
    """Labels with errors, some of which the teacher is unsure of; validators that write the truth, or the label."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.error = np.where(self.random.random(CHUNKS) < 0.4, self.random.random(CHUNKS), 0.0)
        self.confidence = -0.4 - 0.8 * self.error - 0.3 * self.random.random(CHUNKS)

    def validator(self, name: str, *, shared: float, noise: float = 0.15, family: str | None = None) -> Observations:
        """One that misses the share `shared` of the teacher's errors, and errs by itself."""
        misses = self.random.random(CHUNKS) < shared
        apart = np.where(misses, 0.0, self.error) + noise * self.random.random(CHUNKS)
        forced = np.where(misses, self.confidence, -0.5 - self.error) - noise * self.random.random(CHUNKS)
        return Observations(name, family or name, np.clip(apart, 0.0, 1.0), forced, CHUNKS)


def order(world: World, *observations: Observations) -> list[str]:
    return [row.name for row in compare_validators(observations, world.confidence, draws=0)]


@pytest.mark.parametrize("seed", range(8))
def test_who_copies_the_teachers_errors_comes_out_last(seed: int) -> None:
    world = World(seed)
    copy = world.validator("copy", shared=0.95)
    others = [world.validator("a", shared=0.0), world.validator("b", shared=0.1)]
    assert order(world, copy, *others)[-1] == "copy"
    assert order(world, copy, others[0]) == ["a", "copy"]


@pytest.mark.parametrize("seed", range(4))
def test_the_more_errors_are_shared_the_lower_a_validator_stands(seed: int) -> None:
    world = World(seed)
    observations = [world.validator(f"{share:.1f}", shared=share) for share in (0.9, 0.0, 0.5)]
    assert order(world, *observations) == ["0.0", "0.5", "0.9"]


def test_who_objects_at_random_is_not_independent_but_useless() -> None:
    world = World(1)
    noise = Observations("noise", "noise", world.random.random(CHUNKS), np.full(CHUNKS, np.nan), CHUNKS)
    found = compare_validators(
        [noise, world.validator("a", shared=0.0), world.validator("b", shared=0.2)], world.confidence
    )
    assert found[-1].name == "noise"
    assert found[-1].consensus == pytest.approx(0.0, abs=0.15)
    assert found[-1].alone > found[0].alone


def test_two_of_one_family_do_not_outvote_a_third() -> None:
    right = 0
    for seed in range(20):
        world = World(seed)
        one = world.validator("perturbed", shared=0.9, family="teacher")
        twin = Observations("twin", "teacher", one.disagreement, one.forced_logprob, CHUNKS)
        right += order(world, one, twin, world.validator("small", shared=0.1))[0] == "small"
    assert right >= 18  # 96 % of 200 worlds


def test_a_validator_of_the_doubtful_alone_is_not_compared() -> None:
    world = World(3)
    one, other = world.validator("a", shared=0.0), world.validator("b", shared=0.2)
    some = world.validator("second", shared=0.5)
    some.disagreement[: CHUNKS * 3 // 4] = np.nan
    found = compare_validators([one, other, some], world.confidence)
    assert found[-1].name == "second"
    assert found[-1].independence is None
    assert found[-1].validated == CHUNKS // 4
    alone = compare_validators([one], world.confidence)
    assert alone[0].independence is None


def test_a_bootstrap_says_how_sure_the_first_is() -> None:
    world = World(4)
    far = compare_validators(
        [world.validator("a", shared=0.0), world.validator("copy", shared=0.95)], world.confidence, draws=40
    )
    assert far[0].first == 1.0
    alike = [world.validator(name, shared=0.2) for name in "xyz"]
    near = compare_validators(alike, world.confidence, draws=40)
    assert near[0].first < 1.0
    assert sum(row.first for row in near) == pytest.approx(1.0)


def test_phi_says_who_objects_alike() -> None:
    world = World(5)
    one = world.validator("a", shared=0.0)
    assert phi(one, one) == pytest.approx(1.0)
    noise = Observations("noise", "noise", world.random.random(CHUNKS), one.forced_logprob, CHUNKS)
    assert abs(phi(one, noise)) < 0.15
    short = Observations("short", "short", np.full(CHUNKS, np.nan), one.forced_logprob, 0)
    assert phi(one, short) is None


def test_validators_of_a_batch_are_aligned_by_chunk(tmp_path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    batch = finished_batch(lake, recordings=3)
    (observed,), confidence = gather(lake, [batch.id, batch.id], most=100)
    assert observed.name == "model:openai/whisper-base"
    assert len(confidence) == len(observed.disagreement) == 3 * len(TEXTS)
    assert observed.passes == 2 * len(confidence)  # decoded and scored
    assert (observed.disagreement.reshape(3, -1)[:, 0] == 0).all()
    assert (observed.forced_logprob == -0.5).all()
    assert len(gather(lake, [batch.id], most=5)[1]) == 5
