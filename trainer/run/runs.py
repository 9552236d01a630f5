"""A run's folder: its recipe, its provenance, its curves."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import k2d
from k2d.errors import BadRequest, Conflict, NotFound, StoreError
from k2d.store.manifest import Manifest
from trainer.options import Recipe

# files and folders of a run
RECIPE: Final = "recipe.json"
RUN: Final = "run.json"
METRICS: Final = "metrics.jsonl"
VALIDATION: Final = "validation.jsonl"
LAST: Final = "student"
BEST: Final = "best"
CHECKPOINTS: Final = "checkpoints"
# what run.json keeps of the dataset's manifest
DATASET: Final = {"name", "digest", "policy_hash", "policy_explanation", "teachers", "validators", "batches"}
LIBRARIES: Final = ("torch", "transformers", "accelerate", "numpy")

# recipe keys that may differ when a run is resumed: how it runs, what it keeps, how long it lasts
MAY_CHANGE: Final = {
    "steps", "workers", "worker_kind", "threads", "compile", "gradient_checkpointing", "vocabulary_chunk_mib",
    "keep_encoded_gib", "validate_every", "validate_on", "validation_rows", "checkpoint_every", "keep_checkpoints",
    "trackers", "micro_batch", "sharding",
}  # fmt: skip


class Run:
    """One run's folder.

    Run(Path("runs/first")).lines(METRICS)[-1]["loss"]
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    def start(self, recipe: Recipe, *, resume: bool) -> None:
        """Claim the folder for a new run, or check that this recipe may resume the one in it.

        Raises:
            Conflict: the folder holds a run, and `resume` is false.
            BadRequest: it was started with another recipe.
            StoreError: the folder cannot be written.
        """
        exists = (self.folder / RECIPE).is_file()
        if exists and not resume:
            raise Conflict(f"{self.folder} holds a run", hint="resume it (--resume), or take another folder")
        if exists:
            _check_same(self.recipe(), recipe)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(RECIPE, recipe.model_dump(mode="json"))
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error}", hint="take another folder") from error

    def recipe(self) -> Recipe:
        """What the run was started with.

        Raises:
            NotFound: there is no run.
            StoreError: its recipe is damaged.
        """
        try:
            return Recipe.model_validate_json((self.folder / RECIPE).read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"{self.folder} holds no run", hint="`k2d train DATASET --out DIR` makes one") from error
        except ValueError as error:
            raise StoreError(f"{self.folder / RECIPE} is damaged: {error}") from error

    def describe(self, **members: Any) -> None:
        """Add members to the run's description (run.json)."""
        self._write(RUN, {**self.description(), **members})

    def description(self) -> dict[str, Any]:
        """The run's description: provenance, sizes, results; empty before it started."""
        try:
            document: dict[str, Any] = json.loads((self.folder / RUN).read_text("utf-8"))
            return document
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StoreError(f"{self.folder / RUN} is damaged: {error}") from error

    def append(self, name: str, line: dict[str, Any]) -> None:
        """Add a line to a curve (METRICS or VALIDATION)."""
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A curve's lines; a last one that was cut off by a crash is left out."""
        try:
            text = (self.folder / name).read_text("utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def rewind(self, step: int) -> None:
        """Remove what was recorded after a checkpoint: those steps are made again."""
        for name in (METRICS, VALIDATION):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            staged = self.folder / f".{name}.tmp"
            staged.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), "utf-8")
            os.replace(staged, self.folder / name)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        staged = self.folder / f".{name}.tmp"
        staged.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", "utf-8")
        os.replace(staged, self.folder / name)


def provenance(manifest: Manifest) -> dict[str, Any]:
    """What a run is made from: the dataset, the software, the machine."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "k2d_version": k2d.__version__,
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if cuda else "cpu",
        },
        "dataset": {
            **manifest.model_dump(mode="json", include=DATASET),
            "rows": manifest.counts.rows,
            "seconds": manifest.seconds.accepted,
            "seconds_offered": manifest.seconds.input,
        },
    }


def _check_same(before: Recipe, now: Recipe) -> None:
    old, new = before.model_dump(exclude=MAY_CHANGE), now.model_dump(exclude=MAY_CHANGE)
    different = [f"{key} was {old[key]!r}, is {new[key]!r}" for key in old if old[key] != new[key]]
    if different:
        raise BadRequest(
            f"the run was started with another recipe: {'; '.join(different)}",
            hint="resume with the same recipe, or start a new run",
        )
