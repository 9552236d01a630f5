"""The student of a run whose weights are spread over processes is collected in the first one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the torch extra")

import torch

from k2d.whisper.vocabulary import Vocabulary
from trainer.model.setup import TeacherAndStudent
from trainer.model.student import cut_student, load_teacher
from trainer.options import Recipe
from trainer.run.runs import LAST, Run
from trainer.run.student_writer import StudentWriter


class OneOfTwo:
    """An accelerator whose processes hold shards: only `get_state_dict` gives whole weights, to the first process."""

    def __init__(self, weights: dict[str, torch.Tensor], *, first: bool) -> None:
        self.is_main_process = first
        self._weights = weights if first else {}

    def get_state_dict(self, model: Any) -> dict[str, torch.Tensor]:
        return self._weights

    def wait_for_everyone(self) -> None:
        pass


@pytest.fixture
def models(teacher: Path, vocabulary: Vocabulary) -> TeacherAndStudent:
    loaded = load_teacher(teacher)
    return TeacherAndStudent(SimpleNamespace(path=teacher), vocabulary, loaded, cut_student(loaded), None)


def trained(models: TeacherAndStudent) -> dict[str, torch.Tensor]:
    """A distiller's weights after training: those of the decoder, each a little larger."""
    return {f"decoder.{name}": value + 1.0 for name, value in models.student.model.decoder.state_dict().items()}


def test_the_first_process_saves_what_was_collected(models: TeacherAndStudent, tmp_path: Path) -> None:
    weights = trained(models)
    recipe = Recipe(sharding="fsdp")
    writer = StudentWriter(OneOfTwo(weights, first=True), models, recipe, Run(tmp_path))
    whole = writer.whole(None)
    assert whole is not models.student  # whose own parameters are shards
    assert writer.whole(None) is whole
    assert whole.model.encoder is models.teacher.model.encoder
    saved = load_teacher(writer.save(None, LAST)).model.decoder.layers[0].fc1.weight
    torch.testing.assert_close(saved, weights["decoder.layers.0.fc1.weight"])


def test_the_others_save_nothing(models: TeacherAndStudent, tmp_path: Path) -> None:
    writer = StudentWriter(OneOfTwo({}, first=False), models, Recipe(sharding="fsdp"), Run(tmp_path))
    writer.save(None, LAST)
    assert list(tmp_path.iterdir()) == []
