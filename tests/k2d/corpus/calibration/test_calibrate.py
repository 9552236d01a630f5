"""From a drawn file to a policy with a claim, and what happens where there is nothing to claim."""

import re

import numpy as np
import pytest
import yaml
from corpora import simulated

from k2d.corpus.calibration.calibrate import calibrate
from k2d.corpus.calibration.rates import ALPHAS, seconds_kept, speech_rate, with_rate
from k2d.corpus.calibration.review import review
from k2d.corpus.distinct import distinct_parts
from k2d.errors import BadRequest, NotFound
from k2d.filtering.policy import DEFAULT, PAPER, columns_of, decide, evidence_columns, from_yaml, to_yaml
from k2d.keys import segment_id
from k2d.store import Lake


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    batch, truth = simulated(lake, recordings=24)
    return lake, batch, truth


def reviewed(corpus, policy=DEFAULT, *, count=400, upto=None):
    lake, batch, truth = corpus
    head, rows = review(lake, [batch], policy, count=count, seed=3)
    for row in rows[:upto]:
        row.reference = truth[row.id]
    return head, rows


def run(corpus, head, rows, **changes):
    lake, batch, _ = corpus
    return calibrate(lake, head, rows, [batch], **{"target": 0.08, "confidence": 0.95} | changes)


@pytest.fixture(scope="module")
def calibrated(corpus):
    """The default policy after all 400 reviews."""
    return run(corpus, *reviewed(corpus))


def true_mer(corpus, policy) -> float:
    """Label error of all that a policy keeps, by the truth nobody reviewed."""
    lake, batch, truth = corpus
    edits = tokens = 0
    for result in lake.batches.results(batch.id):
        for fact in lake.facts.read(result.facts_key):
            whole = decide(policy, columns_of([fact.distances], [fact.evidence])).accepted[0]
            kept = decide(policy, evidence_columns(fact.segment_evidence)).accepted if policy.salvage else [False] * 4
            for number, segment in enumerate(fact.segments):
                if whole or kept[number]:
                    reference = truth[segment_id(fact.id, number)].split()
                    tokens += len(reference)
                    edits += sum(a != b for a, b in zip(reference, segment.text.split(), strict=True))
    return edits / tokens


@pytest.mark.parametrize("policy", [DEFAULT, PAPER], ids=lambda policy: policy.name)
def test_a_policy_is_found_whose_claim_is_true(corpus, calibrated, policy):
    found = calibrated if policy is DEFAULT else run(corpus, *reviewed(corpus, policy))
    assert found.alpha is not None
    assert found.point is not None
    assert found.point.upper <= 0.08
    assert found.policy.alpha == found.alpha
    assert "label MER ≤ 8.0% with 95% confidence, by 400 reviewed draws" in (found.policy.claim or "")
    assert true_mer(corpus, found.policy) <= 0.08
    assert from_yaml(to_yaml(found.policy)) == found.policy  # the file says all of it
    shares = [point.share for point in found.curve]
    assert shares == sorted(shares)
    assert all(point.lower <= point.upper for point in found.curve)


def test_weights_are_fitted_on_reviews_that_do_not_prove(corpus, calibrated):
    found = calibrated
    assert found.fit is not None
    assert (found.draws, found.pilot, found.holes) == (400, 100, 0)
    assert found.policy.usual_phonemes_per_s == pytest.approx(8.0, rel=0.02)  # 24 phonemes in 3 s
    assert found.policy.min_phonemes_per_s > 0.5
    assert found.policy.max_phonemes_per_s < 30
    few = run(corpus, *reviewed(corpus, count=150))
    assert few.fit is None
    assert few.policy.weights == DEFAULT.weights


def test_salvage_keeps_more_at_the_same_error(corpus, calibrated):
    """The same evidence, whole chunks only: what a bad segment takes with it."""
    whole = DEFAULT.model_copy(update={"salvage": False})
    with_salvage, without = calibrated, run(corpus, *reviewed(corpus, whole, count=1500))
    assert with_salvage.point.share > (without.point.share if without.point else 0.0) + 0.1


def test_nothing_reviewed_claims_nothing(corpus):
    found = run(corpus, *reviewed(corpus, upto=0))
    assert (found.draws, found.alpha, found.policy.claim) == (0, None, None)
    assert (found.policy.weights, found.policy.alpha) == (DEFAULT.weights, DEFAULT.alpha)
    assert (
        found.policy.usual_phonemes_per_s != DEFAULT.usual_phonemes_per_s
    )  # no review is needed to know how they speak


def test_what_cannot_be_proved_says_how_many_reviews_it_takes(corpus):
    early = run(corpus, *reviewed(corpus, upto=110))
    assert early.alpha is None
    assert early.policy.claim is None
    assert 100 < early.reviews_needed < 2000
    assert any("of 400 draws" in note for note in early.notes)
    head, rows = reviewed(corpus)
    for row in rows:  # every label wrong: no policy can help
        row.reference = "完全不同的話"
    hopeless = run(corpus, head, rows)
    assert (hopeless.alpha, hopeless.reviews_needed) == (None, None)


def test_what_cannot_be_proved_says_what_can(corpus):
    head, rows = reviewed(corpus)
    strict = run(corpus, head, rows, target=0.001)
    assert strict.alpha is None
    target = next(re.search(r"--target ([0-9.]+)", note) for note in strict.notes if "can prove" in note)[1]
    assert run(corpus, head, rows, target=float(target)).alpha is not None


def test_going_on_reviewing_never_takes_a_proof_back(corpus, calibrated):
    reached = [run(corpus, *reviewed(corpus, upto=upto)).alpha or 0.0 for upto in (180, 260)] + [calibrated.alpha]
    assert reached == sorted(reached)


def test_skipped_reviews_cost_as_if_wrong(corpus, calibrated):
    head, rows = reviewed(corpus)
    for row in rows[120:300:3]:
        row.reference = None
    found = run(corpus, head, rows)
    assert found.holes >= 60
    assert (found.alpha or 0.0) < calibrated.alpha


def test_seconds_kept_are_those_that_decide_keeps(corpus):
    lake, batch, _ = corpus

    def population():
        return distinct_parts(lake, [batch])

    kept = seconds_kept(population, DEFAULT)
    (part,) = population()
    assert kept.total == pytest.approx(24 * 8 * 12.0)
    for alpha in (0.02, 0.0301, 0.1, 0.5, 1.0):
        at = DEFAULT.model_copy(update={"alpha": alpha})
        whole = decide(at, part.chunks).accepted
        salvaged = decide(at, part.segments).accepted & ~whole[part.segments["chunk"]]
        wanted = part.chunks["duration_s"][whole].sum() + part.segments["duration_s"][salvaged].sum()
        assert kept.at(alpha) == pytest.approx(float(wanted), abs=1e-6)
    candidates = kept.candidates()
    assert (np.diff(candidates) > 0).all()
    assert set(candidates) <= set(ALPHAS)
    assert kept.at(candidates[-1]) == pytest.approx(kept.kept[-1])


def test_limits_of_the_speech_rate_only_get_narrower(corpus):
    lake, batch, _ = corpus
    rate = speech_rate(lambda: distinct_parts(lake, [batch]), DEFAULT)
    assert rate.least < rate.usual < rate.most
    narrow = DEFAULT.model_copy(update={"min_phonemes_per_s": 7.9, "max_phonemes_per_s": 8.1})
    assert (with_rate(narrow, rate).min_phonemes_per_s, with_rate(narrow, rate).max_phonemes_per_s) == (7.9, 8.1)
    assert with_rate(PAPER, rate) == PAPER


def test_reviews_of_another_corpus_are_refused(corpus, tmp_path):
    lake = Lake(str(tmp_path / "other"))
    other, _ = simulated(lake, recordings=1, name="other")
    head, rows = reviewed(corpus, count=40)
    with pytest.raises(NotFound, match="in none of these batches"):
        calibrate(lake, head, rows, [other], target=0.08, confidence=0.95)
    for wrong in ({"target": 0.0}, {"target": 1.2}, {"confidence": 1.0}):
        with pytest.raises(BadRequest):
            run(corpus, head, rows, **wrong)


def test_the_command_writes_a_policy_that_every_command_takes(corpus, tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from k2d.cli import commands  # noqa: F401 — registers them
    from k2d.cli.base import app

    lake, batch, truth = corpus
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K2D_STORE", str(lake.files.root))
    monkeypatch.setenv("COLUMNS", "140")
    k2d = CliRunner()
    drawn = k2d.invoke(app, ["review", batch.name, "--out", "r.jsonl", "--count", "400", "--seed", "3"])
    assert drawn.exit_code == 0, drawn.output
    unreviewed = k2d.invoke(app, ["calibrate", "r.jsonl", "--out", "preset.yaml"])
    assert unreviewed.exit_code == 0
    assert "claim" not in yaml.safe_load((tmp_path / "preset.yaml").read_text("utf-8"))

    from k2d.corpus.calibration import reviews

    head, rows = reviews.load(tmp_path / "r.jsonl")
    for row in rows:
        row.reference = truth[row.id]
    reviews.write(tmp_path / "done.jsonl", head, rows)
    answer = k2d.invoke(app, ["calibrate", "done.jsonl", batch.id, "--out", "mine.yaml"])
    assert answer.exit_code == 0, answer.output
    assert "label MER ≤ 8.0% with 95% confidence" in answer.output
    assert k2d.invoke(app, ["policy", "check", "mine.yaml"]).exit_code == 0
    assert "Calibrated: label MER" in k2d.invoke(app, ["policy", "explain", "./mine.yaml"]).output
    assert "weights.disagreement" in k2d.invoke(app, ["policy", "diff", "evidence", "mine.yaml"]).output
    assert k2d.invoke(app, ["audit", batch.name, "--policy", "mine.yaml", "--json"]).exit_code == 0
    hard = k2d.invoke(app, ["calibrate", "done.jsonl", "--target", "0.001", "--out", "never.yaml", "--json"])
    assert hard.exit_code == 1
    assert not (tmp_path / "never.yaml").exists()
