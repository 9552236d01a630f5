"""Fits the weights of the shipped policy to the true errors of a study's labels, and judges them cross-fitted.

    python bench/fit_weights.py ../shared/data/public ../shared/data/real --store ../study-store

The store is that of `k2d study` on the same sets with the same settings, so nothing is labeled again. Recordings (all
versions and chunks of one together) are dealt into five folds, and each label's risk comes from weights that were
fitted to the other four. The table has the area under the risk–coverage curve, and the log loss of the share of tokens
that are wrong, for the shipped weights and for fitted ones with all features or with some; below each, the weights
fitted to all labels.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from k2d.corpus.calibration.fit import minimise
from k2d.filtering.policy import DEFAULT, FEATURES
from k2d.filtering.policy.risk import features
from k2d.settings import load
from trainer.study import curves
from trainer.study.labeling import LabeledMaterial, label_material
from trainer.study.material import gather

FOLDS = 5
PULL = 1e-3  # towards no weight, so that features that say nothing get none
SETS = {
    "all": tuple(FEATURES),
    "today's": ("disagreement", "homophones", "expected_token_error", "avg_logprob"),
    "without the teacher's": ("disagreement", "homophones", "expected_token_error", "forced_logprob"),
    "disagreement alone": ("disagreement",),
}


def area(material: LabeledMaterial, score: np.ndarray) -> float:
    """The area under the risk–coverage curve of a score."""
    labels = material.labels
    weights = np.ones((1, len(labels)))
    curve = curves.risk(curves.rank(score), weights, seconds=labels.seconds, edits=labels.edits, tokens=labels.tokens)
    return float(curves.area(curve)[0])


def loss(odds: np.ndarray, wrong: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0.0, odds) - wrong * odds))


def fitted(x: np.ndarray, wrong: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Coefficients, 0 for features outside `columns`; shape (1 + features,)."""
    chosen = [0, *(1 + column for column in columns)]
    start = np.zeros(len(chosen))
    beta = np.zeros(x.shape[1])
    beta[chosen] = minimise(x[:, chosen], wrong, np.ones(len(x)), start, np.full(len(chosen), PULL))
    return beta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--store", required=True)
    parser.add_argument("--validator", default="perturbed")
    parser.add_argument("--fit-on", default="", help="fit to sets with this in their name only; judge on all")
    arguments = parser.parse_args()
    settings = load(store=arguments.store, log_level="error")
    with tempfile.TemporaryDirectory() as folder:
        recordings, _ = gather(arguments.sets, settings, split="test", limit=None, folder=Path(folder))
        material = label_material(recordings, [arguments.validator], settings, cost_audio_s=0.0)
    labels, columns = material.labels, material.validators[0].chunks
    heard = np.maximum(columns["zh_tokens"] + columns["en_tokens"] + columns["other_tokens"], labels.tokens)
    wrong = np.clip(labels.edits / np.maximum(heard, 1.0), 0.0, 1.0)
    x = np.column_stack([np.ones(len(labels)), features(DEFAULT, columns).astype(np.float64)])
    fold = np.random.default_rng(0).permutation(int(labels.groups.max()) + 1)[labels.groups] % FOLDS
    usable = np.array([arguments.fit_on in name for name in labels.kinds["set"]])
    assert DEFAULT.weights is not None
    shipped = np.array([DEFAULT.weights.bias, *(getattr(DEFAULT.weights, name) for name in FEATURES)])
    mer = labels.edits.sum() / labels.tokens.sum()
    print(f"{len(labels)} labels, label MER {mer:.4f}, perfect order {area(material, labels.true_mer):.4f}")
    print(f"{'shipped weights':26} area {area(material, x @ shipped):.4f}  loss {loss(x @ shipped, wrong):.4f}")
    for name, members in SETS.items():
        places = [list(FEATURES).index(member) for member in members]
        odds = np.empty(len(labels))
        for number in range(FOLDS):
            beta = fitted(x[(fold != number) & usable], wrong[(fold != number) & usable], places)
            odds[fold == number] = x[fold == number] @ beta
        print(f"{name:26} area {area(material, odds):.4f}  loss {loss(odds, wrong):.4f}  (cross-fitted)")
        beta = fitted(x[usable], wrong[usable], places)
        weights = {key: round(float(value), 2) for key, value in zip(FEATURES, beta[1:], strict=True) if value > 0.005}
        print(f"{'':26} bias {beta[0]:.2f}  {weights}")
        for alpha in (0.2, 0.25, 0.3, 0.35, 0.4):
            kept = 1 / (1 + np.exp(-odds)) <= alpha
            share = labels.seconds[kept].sum() / labels.seconds.sum()
            kept_mer = labels.edits[kept].sum() / labels.tokens[kept].sum()
            print(f"{'':26} α {alpha}: {share:.0%} of the hours, label MER {kept_mer:.4f}")


if __name__ == "__main__":
    main()
