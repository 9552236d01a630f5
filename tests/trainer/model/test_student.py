"""Students are cut from teachers of any shape, and saved so that every tool prompts them as they were trained."""

import json

import pytest
import torch
from tiny import tiny_teacher

from k2d.errors import BadRequest, ModelError
from k2d.whisper.vocabulary import Vocabulary
from trainer.model.flops import chunk_flops
from trainer.model.student import (
    check_vocabulary,
    compare_sizes,
    count_parameters,
    cut_student,
    layer_map,
    load_teacher,
    mixed_embedding,
    save_student,
    share_encoder,
    spaced_layers,
)


@pytest.mark.parametrize(
    ("count", "of", "layers"),
    [
        (2, 32, (0, 31)),  # the paper's student
        (2, 6, (0, 5)),
        (4, 32, (0, 10, 20, 31)),
        (3, 4, (0, 1, 3)),
        (4, 4, (0, 1, 2, 3)),
        (1, 6, (5,)),
        (1, 1, (0,)),
    ],
)
def test_layers_are_as_far_apart_as_they_go(count, of, layers):
    assert spaced_layers(count, of=of) == layers


@pytest.mark.parametrize("count", [0, 5])
def test_layers_that_are_not_there_are_refused(count):
    with pytest.raises(BadRequest, match="has 4 layers"):
        spaced_layers(count, of=4)


def test_a_student_has_its_teachers_weights(teacher):
    loaded = load_teacher(teacher)
    student = cut_student(teacher, decoder_layers=2)
    ours, theirs = student.state_dict(), loaded.state_dict()
    for name, value in ours.items():
        source = name.replace("decoder.layers.1.", "decoder.layers.3.")
        assert torch.equal(value, theirs[source]), name
    assert student.config.decoder_layers == 2
    assert student.proj_out.weight is student.model.decoder.embed_tokens.weight
    shared = {value.data_ptr() for value in theirs.values()} & {value.data_ptr() for value in ours.values()}
    assert not shared


def test_an_encoder_can_be_cut_too(teacher):
    student = cut_student(teacher, decoder_layers=1, encoder_layers=1)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (1, 1)
    assert len(student.model.encoder.layers) == 1
    with pytest.raises(BadRequest, match="not the teacher's"):
        share_encoder(load_teacher(teacher), student)


def test_alignment_heads_are_those_of_layers_that_are_there(teacher):
    assert cut_student(teacher, decoder_layers=2).generation_config.alignment_heads == [[0, 1]]
    assert cut_student(teacher, decoder_layers=4).generation_config.alignment_heads == [[0, 1], [2, 0]]
    # none is known in the last layer alone: all of its heads, never one of a layer that is gone
    assert cut_student(teacher, decoder_layers=1).generation_config.alignment_heads == [[0, 0], [0, 1]]


def test_a_saved_student_is_prompted_the_same_in_every_language(teacher, tmp_path):
    student = cut_student(teacher, decoder_layers=2)
    vocabulary = Vocabulary(teacher / "tokenizer.json")
    before = student.state_dict()["model.decoder.embed_tokens.weight"].clone()
    save_student(student, tmp_path / "student", tokenizer_from=teacher)
    after = student.model.decoder.embed_tokens.weight
    assert torch.equal(after, before)  # training goes on with what it had
    saved = load_teacher(tmp_path / "student").model.decoder.embed_tokens.weight
    rows = [vocabulary.sot_lm, vocabulary.languages["zh"], vocabulary.languages["en"]]
    for row in rows:
        assert torch.equal(saved[row], mixed_embedding(before, vocabulary))
    # an engine that takes the mean of zh and en gets the same
    assert torch.equal(mixed_embedding(saved, vocabulary), saved[rows[0]])
    others = [row for row in range(len(saved)) if row not in rows]
    assert torch.equal(saved[others], before[others])
    generation = json.loads((tmp_path / "student" / "generation_config.json").read_text())
    assert generation["alignment_heads"] == [[0, 1]]
    assert not generation.get("forced_decoder_ids")


def test_another_vocabulary_is_refused(teacher, tmp_path):
    other = load_teacher(tiny_teacher(tmp_path / "other", vocab_size=51_866))
    with pytest.raises(BadRequest, match="51865 tokens, the student 51866"):
        check_vocabulary(load_teacher(teacher), other)


def test_damaged_weights_are_named(teacher, tmp_path):
    broken = tiny_teacher(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_teacher(broken)


def test_tied_weights_are_counted_once(teacher):
    loaded = load_teacher(teacher)
    assert count_parameters(loaded).total == sum(p.numel() for p in loaded.parameters())
    student = cut_student(loaded, decoder_layers=2)
    rows = compare_sizes(loaded, student, layer_map(loaded.config, decoder_layers=2, encoder_layers=None))
    assert [row["copied_from"] for row in rows] == [[0, 1], [0, 3]]
    assert sum(row["student_parameters"] for row in rows) == count_parameters(student).total


def test_arithmetic_of_large_v2_is_what_it_is_known_to_be(teacher):
    """About 2.3 TFLOP for the encoder, 0.6 for the teacher's decoder and 0.16 for the student, at 150 tokens."""
    config = load_teacher(teacher).config
    large = {
        "d_model": 1280,
        "encoder_layers": 32,
        "decoder_layers": 32,
        "encoder_ffn_dim": 5120,
        "decoder_ffn_dim": 5120,
    }
    config.update(large)
    student = type(config).from_dict({**config.to_dict(), "decoder_layers": 2})
    cost = chunk_flops(config, student, tokens=150)
    assert cost.encoder == pytest.approx(2.27e12, rel=0.01)
    assert cost.teacher == pytest.approx(0.595e12, rel=0.01)
    assert cost.student == pytest.approx(0.168e12, rel=0.01)
    assert chunk_flops(config, student, tokens=150, frozen_encoder=False).total > cost.total + 2 * cost.encoder
