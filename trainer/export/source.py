"""What is exported: the best or the last student of a run, or any model."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from k2d.errors import BadRequest, NotFound
from k2d.whisper.resolve import resolve
from trainer.run.runs import BEST, LAST, RECIPE, RUN

Which = Literal["best", "last"]

FOLDERS: Final[dict[Which, str]] = {"best": BEST, "last": LAST}
PROVENANCE: Final = "k2d_provenance.json"  # copied with an export, so that an export of an export has its provenance


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A model to export, as a transformers folder."""

    reference: str  # as it was asked for
    folder: Path
    digest: str  # sha256 over weights, tokenizer and configuration, hex
    which: str | None = None  # "best" or "last" of a run; None: not a run
    run: dict[str, Any] = field(default_factory=dict)  # run.json; empty where nothing is known
    recipe: dict[str, Any] = field(default_factory=dict)  # recipe.json


def find_source(reference: str, *, which: Which | None, cache: Path, allow_downloads: bool) -> ExportSource:
    """Find the model that `reference`, a run folder or a model reference, names.

        find_source("runs/first", which="best", cache=settings.cache, allow_downloads=False).folder

    Args:
        which: the student of a run; None: the best where there is one, else the last.

    Raises:
        NotFound: no such folder, or a run without a student.
        BadRequest: `which` of something that is not a run.
        ModelError: the model cannot be found, fetched, verified or converted.
    """
    folder = Path(reference).expanduser()
    if _is_run(folder):
        chosen = which or ("best" if (folder / FOLDERS["best"]).is_dir() else "last")
        return _student_of(reference, folder, chosen, cache=cache)
    if which is not None:
        raise BadRequest(f"{reference} is not a run folder, so it has no {which} student", hint="leave --which out")
    if not folder.exists() and reference.startswith((".", "/", "~")):
        raise NotFound(f"{reference} does not exist", hint="give a run folder of `k2d train`, or a model")
    resolved = resolve(reference, engine="transformers", cache=cache, allow_downloads=allow_downloads)
    provenance = _read(resolved.path / PROVENANCE)
    run, recipe = provenance.get("run", {}), provenance.get("recipe", {})
    return ExportSource(reference, resolved.path, resolved.digest, run=run, recipe=recipe)


def _student_of(reference: str, run: Path, which: Which, *, cache: Path) -> ExportSource:
    folder = run / FOLDERS[which]
    if not folder.is_dir():
        raise NotFound(
            f"{reference} has no {which} student",
            hint="it is written at the first validation (best) and at the end (last): wait, or `k2d train --resume`",
        )
    resolved = resolve(str(folder), engine="transformers", cache=cache, allow_downloads=False)
    return ExportSource(reference, resolved.path, resolved.digest, which, _read(run / RUN), _read(run / RECIPE))


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in (RUN, RECIPE, *FOLDERS.values()))


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file does not exist: the model card leaves out what is not known."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} cannot be read: {error}", hint="it is JSON, written by `k2d train`") from error
    return value if isinstance(value, dict) else {}
