"""What a run will cost, as it is told before it starts."""

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from trainer.options import PRESETS
from trainer.run.estimate import measure


def test_an_estimate_names_epochs() -> None:
    estimate = measure(
        lambda: (1.0, 2.0),
        longest=lambda: None,
        parameters={"teacher": 3, "student": 2, "trained": 1},
        rows=8,
        flops_per_chunk=1e9,
        steps=100,
        batch=32,
        world=1,
        dataset_rows=640,
        keeps_encoded=False,
        device=torch.device("cpu"),
    )
    assert estimate.epochs == 5.0
    assert "each row 5 times (epochs)" in dict(estimate.lines())["in all"]


def test_recordings_are_held_out_unless_told_otherwise() -> None:
    assert all(recipe.holdout > 0 for recipe in PRESETS.values())
