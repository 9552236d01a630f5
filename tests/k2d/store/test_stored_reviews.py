"""Reviews in the store: kept for ever, stored once, replaced and taken back by later ones."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from k2d.errors import BadRequest, Conflict, NotFound
from k2d.store import Lake
from k2d.store.reviews import Review, ReviewVerdict, current

LABEL = "a" * 32
FIRST = Review("review-1", LABEL, 3, 2, "我們 use Kafka", ReviewVerdict.RIGHT, None, "ada", "")


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(str(tmp_path))


def review(number: int, **changes) -> Review:
    return replace(FIRST, id=f"review-{number}", **changes)


def test_a_review_comes_back_as_it_was_stored(lake):
    stored = lake.reviews.put(FIRST)
    assert stored.at
    assert lake.reviews.of_labels([LABEL]) == [stored]
    assert lake.reviews.label_keys() == [LABEL]
    assert lake.reviews.of_labels(["b" * 32]) == []


def test_sent_again_it_is_stored_once(lake):
    stored = lake.reviews.put(FIRST)
    assert lake.reviews.put(FIRST) == stored
    assert lake.reviews.of_labels([LABEL]) == [stored]


def test_of_many_that_send_it_at_once_all_get_the_same(lake):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: lake.reviews.put(FIRST), range(16)))
    assert len(lake.reviews.of_labels([LABEL])) == 1
    assert len({answer.at for answer in answers}) == 1


@pytest.mark.parametrize("change", [{"reviewer": "bob"}, {"verdict": ReviewVerdict.WRONG}, {"reference": "x"}])
def test_another_review_with_the_same_id_is_refused(lake, change):
    lake.reviews.put(FIRST)
    with pytest.raises(Conflict):
        lake.reviews.put(replace(FIRST, **change))


def test_the_newest_of_each_reviewer_counts_whatever_the_clock_says(lake):
    lake.reviews.put(review(1, at="2030-01-01T00:00:00+00:00"))  # by a machine whose clock is ahead
    lake.reviews.put(review(2, verdict=ReviewVerdict.TEXT, reference="我們 use kafka 2"))
    lake.reviews.put(review(3, reviewer="bob", verdict=ReviewVerdict.NOTHING))
    counted = {own.reviewer: own.id for own in current(lake.reviews.of_labels([LABEL]))}
    assert counted == {"ada": "review-2", "bob": "review-3"}


def test_what_is_taken_back_does_not_count_and_stays(lake):
    lake.reviews.put(review(1))
    lake.reviews.put(review(2, verdict=ReviewVerdict.UNDONE))
    assert current(lake.reviews.of_labels([LABEL])) == []
    assert len(lake.reviews.of_labels([LABEL])) == 2
    lake.reviews.put(review(3))
    assert [own.id for own in current(lake.reviews.of_labels([LABEL]))] == ["review-3"]


def test_segments_of_one_label_are_told_apart(lake):
    lake.reviews.put(review(1, chunk=3, segment=2))
    lake.reviews.put(review(2, chunk=3, segment=20))
    lake.reviews.put(review(3, chunk=32, segment=2))
    assert len(current(lake.reviews.of_labels([LABEL]))) == 3


@pytest.mark.parametrize("id_", ["", "short", "../../etc/passwd", "a/b" * 4, "x" * 65, "é" * 10])
def test_ids_that_are_none_are_refused(lake, id_):
    with pytest.raises(BadRequest):
        lake.reviews.put(replace(FIRST, id=id_))


def test_labels_that_are_none_are_refused(lake):
    with pytest.raises(NotFound):
        lake.reviews.put(replace(FIRST, label_key="../secret"))


def test_forgotten_reviews_are_gone(lake):
    lake.reviews.put(FIRST)
    assert lake.reviews.remove(LABEL) == 1
    assert lake.reviews.label_keys() == []
    assert lake.reviews.remove(LABEL) == 0


def test_draws_never_change(lake):
    assert lake.draws.put("d_0123456789abcdef", {"head": 1})
    assert not lake.draws.put("d_0123456789abcdef", {"head": 2})
    assert lake.draws.get("d_0123456789abcdef") == {"head": 1}
    lake.draws.put_calibration("d_0123456789abcdef", "c1", {"at": "2026"})
    lake.draws.put_calibration("d_0123456789abcdef", "c2", {"at": "2027"})
    assert lake.draws.ids() == ["d_0123456789abcdef"]
    assert [id_ for id_, _ in lake.draws.calibrations("d_0123456789abcdef")] == ["c2", "c1"]
    with pytest.raises(NotFound, match="no draw"):
        lake.draws.get("d_ffffffffffffffff")
