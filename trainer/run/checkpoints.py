"""Checkpoints: written beside and renamed, so that the newest folder is always whole; old ones are removed after."""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from k2d.errors import NotFound, StoreError

POSITION: Final = "position.json"
NAME: Final = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True)
class RunPosition:
    """How far a run is. The order of the data follows from the step, so this and the weights are all it needs."""

    step: int  # optimiser steps done
    recipe: str  # its key
    best_mer: float | None = None
    best_step: int | None = None


class Checkpoints:
    """The folder of one run's checkpoints.

    folder, position = Checkpoints(Path("runs/first/checkpoints"), keep=2).latest()
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        folders = self._folder.glob("step-*") if self._folder.is_dir() else ()
        return sorted(path for path in folders if NAME.fullmatch(path.name) and (path / POSITION).is_file())

    def latest(self) -> tuple[Path, RunPosition]:
        """The newest checkpoint.

        Raises:
            NotFound: there is none.
            StoreError: its position cannot be read.
        """
        folders = self.all()
        if not folders:
            raise NotFound(f"no checkpoint in {self._folder}", hint="start the run without --resume")
        file = folders[-1] / POSITION
        try:
            return folders[-1], RunPosition(**json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            hint = "remove that folder to resume from the checkpoint before it"
            raise StoreError(f"{file} cannot be read: {error}", hint=hint) from error

    def save(self, accelerator: Any, position: RunPosition) -> Path:
        """Write weights, optimiser and random states; every process takes part. Returns the folder.

        Raises:
            StoreError: the disk is full or cannot be written; earlier checkpoints stay.
        """
        final = self._folder / f"step-{position.step:08d}"
        staged = self._folder / f".{final.name}.tmp"
        failure = ""
        try:
            if accelerator.is_main_process:
                shutil.rmtree(staged, ignore_errors=True)
                staged.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(staged), safe_serialization=True)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                (staged / POSITION).write_text(json.dumps(asdict(position)), "utf-8")
                _flush(staged)
                shutil.rmtree(final, ignore_errors=True)  # where a run was resumed from an older checkpoint
                staged.rename(final)
                for old in self.all()[: -self._keep]:
                    shutil.rmtree(old, ignore_errors=True)
        except (OSError, RuntimeError, SafetensorError) as error:  # for a full disk torch raises RuntimeError
            failure = str(error)
        if failure:
            if accelerator.is_main_process:
                shutil.rmtree(staged, ignore_errors=True)
            kept = ", ".join(path.name for path in self.all()) or "none"
            raise StoreError(
                f"the checkpoint of step {position.step} could not be written: {failure}",
                hint=f"free some space, then go on with --resume; whole checkpoints: {kept}",
            )
        accelerator.wait_for_everyone()
        return final


def need_space(folder: Path, wanted: int) -> None:
    """Refuse to start where what the run will write does not fit; `wanted` in bytes.

    Raises:
        StoreError
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise StoreError(
            f"{folder} has {free / 1e9:.1f} GB free; checkpoints and students need {wanted / 1e9:.1f} GB",
            hint="free some space, take another folder, or keep fewer checkpoints (keep_checkpoints)",
        )


def replace_folder(staged: Path, final: Path) -> None:
    """Put a finished folder in the place of another; a crash in between leaves one of them whole."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    staged.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Write every byte to the disk before the folder gets its final name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
