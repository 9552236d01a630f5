"""The explorer: its curve is that of every α by itself, its lists are those of all chunks, and nothing is old."""

import threading
from pathlib import Path

import numpy as np
import pytest
from factories import finished_batch
from lakes import batch, copy, put_recording
from oracles import kept

from k2d.corpus import explore
from k2d.corpus import index as indices
from k2d.corpus.audit import audit
from k2d.corpus.boundary import Side, flips, nearest
from k2d.corpus.chunk_pages import all_chunks
from k2d.corpus.explore import GRID, AlphaCurve, Explorer, with_salvage
from k2d.corpus.index import parts
from k2d.errors import BadRequest
from k2d.filtering.policy import DEFAULT, PAPER, Policy, Weights, switched
from k2d.schema import Batch, Metric, Reason, Status
from k2d.store import Lake
from k2d.store import batches as positions

ID = "b_0123456789abcdef"
JUDGE = Policy(name="judge", metric=Metric.EVIDENCE, weights=Weights(bias=-4.0, disagreement=8.0), salvage=True)
POLICIES = [JUDGE, DEFAULT, PAPER, switched(DEFAULT, []), PAPER.varied(metric=Metric.MER_BOUNDED, alpha=0.15)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Six recordings, to be read in three parts of two."""
    lake = Lake(str(tmp_path_factory.mktemp("written") / "lake"))
    lake.batches.put(batch(6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "PART_RECORDINGS", 2)
        for number in range(6):
            spans = [(i / 5, i / 5 + 0.2) for i in range(number)]
            spoiled = frozenset((i, i % 2) for i in range(0, number, 3))
            lake.batches.put_result(ID, put_recording(lake, number, spans, bad=spoiled, rejected=frozenset({4})))
    return lake


@pytest.fixture
def lake(written: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    for module in (positions, indices):
        monkeypatch.setattr(module, "PART_RECORDINGS", 2)
    return copy(written, tmp_path / "lake")


@pytest.fixture
def whole(lake: Lake) -> list[Batch]:
    return [lake.batches.get(ID)]


def curve_of(explorer: Explorer, batches: list[Batch], policy: Policy) -> AlphaCurve:
    return explorer.curve(explorer.parts(batches), policy)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_curve_is_that_of_every_alpha_by_itself(lake: Lake, whole: list[Batch], policy: Policy) -> None:
    curve = curve_of(Explorer(lake), whole, policy)
    swept = list(parts(lake, ID))
    assert curve.chunks == 15
    assert curve.sample == 1.0
    for step in (0, 1, 18, 150, 300, 777, 1000):
        expected = kept(policy.model_copy(update={"alpha": float(GRID[step])}), swept)
        assert (curve.kept[step], curve.kept_ms[step], curve.salvaged_ms[step]) == expected


def test_rules_are_counted_whatever_alpha_is(lake: Lake, whole: list[Batch]) -> None:
    strict = DEFAULT.model_copy(update={"max_phonemes_per_s": 0.1, "min_phonemes_per_s": None})
    curve = curve_of(Explorer(lake), whole, strict)
    assert (curve.rules[Reason.SPEECH_RATE].chunks, curve.rules[Reason.EMPTY].chunks) == (15, 0)
    assert curve.rules[Reason.SPEECH_RATE].ms == curve.ms
    assert not curve.kept.any()


def test_another_alpha_or_name_computes_nothing_again(
    lake: Lake, whole: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = Explorer(lake)
    curve_of(explorer, whole, DEFAULT)
    monkeypatch.setattr(explore, "least_alpha", None)
    monkeypatch.setattr(explore, "thresholds", None)
    curve_of(explorer, whole, DEFAULT.varied(alpha=0.77))
    with pytest.raises(TypeError):
        curve_of(explorer, whole, with_salvage(DEFAULT, salvage=False).model_copy(update={"flip_max": 0.1}))


def test_what_changes_is_computed_again(lake: Lake, whole: list[Batch]) -> None:
    explorer = Explorer(lake)
    before = curve_of(explorer, whole, PAPER)
    lake.batches.delete_result(ID, 5)
    assert curve_of(explorer, whole, PAPER).chunks == before.chunks - 5
    lake.batches.put_result(ID, put_recording(lake, 5, [(0.0, 0.2)]))
    assert curve_of(explorer, whole, PAPER).chunks == before.chunks - 4


def test_memory_is_bounded_and_what_many_ask_for_is_computed_once() -> None:
    memory = explore._Memory(2500)
    made: list[int] = []
    gate = threading.Barrier(4)

    def ask(number: int) -> None:
        gate.wait(10)
        memory.get("same", lambda: made.append(number) or np.zeros(100))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    for key in range(10):
        memory.get(key, lambda: np.zeros(100))  # 800 bytes each
    assert list(memory._results) == [7, 8, 9]
    assert memory._bytes == 2400


def test_a_failure_is_not_remembered() -> None:
    memory = explore._Memory(1000)
    with pytest.raises(ZeroDivisionError):
        memory.get("key", lambda: 1 // 0)
    assert memory.get("key", lambda: 5) == 5


def test_salvage_of_large_corpora_is_estimated(lake: Lake, whole: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    exact = curve_of(Explorer(lake), whole, JUDGE)
    monkeypatch.setattr(explore, "EXACT_SALVAGE", 10)
    sampled = curve_of(Explorer(lake), whole, JUDGE)
    assert sampled.sample == pytest.approx((1 + 9) / 15)
    assert np.array_equal(sampled.kept_ms, exact.kept_ms)
    assert 0 < sampled.salvaged_ms.max() <= 2 * exact.salvaged_ms.max()


# ---- lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_nearest_are_those_of_all_chunks(lake: Lake, whole: list[Batch], policy: Policy) -> None:
    near = nearest(Explorer(lake), whole, policy, each=3)
    chunks = list(all_chunks(lake, whole[0], policy))
    kept_ids = [chunk.id for chunk in chunks if chunk.verdict is Status.ACCEPTED]
    assert len(near.kept) == min(3, len(kept_ids))
    assert {chunk.id for chunk in near.kept} <= set(kept_ids)
    away = sorted(policy.alpha - float(c.distances[policy.metric] or 0) for c in chunks if c.id in kept_ids)
    found = [policy.alpha - float(chunk.distances[policy.metric] or 0) for chunk in near.kept]
    assert found == pytest.approx(away[:3], abs=1e-4)
    for chunk in near.rejected:
        assert chunk.verdict is Status.REJECTED
        assert (chunk.distances[policy.metric] or 0) >= policy.alpha - 1e-4


def test_flips_are_the_chunks_with_two_verdicts(lake: Lake, whole: list[Batch]) -> None:
    explorer, second = Explorer(lake), DEFAULT.varied(alpha=0.0)
    first = DEFAULT.varied(alpha=1.0)
    a = {chunk.id: chunk.verdict for chunk in all_chunks(lake, whole[0], first)}
    b = {chunk.id: chunk.verdict for chunk in all_chunks(lake, whole[0], second)}
    expected = [name for name in a if a[name] != b[name]]
    assert len(expected) > 5
    found, cursor = [], None
    for _ in range(len(expected)):
        page = flips(explorer, whole, first, second, limit=2, cursor=cursor)
        found += page.rows
        assert (page.first_chunks, page.second_chunks) == (len(expected), 0)
        cursor = page.next
        if cursor is None:
            break
    assert [flip.chunk.id for flip in found] == expected
    assert {flip.first.status for flip in found} == {Status.ACCEPTED}
    assert {flip.second.status for flip in found} == {Status.REJECTED}
    assert not flips(explorer, whole, first, second, side=Side.SECOND).rows
    turned = flips(explorer, whole, second, first, side=Side.SECOND, limit=100)
    assert [flip.chunk.id for flip in turned.rows] == expected


@pytest.mark.parametrize("cursor", ["x", "é", "bnVsbA==", "WzFd", "W10=", "WzFlOTk5LCAxXQ==", "W1tb" * 100_000])
def test_a_cursor_that_is_none_is_refused(lake: Lake, whole: list[Batch], cursor: str) -> None:
    with pytest.raises(BadRequest):
        flips(Explorer(lake), whole, DEFAULT, PAPER, cursor=cursor)


def test_several_batches_are_explored_together(lake: Lake, whole: list[Batch]) -> None:
    both = [*whole, finished_batch(lake, name="second", recordings=3)]
    explorer = Explorer(lake)
    assert curve_of(explorer, both, PAPER).chunks == 15 + 12
    strict, loose = PAPER.varied(alpha=0.0), PAPER.varied(alpha=1.0)
    page = flips(explorer, both, loose, strict, limit=100)
    assert {flip.chunk.recording for flip in page.rows} >= {"talk-0.wav", "talk-3.flac"}


def test_an_audit_is_remembered_at_its_alpha(lake: Lake, whole: list[Batch]) -> None:
    explorer = Explorer(lake)
    report = explorer.audit(whole, DEFAULT)
    assert report == audit(lake, whole, DEFAULT)
    assert explorer.audit(whole, DEFAULT) is report
    assert explorer.audit(whole, DEFAULT.varied(alpha=0.0)).share == 0.0
