"""The loss in chunks is the loss: against a plain float64 formula, value and gradients."""

import pytest
import torch

from k2d.whisper.vocabulary import Vocabulary
from trainer.data.batch import IGNORED
from trainer.model.distiller import Distiller, PromptEmbedding
from trainer.model.loss import Terms, distillation_loss, rows_that_fit
from trainer.model.student import cut_student, load_teacher
from trainer.options import Recipe

TARGETS, WIDTH, WIDER, WORDS = 37, 12, 20, 101


@pytest.fixture
def tensors():
    torch.manual_seed(3)
    student = torch.randn(TARGETS, WIDTH, dtype=torch.float64)
    head = torch.randn(WORDS, WIDTH, dtype=torch.float64)
    teacher = torch.randn(TARGETS, WIDER, dtype=torch.float64)
    teacher_head = torch.randn(WORDS, WIDER, dtype=torch.float64)
    targets = torch.randint(0, WORDS, (TARGETS,))
    weights = torch.rand(TARGETS, dtype=torch.float64)
    return student, head, teacher, teacher_head, targets, weights


def plain(student, head, teacher, teacher_head, targets, weights, terms):
    """docs/method.md, section 4, written down: nothing shared with the code under test."""
    logits, known = student @ head.T, teacher @ teacher_head.T
    ce = -torch.log(torch.softmax(logits, -1))[torch.arange(len(targets)), targets]
    q = torch.softmax(known / terms.temperature, -1)
    p = torch.softmax(logits / terms.temperature, -1)
    kl = (q * (q.log() - p.log())).sum(-1) * terms.temperature**2
    return (weights * (terms.ce_weight * ce + terms.kl_weight * kl)).sum(), (weights * ce).sum(), (weights * kl).sum()


def with_gradients(function, student, head, *rest):
    student, head = student.clone().requires_grad_(), head.clone().requires_grad_()
    total, ce, kl = function(student, head, *rest)
    (3.0 * total).backward()  # a factor, so that the backward pass has something to scale by
    return total.detach(), ce.detach(), kl.detach(), student.grad, head.grad


@pytest.mark.parametrize("rows", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize("terms", [Terms(0.8, 1.0, 2.0), Terms(1.0, 0.0, 1.0), Terms(0.0, 1.0, 4.0)], ids=str)
def test_value_and_gradients_are_those_of_the_formula(tensors, terms, rows):
    ours = with_gradients(lambda *args: distillation_loss(*args, terms=terms, rows=rows), *tensors)
    theirs = with_gradients(lambda *args: plain(*args, terms), *tensors)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_float32_is_close_to_float64(tensors):
    terms = Terms(0.8, 1.0, 2.0)
    exact = with_gradients(lambda *args: plain(*args, terms), *tensors)
    single = [value.float() if value.is_floating_point() else value for value in tensors]
    ours = with_gradients(lambda *args: distillation_loss(*args, terms=terms, rows=8), *single)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-5, atol=2e-5)


def test_kl_is_zero_when_the_student_is_the_teacher(tensors):
    _, _, teacher, teacher_head, targets, weights = tensors
    _, ce, kl, to_student, to_head = with_gradients(
        lambda s, h: distillation_loss(
            s, h, teacher, teacher_head, targets, weights, terms=Terms(0.0, 1.0, 2.0), rows=8
        ),
        teacher,
        teacher_head,
    )
    assert abs(float(kl)) < 1e-12
    assert float(ce) > 0
    assert float(to_student.abs().max()) < 1e-12
    assert float(to_head.abs().max()) < 1e-12


def test_no_gradient_is_computed_where_none_is_wanted(tensors):
    with torch.no_grad():
        total, _, _ = distillation_loss(*tensors, terms=Terms(0.8, 1.0, 2.0), rows=8)
    torch.testing.assert_close(total, plain(*tensors, Terms(0.8, 1.0, 2.0))[0])


def test_chunks_hold_as_many_rows_as_fit():
    assert rows_that_fit(51_865, 128) == 646
    assert rows_that_fit(51_865, 1) == 5
    assert rows_that_fit(10**9, 1) == 1


# ---- the whole step -------------------------------------------------------------------------------------------------


def distiller(teacher, *, layers=2, **changes):
    loaded = load_teacher(teacher)
    student = cut_student(loaded, decoder_layers=layers)
    vocabulary = Vocabulary(teacher / "tokenizer.json")
    return Distiller(loaded, student, Recipe(**changes), vocabulary), vocabulary


def batch(vocabulary, *, prompt=3, length=9, rows=2):
    torch.manual_seed(1)
    tokens = torch.randint(300, 50_000, (rows, length + 1))
    tokens[:, :3] = torch.tensor([vocabulary.sot, vocabulary.sot_lm, vocabulary.transcribe])
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[:, : prompt - 1] = IGNORED
    return torch.randn(rows, 80, 3000) * 0.3, inputs, targets, torch.ones(rows)


def test_prompt_and_padding_count_for_nothing(teacher):
    model, vocabulary = distiller(teacher)
    features, inputs, targets, weights = batch(vocabulary)
    before = model(features, inputs, targets, weights, normaliser=1.0)
    padding = torch.full((2, 4), vocabulary.eot)
    after = model(
        features,
        torch.cat([inputs, padding], 1),
        torch.cat([targets, torch.full((2, 4), IGNORED)], 1),
        weights,
        normaliser=1.0,
    )
    torch.testing.assert_close(after.loss, before.loss)


def test_a_row_of_weight_zero_gives_no_gradient(teacher):
    model, vocabulary = distiller(teacher)
    features, inputs, targets, weights = batch(vocabulary)
    weights[1] = 0.0
    model(features, inputs, targets, weights, normaliser=7.0).loss.backward()
    both = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(features[:1], inputs[:1], targets[:1], weights[:1], normaliser=7.0).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(both[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_student_with_all_layers_is_its_teacher(teacher):
    model, vocabulary = distiller(teacher, layers=4)
    parts = model(*batch(vocabulary), normaliser=1.0)
    assert abs(float(parts.kl)) < 1e-3  # float32
    assert float(parts.ce) > 1


def test_the_mixed_prompt_is_the_mean_of_both_languages(teacher):
    model, vocabulary = distiller(teacher)
    weight = model.decoder.embed_tokens.weight.detach()
    tokens = torch.tensor([[vocabulary.sot, vocabulary.sot_lm, vocabulary.transcribe]])
    embedded = PromptEmbedding(vocabulary)(weight, tokens)
    mean = (weight[vocabulary.languages["zh"]] + weight[vocabulary.languages["en"]]) / 2
    torch.testing.assert_close(embedded[0, 1], mean)
    torch.testing.assert_close(embedded[0, [0, 2]], weight[[vocabulary.sot, vocabulary.transcribe]])


def test_student_and_teacher_are_both_prompted_with_it(teacher, monkeypatch):
    model, vocabulary = distiller(teacher)
    seen, decode = [], model._frozen.decode
    model.decoder.register_forward_pre_hook(
        lambda module, _, given: seen.append((module, given["inputs_embeds"].detach())), with_kwargs=True
    )

    def watched(embedded, encoded):
        seen.append((model._frozen.decoder, embedded))
        return decode(embedded, encoded)

    monkeypatch.setattr(model._frozen, "decode", watched)
    model(*batch(vocabulary), normaliser=1.0)
    assert len(seen) == 2
    for decoder, embedded in seen:
        mean = decoder.embed_tokens.weight[[vocabulary.languages[code] for code in ("zh", "en")]].mean(0)
        torch.testing.assert_close(embedded[:, 1], mean.expand(2, -1))


def test_frozen_parts_stay_and_positions_too(teacher):
    model, vocabulary = distiller(teacher)
    model(*batch(vocabulary), normaliser=1.0).loss.backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert "decoder.embed_tokens.weight" in learned
    assert not any("embed_positions" in name or name.startswith("encoder") for name in learned)
    trained, vocabulary = distiller(teacher, freeze_encoder=False, freeze_positions=False)
    trained(*batch(vocabulary), normaliser=1.0).loss.backward()
    learned = {name for name, p in trained.named_parameters() if p.grad is not None}
    assert "decoder.embed_positions.weight" in learned
    assert "encoder.conv1.weight" in learned
    assert "encoder.embed_positions.weight" not in learned
