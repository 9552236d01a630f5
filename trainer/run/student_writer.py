"""Saves the student of a run, collecting its weights first where they are spread over processes."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from k2d.errors import StoreError
from trainer.model import student as students
from trainer.model.setup import TeacherAndStudent
from trainer.options import Recipe
from trainer.run.checkpoints import replace_folder
from trainer.run.runs import Run


class StudentWriter:
    """Saves students of one run. Every process calls its methods; the first one writes."""

    def __init__(self, accelerator: Any, models: TeacherAndStudent, recipe: Recipe, run: Run) -> None:
        self._accelerator, self._models, self._recipe, self._run = accelerator, models, recipe, run
        self._whole: Any = models.student  # with sharding, a copy that is made when it is first needed
        self._sharded = recipe.sharding != "none"

    def whole(self, model: Any) -> Any:
        """The student with all of its weights; with sharding, only the first process has them.

        Args:
            model: the distiller as the accelerator wrapped it.
        """
        if self._sharded:
            self._collect(model)
        return self._whole

    def save(self, model: Any, name: str) -> Path:
        """Write the student as a model folder of the run; an earlier one stays until this one is whole.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        final = self._run.folder / name
        student = self.whole(model)
        if self._accelerator.is_main_process:
            staged = self._run.folder / f".{name}.tmp"
            try:
                students.save_student(student, staged, tokenizer_from=self._models.resolved.path)
                replace_folder(staged, final)
            except (OSError, RuntimeError, SafetensorError) as error:
                hint = "free some space, then go on with --resume"
                raise StoreError(f"{final} could not be written: {error}", hint=hint) from error
        self._accelerator.wait_for_everyone()
        return final

    def _collect(self, model: Any) -> None:
        """Copy the weights of all processes into the whole student of the first one."""
        state = self._accelerator.get_state_dict(model)
        if not self._accelerator.is_main_process:
            return
        if self._whole is self._models.student:  # whose parameters are shards
            config = self._models.student.config
            self._whole = students.cut_student(
                self._models.teacher, decoder_layers=config.decoder_layers, encoder_layers=config.encoder_layers
            )
            self._whole.generation_config = self._models.student.generation_config
            if self._recipe.freeze_encoder:
                self._whole.model.encoder = self._models.teacher.model.encoder
        for part in ("decoder", "encoder"):
            own = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
            if own:
                getattr(self._whole.model, part).load_state_dict(own)
