"""The frozen teacher run on its own weights says what transformers says, in float32 and in half precision."""

import pytest
import torch

from trainer.model.frozen_layers import FrozenTeacher
from trainer.model.loss import Terms, distillation_loss
from trainer.model.student import load_teacher


@pytest.fixture(scope="module")
def model(teacher):
    """Weights large enough that every sum, norm and head moves the result."""
    loaded = load_teacher(teacher)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "embed" not in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return loaded


@pytest.fixture(scope="module")
def given(model):
    torch.manual_seed(8)
    features = torch.randn(2, model.config.num_mel_bins, 3000)
    return features, torch.randint(0, 50_000, (2, 11))


@torch.no_grad()
def test_both_halves_are_those_of_transformers(model, given):
    features, tokens = given
    frozen = FrozenTeacher(model.model.encoder, model.model.decoder)
    encoded = frozen.encode(features)
    theirs = model.model.encoder(features).last_hidden_state
    torch.testing.assert_close(encoded, theirs, rtol=1e-4, atol=1e-4)
    hidden = frozen.decode(frozen.embeddings[tokens], encoded)
    wanted = model.model.decoder(input_ids=tokens, encoder_hidden_states=theirs).last_hidden_state
    torch.testing.assert_close(hidden, wanted, rtol=1e-3, atol=1e-3)


def test_half_precision_pads_the_vocabulary_and_changes_only_rounding():
    torch.manual_seed(9)
    rows, width, words = 23, 32, 101  # 101 is no multiple of 64
    student, teacher = torch.randn(rows, width), torch.randn(rows, width)
    heads = torch.randn(words, width) / 4, torch.randn(words, width) / 4
    targets, weights = torch.randint(0, words, (rows,)), torch.rand(rows)

    def gradients(half: bool) -> list[torch.Tensor]:
        hidden, head = student.clone().requires_grad_(), heads[0].clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found = distillation_loss(
                hidden, head, teacher, heads[1], targets, weights, terms=Terms(0.8, 1.0, 2.0), rows=8
            )
        found[0].backward()
        return [*(value.detach() for value in found), hidden.grad, head.grad]

    for half, exact in zip(gradients(True), gradients(False), strict=True):
        assert half.shape == exact.shape
        assert half.dtype == torch.float32
        assert float((half - exact).norm() / exact.norm()) < 0.02  # bf16 has 8 bits
