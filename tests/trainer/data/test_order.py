"""The order of rows: each epoch has every row once, and any place can be asked for at any time."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.order import Block, Order, RowPlace

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=40)

GOLDEN = [(0, 1, 3), (0, 1, 0), (0, 5, 2), (0, 5, 5), (0, 3, 2), (0, 3, 0), (0, 6, 0), (0, 5, 3)]


def order(sizes: list[int], *, seed: int = 0, batch: int = 8, lanes: int = 4, shuffle_groups: int = 4) -> Order:
    return Order(sizes, seed=seed, batch=batch, lanes=lanes, shuffle_groups=shuffle_groups)


def places(chosen: Order, *, steps: int, batch: int = 8) -> list[RowPlace]:
    return [chosen.place(step, position) for step in range(steps) for position in range(batch)]


def all_rows(sizes: list[int]) -> set[tuple[int, int]]:
    return {(group, row) for group, size in enumerate(sizes) for row in range(size)}


@given(sizes=SIZES, seed=st.integers(0, 3), shuffle_groups=st.integers(1, 5))
def test_with_one_lane_every_epoch_is_a_permutation_of_all_rows(
    sizes: list[int], seed: int, shuffle_groups: int
) -> None:
    chosen = order(sizes, seed=seed, batch=1, lanes=1, shuffle_groups=shuffle_groups)
    rows = sum(sizes)
    for epoch in range(3):
        places = [chosen.place(epoch * rows + i, 0) for i in range(rows)]
        assert {place.visit for place in places} == {epoch}
        assert {(place.group, place.row) for place in places} == all_rows(sizes)


@given(sizes=SIZES, lanes=st.integers(1, 8))
@settings(max_examples=50)
def test_over_all_lanes_every_visit_has_every_row_once(sizes: list[int], lanes: int) -> None:
    chosen = order(sizes, lanes=lanes)
    enough = 6 * max(sum(sizes), 1) // 8 + 8 * max(sizes) + 8  # lanes drift apart by what their groups differ in
    seen = Counter(places(chosen, steps=enough))
    assert max(seen.values()) == 1
    for visit in range(2):
        assert {(p.group, p.row) for p in seen if p.visit == visit} == all_rows(sizes)


@given(sizes=SIZES, lanes=st.integers(1, 8), start=st.integers(0, 60))
@settings(max_examples=50)
def test_a_place_does_not_depend_on_the_places_asked_for_before(sizes: list[int], lanes: int, start: int) -> None:
    in_order = places(order(sizes, lanes=lanes), steps=start + 2)[start * 8 :]
    fresh = order(sizes, lanes=lanes)
    assert [fresh.place(step, position) for step in (start, start + 1) for position in range(8)] == in_order
    # backwards as well: asking changes nothing
    assert [fresh.place(step, position) for step in (start + 1, start) for position in range(8)] == [
        *in_order[8:],
        *in_order[:8],
    ]


def test_seeds_give_different_orders() -> None:
    sizes = [8] * 20
    orders = [tuple(places(order(sizes, seed=seed), steps=20)) for seed in range(5)]
    assert len(set(orders)) == 5


def test_epochs_differ() -> None:
    chosen = order([8] * 20, batch=8, lanes=1)
    first, second = places(chosen, steps=20), places(chosen, steps=40)[160:]
    assert [(p.group, p.row) for p in first] != [(p.group, p.row) for p in second]


@pytest.mark.parametrize(
    ("groups", "batch", "lanes", "effective"),
    [
        (100, 32, 8, 8),
        (100, 12, 8, 6),  # the largest divisor of the batch
        (100, 7, 8, 7),
        (100, 7, 6, 1),
        (16, 32, 8, 4),  # four groups for each lane
        (15, 32, 8, 2),  # 3 would fit, but does not divide 32
        (7, 32, 8, 1),
        (1, 32, 8, 1),
    ],
)
def test_how_many_lanes_there_are(groups: int, batch: int, lanes: int, effective: int) -> None:
    assert order([4] * groups, batch=batch, lanes=lanes).lanes == effective


def test_a_lane_fills_its_own_part_of_the_batch_from_a_few_groups() -> None:
    chosen = order([16] * 64, batch=8, lanes=4, shuffle_groups=2)
    lanes = [
        {chosen.place(step, position).group for step in range(16) for position in (2 * n, 2 * n + 1)} for n in range(4)
    ]
    assert [len(groups) for groups in lanes] == [2, 2, 2, 2]  # 16 steps × 2 rows are one block of two groups
    assert len(set.union(*lanes)) == 8


def test_rows_of_a_block_are_mixed() -> None:
    chosen = order([64] * 16, batch=8, lanes=1, shuffle_groups=4)
    groups = [place.group for place in places(chosen, steps=8)]
    assert len(set(groups)) == 4
    assert groups != sorted(groups)


def test_the_next_block_is_the_one_that_comes() -> None:
    chosen = order([3, 5, 2, 4, 1, 6, 2, 2], batch=4, lanes=2, shuffle_groups=2)
    for lane in range(2):
        block, _ = chosen.find(0, lane * 2)
        for _ in range(10):
            following = chosen.after(block)
            found = next(
                other for step in range(200) for other, _ in [chosen.find(step, lane * 2)] if other.key > block.key
            )
            assert (found.lane, found.key) == (following.lane, following.key)
            assert (found.shuffled == following.shuffled).all()
            block = following


def test_the_order_of_a_seed_stays_what_it_is() -> None:
    """A run that goes on after an update of this code must meet the same rows."""
    chosen = order([3, 5, 2, 4, 1, 6, 2, 2], seed=7, batch=4, lanes=2, shuffle_groups=2)
    assert [(p.visit, p.group, p.row) for p in places(chosen, steps=2, batch=4)] == GOLDEN


def test_a_seek_in_a_large_dataset_makes_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int, int]] = []
    make_block = Order._make_block

    def counted(self: Order, lane: int, visit: int, number: int) -> Block:
        made.append((lane, visit, number))
        return make_block(self, lane, visit, number)

    monkeypatch.setattr(Order, "_make_block", counted)
    chosen = order([64] * 160_000, batch=256, lanes=8)
    steps_an_epoch = 160_000 * 64 // 256
    chosen.place(3 * steps_an_epoch, 0)  # the paper's 30 million rows of ten million
    chosen.place(2 * steps_an_epoch + 123, 99)
    assert len(made) == 2


def test_no_rows_at_all() -> None:
    with pytest.raises(ValueError, match="at least one"):
        order([])
    with pytest.raises(ValueError, match="empty"):
        order([3, 0])
