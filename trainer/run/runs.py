"""A run's folder: its recipe, its provenance, its curves. Everything else about a run is found from here."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import k2d
from k2d.errors import BadRequest, Conflict, NotFound, StoreError
from k2d.store.manifest import Manifest
from trainer.options import Recipe

RECIPE, RUN, METRICS, VALIDATION = "recipe.json", "run.json", "metrics.jsonl", "validation.jsonl"
LAST, BEST, CHECKPOINTS = "student", "best", "checkpoints"
DATASET = {"name", "digest", "policy_hash", "policy_explanation", "teachers", "validators", "batches"}
LIBRARIES = ("torch", "transformers", "accelerate", "numpy")

# what may differ when a run goes on: how it runs and what it keeps, and how long it lasts
FREE = {
    "steps", "workers", "threads", "compile", "gradient_checkpointing", "vocabulary_chunk_mib", "keep_encoded_gib",
    "validate_every", "validate_on", "validation_rows", "checkpoint_every", "keep_checkpoints", "trackers",
    "micro_batch", "sharding",
}  # fmt: skip


class Run:
    """One run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    def start(self, recipe: Recipe, *, resume: bool) -> None:
        """Claim the folder for a new run, or check that this recipe may go on with the one that is there.

        Raises:
            Conflict: there is a run, and nobody said to go on with it.
            BadRequest: it was started with another recipe.
            StoreError: the folder cannot be written.
        """
        there = (self.folder / RECIPE).is_file()
        if there and not resume:
            raise Conflict(f"{self.folder} holds a run", hint="go on with it (--resume), or take another folder")
        if there:
            _same(self.recipe(), recipe)
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
        """Add to what is known of the run (run.json)."""
        known = self.description()
        self._write(RUN, {**known, **members})

    def description(self) -> dict[str, Any]:
        """What is known of the run: provenance, sizes, results; empty before it started."""
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
        """A curve; a last line that was cut off by a crash is left out."""
        try:
            text = (self.folder / name).read_text("utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def rewind(self, step: int) -> None:
        """Forget what was recorded after a checkpoint: the run does those steps again."""
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
    """What a run is made from and with: the dataset, the software, the machine."""
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


def _same(before: Recipe, now: Recipe) -> None:
    old, new = before.model_dump(exclude=FREE), now.model_dump(exclude=FREE)
    different = [f"{key} was {old[key]!r}, is {new[key]!r}" for key in old if old[key] != new[key]]
    if different:
        raise BadRequest(
            f"the run was started with another recipe: {'; '.join(different)}",
            hint="resume with the same recipe, or start a new run",
        )
