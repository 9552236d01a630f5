"""The review file: what is drawn, what a reviewer may write, what a label error is."""

import json

import numpy as np
import pytest
from corpora import simulated

from k2d.corpus.calibration.calibrate import calibrate
from k2d.corpus.calibration.draw import MOST_WEIGHT, chances_of, draw, sizes
from k2d.corpus.calibration.review import review
from k2d.corpus.calibration.reviews import ReviewRow, error_of, load, until, write
from k2d.corpus.distinct import distinct_parts
from k2d.errors import BadRequest, NotFound
from k2d.filtering.policy import DEFAULT, thresholds
from k2d.store import Lake


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    batch, truth = simulated(lake, recordings=6)
    return lake, batch, truth


def row(label="今天 review 一下", **changes) -> ReviewRow:
    plain = {"id": "f-00000.000", "recording": "a", "start_s": 0.0, "end_s": 2.0, "label": label, "around": label}
    return ReviewRow(**plain | {"hypotheses": [], "risk": 0.1, "size": 9.0, "weight": 1.0, "draws": [0]} | changes)


@pytest.mark.parametrize(
    ("label", "reference", "edits", "tokens", "share"),
    [
        ("今天 review 一下", "今天 review 一下", 0, 5, 0.0),
        ("今天 Review一下。", "今天，review 一下", 0, 5, 0.0),  # normalised on both sides
        ("今天 review 一下", "今天 review 一", 1, 4, 0.2),
        ("今天 review 一下", "", 5, 0, 1.0),  # nothing was said
        ("", "今天", 2, 2, 1.0),
        ("今天", "今" * 18, 8.5, 9, 17 / 18),  # counts for its size, 9, with its own error rate
        ("謝" * 18, "今天", 9, 1, 1.0),
    ],
)
def test_label_error_is_mer_bounded_by_the_segment_s_size(label, reference, edits, tokens, share):
    found = error_of(row(label, reference=reference))
    assert (found.edits, found.tokens, found.share) == pytest.approx((edits, tokens, share))
    assert max(found.edits, found.tokens) <= 9.0


def test_what_is_unknown_counts_as_wholly_wrong():
    assert error_of(row(correct=True)).share == 0
    for unknown in (row(), row(correct=False)):
        assert error_of(unknown).edits == 9.0
        assert error_of(unknown).share == 1.0


def test_stopping_anywhere_leaves_the_draws_before():
    rows = [row(draws=[0, 4]), row(draws=[1]), row(draws=[2, 3, 6]), row(draws=[5])]
    assert until(rows, 7) == (0, 0)
    rows[0].correct = rows[1].correct = True
    assert until(rows, 7) == (2, 0)
    rows[3].correct = True  # the third is skipped: its draws count, as wholly wrong
    assert until(rows, 7) == (7, 3)


def test_draws_fall_as_often_as_their_chances_say(corpus):
    lake, batch, _ = corpus
    drawn, population = draw(lambda: distinct_parts(lake, [batch]), DEFAULT, count=60_000, seed=1)
    assert sorted(at for one in drawn for at in one.draws) == list(range(60_000))
    (part,) = distinct_parts(lake, [batch])
    risk = thresholds(DEFAULT, part).segments
    assert population.segments == len(risk) == len(drawn) == 6 * 8 * 4
    size, mass = sizes(part.segments), np.array(population.strata)
    chances, weights = chances_of(mass)
    expected = 60_000 * sum(size) / mass.sum()  # of all draws, weighted
    assert sum(one.weight * len(one.draws) for one in drawn) == pytest.approx(expected, rel=0.01)
    for one in drawn:  # each: its weight undoes its chance
        assert one.weight * len(one.draws) == pytest.approx(60_000 * one.size / mass.sum(), rel=0.35)
        assert 0 < one.weight <= MOST_WEIGHT
    assert len(weights) == len(chances)


def test_the_same_seed_draws_the_same_whatever_the_parts(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path))

    def drawn(parts):
        batch, _ = simulated(lake, recordings=6)
        assert len(list(distinct_parts(lake, [batch]))) == parts
        draws, _ = draw(lambda: distinct_parts(lake, [batch]), DEFAULT, count=200, seed=5)
        lake.files.remove_folder("batches")
        return draws

    whole = drawn(parts=1)
    for module in ("k2d.store.batches", "k2d.corpus.index"):
        monkeypatch.setattr(f"{module}.PART_RECORDINGS", 1)  # a part for each recording
    assert drawn(parts=6) == whole


def test_a_review_file_comes_back_as_it_was_written_and_is_never_overwritten(corpus, tmp_path):
    lake, batch, _ = corpus
    head, rows = review(lake, [batch], DEFAULT, count=50, seed=0)
    path = tmp_path / "review.jsonl"
    write(path, head, rows)
    assert load(path) == (head, rows)
    assert [one.draws[0] for one in rows] == sorted(one.draws[0] for one in rows)
    with pytest.raises(BadRequest, match="exists"):
        write(path, head, rows)
    line = json.loads(path.read_text("utf-8").splitlines()[1])
    assert line["reference"] is line["correct"] is None
    assert set(line) >= {"id", "recording", "start_s", "end_s", "label", "hypotheses", "risk", "weight"}
    lines = path.read_text("utf-8").splitlines()
    shuffled = tmp_path / "shuffled.jsonl"  # an editor may sort lines and add members
    shuffled.write_text("\n".join([lines[0], *reversed(lines[1:])]).replace('"risk"', '"note": "x", "risk"'), "utf-8")
    assert load(shuffled) == (head, rows)


def test_what_an_editor_does_to_a_review_file_changes_nothing(corpus, tmp_path):
    lake, batch, _ = corpus
    head, rows = review(lake, [batch], DEFAULT, count=50, seed=0)
    rows = [row.model_copy(update={"reference": "好\u2028的\u0085嗎\u2029"}) for row in rows]
    write(tmp_path / "review.jsonl", head, rows)
    edited = tmp_path / "edited.jsonl"
    text = (tmp_path / "review.jsonl").read_text("utf-8")
    edited.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(edited) == (head, rows)


def test_a_review_file_of_version_0_1_is_read(corpus, tmp_path):
    """Its rows say `heard` and "chunk/2", its policy has the names of version 1; a review in it goes on counting."""
    lake, batch, truth = corpus
    head, rows = review(lake, [batch], DEFAULT, count=50, seed=0)
    rows = [row.model_copy(update={"reference": truth[row.id]}) for row in rows]
    policy = head.policy.model_dump(mode="json", exclude_none=True)
    earlier = {"homophones": "respelled", "forced_logprob": "unlikely", "avg_logprob": "unsure"}
    policy["weights"] = {earlier.get(name, name): value for name, value in policy["weights"].items() if value}
    for rate in ("min", "max", "usual"):
        if f"{rate}_phonemes_per_s" in policy:
            policy[f"{rate}_units_per_s"] = policy.pop(f"{rate}_phonemes_per_s")
    lines = [head.model_dump(mode="json") | {"review": 1, "policy": policy | {"version": 1}}]
    for row in rows:
        chunk, _, number = row.id.partition(".")
        heard = [
            {"listener": text["validator"], "view": text["perturbation"], "text": text["text"]}
            for text in row.hypotheses
        ]
        fields = row.model_dump(exclude={"hypotheses"})
        lines.append(fields | {"id": f"{chunk}/{int(number)}", "heard": heard})
    path = tmp_path / "review.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    read_head, read_rows = load(path)
    assert read_rows == rows
    assert read_head.policy == head.policy
    assert calibrate(lake, read_head, read_rows, [batch], target=0.5, confidence=0.9).draws == 50


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "line 1"), ('{"id": 1}', "line 1"), ("HEAD\nnot json", "line 2"), ("HEAD\n{}", "line 2: id")],
)
def test_a_damaged_review_file_is_refused_with_its_line(corpus, tmp_path, text, complaint):
    lake, batch, _ = corpus
    head, _ = review(lake, [batch], DEFAULT, count=30, seed=0)
    path = tmp_path / "review.jsonl"
    path.write_text(text.replace("HEAD", head.model_dump_json(exclude_none=True)), "utf-8")
    with pytest.raises(BadRequest, match=complaint):
        load(path)
    with pytest.raises(NotFound):
        load(tmp_path / "none.jsonl")


def test_too_few_draws_and_nothing_to_draw_are_refused(corpus):
    lake, batch, _ = corpus
    with pytest.raises(BadRequest, match="too few reviews to prove anything"):
        review(lake, [batch], DEFAULT, count=5, seed=0)
    with pytest.raises(BadRequest, match="nothing to review"):
        review(lake, [batch], DEFAULT.model_copy(update={"min_phonemes_per_s": 1e6}), count=50, seed=0)
