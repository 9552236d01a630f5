"""The step that ours is compared with does what distil-whisper's does: its loss, its padding, its masks."""

import copy
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
from places import ROOT

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

START, PAD, PREVIOUS = 60, 59, 61  # of a vocabulary of 64
ROWS = [(START, 62, 63, 5, 9, 7, PAD), (START, 62, 63, 8, PAD)]


@pytest.fixture(scope="module")
def plain():
    return SimpleNamespace(**runpy.run_path(str(ROOT / "bench" / "plain_distillation.py")))


def whisper(decoder_layers: int, seed: int):
    """A tiny Whisper with weights large enough that its distributions are far from uniform."""
    torch.manual_seed(seed)
    config = transformers.WhisperConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=2,
        decoder_layers=decoder_layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=8,
        max_source_positions=20,
        pad_token_id=PAD,
        bos_token_id=PAD,
        eos_token_id=PAD,
        decoder_start_token_id=START,
        init_std=0.5,
    )
    return transformers.WhisperForConditionalGeneration(config)


@pytest.fixture
def models(plain):
    teacher, student = whisper(3, seed=1), whisper(1, seed=2)
    plain.share(teacher, student)
    return student, teacher


@pytest.fixture
def features():
    return torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(3))


def in_float64(student, teacher, batch, *, temperature: float, kl_weight: float) -> tuple[float, float, float]:
    """The loss as the formula has it, in double precision, one counted position after the other, in numpy."""
    student, teacher = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    given = {"input_features": batch["input_features"].double(), "decoder_input_ids": batch["decoder_input_ids"]}
    with torch.no_grad():
        q_logits, p_logits = student(**given).logits.numpy(), teacher(**given).logits.numpy()
    ce = kl = 0.0
    counted = [(row, at) for row, at in np.ndindex(*batch["labels"].shape) if batch["labels"][row, at] >= 0]
    for row, at in counted:
        q, p = q_logits[row, at], p_logits[row, at]
        ce -= (q - np.log(np.exp(q).sum()))[batch["labels"][row, at]]
        soft_q = q / temperature - np.log(np.exp(q / temperature).sum())
        soft_p = p / temperature - np.log(np.exp(p / temperature).sum())
        kl += (np.exp(soft_p) * (soft_p - soft_q)).sum() * temperature**2
    ce, kl = ce / len(counted), kl / len(counted)
    return 0.8 * ce + kl_weight * kl, ce, kl


@pytest.mark.parametrize(("temperature", "kl_weight"), [(2.0, 1.0), (1.0, 0.3)])
@pytest.mark.parametrize("padding", ["max_length", "longest"])
def test_its_loss_is_the_formula(plain, models, features, padding, temperature, kl_weight):
    batch = plain.collate(ROWS, features, start=START, pad=PAD, padding=padding)
    found = plain.losses(*models, batch, temperature=temperature, kl_weight=kl_weight)
    expected = in_float64(*models, batch, temperature=temperature, kl_weight=kl_weight)
    assert [found.loss.item(), found.ce.item(), found.kl.item()] == pytest.approx(expected, rel=1e-5)
    assert expected[2] > 0.1  # the two models disagree


def test_padding_costs_positions_and_changes_no_loss(plain, models, features):
    wide, narrow = (plain.collate(ROWS, features, start=START, pad=PAD, padding=p) for p in ("max_length", "longest"))
    assert wide["labels"].shape == (2, 447)  # 448 less the shift
    assert narrow["labels"].shape == (2, 6)
    assert plain.losses(*models, wide).loss.item() == pytest.approx(plain.losses(*models, narrow).loss.item(), rel=1e-5)


def test_language_and_task_count_and_previous_text_does_not(plain, features):
    rows = [(PREVIOUS, 4, 6, *ROWS[0]), ROWS[0]]
    labels = plain.collate(rows, features, start=START, pad=PAD, padding="longest")["labels"].tolist()
    assert labels[0] == [-100, -100, -100, 62, 63, 5, 9, 7, PAD]
    assert labels[1] == [62, 63, 5, 9, 7, PAD, -100, -100, -100]


def test_its_teacher_sees_no_previous_text(plain, models, features):
    """A property of theirs, kept: only with previous text does it matter what the teacher is called with."""
    plainly = plain.collate(ROWS, features, start=START, pad=PAD)
    given, shown = (plain.losses(*models, plainly, shown=shown).kl.item() for shown in (False, True))
    assert given == pytest.approx(shown, rel=1e-6)
    prompted = plain.collate([(PREVIOUS, 4, 6, *row) for row in ROWS], features, start=START, pad=PAD)
    given, shown = (plain.losses(*models, prompted, shown=shown).kl.item() for shown in (False, True))
    assert given != pytest.approx(shown, rel=1e-3)


def test_a_step_trains_the_decoder_and_nothing_else(plain, models, features):
    student, teacher = models
    before = {name: value.clone() for name, value in (student.state_dict() | _named(teacher)).items()}
    optimizer = plain.optimizer_of(student, learning_rate=1e-2)
    batch = plain.collate(ROWS, features, start=START, pad=PAD, padding="longest")
    first = plain.plain_step(student, teacher, optimizer, batch)
    for _ in range(5):
        last = plain.plain_step(student, teacher, optimizer, batch)
    assert last.loss < first.loss
    moved = {name for name, value in (student.state_dict() | _named(teacher)).items() if not value.equal(before[name])}
    assert "model.decoder.embed_tokens.weight" in moved
    assert not [name for name in moved if name.startswith(("teacher.", "model.encoder.")) or "positions" in name]


def _named(teacher):
    return {f"teacher.{name}": value for name, value in teacher.state_dict().items()}


def test_the_trainer_computes_the_same_loss_and_gradient(plain, models, features):
    """On equal targets; ours leaves language and task out, which theirs counts."""
    from trainer.model.distiller import Distiller
    from trainer.options import Recipe

    student, teacher = models
    batch = plain.collate(ROWS, features, start=START, pad=PAD, padding="longest")
    batch["labels"][:, :2] = -100
    theirs = plain.losses(student, teacher, batch, shown=True)
    theirs.loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in _trained(student)}
    student.zero_grad(set_to_none=True)
    ids = SimpleNamespace(sot_lm=58, languages={"zh": 57, "en": 56})  # tokens that no row has
    distiller = Distiller(teacher, student, Recipe(), ids)
    targets = batch["labels"]
    count = int((targets >= 0).sum())
    ours = distiller(features, batch["decoder_input_ids"], targets, torch.ones(len(ROWS)), normaliser=count)
    ours.loss.backward()
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    assert (ours.ce / count).item() == pytest.approx(theirs.ce.item(), rel=1e-5)
    assert (ours.kl / count).item() == pytest.approx(theirs.kl.item(), rel=1e-5)
    found = {name: parameter.grad for name, parameter in _trained(student)}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def _trained(student):
    return [(name, parameter) for name, parameter in student.named_parameters() if parameter.requires_grad]


def test_accelerate_changes_nothing_in_float32(plain, models, features):
    from accelerate import Accelerator

    batch = plain.collate(ROWS, features, start=START, pad=PAD, padding="longest")
    found = []
    for accelerator in (None, Accelerator(cpu=True, mixed_precision="no")):
        student, teacher = copy.deepcopy(models)
        optimizer = plain.optimizer_of(student)
        if accelerator:
            student, teacher, optimizer = accelerator.prepare(student, teacher, optimizer)
        found.append([plain.plain_step(student, teacher, optimizer, batch, accelerator=accelerator) for _ in range(2)])
    assert [each.loss.item() for each in found[0]] == [each.loss.item() for each in found[1]]
