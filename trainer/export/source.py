"""What is exported: the best or the last student of a run, or any model."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from k2d.errors import BadRequest, NotFound
from k2d.whisper.resolve import resolve
from trainer.run.runs import BEST, LAST, RECIPE, RUN

Which = Literal["best", "last"]

FOLDERS: dict[Which, str] = {"best": BEST, "last": LAST}
MADE_BY = "k2d_provenance.json"  # travels with an export, so that an export of an export still knows its past


@dataclass(frozen=True, slots=True)
class Source:
    """A model to export, as a transformers folder."""

    reference: str  # as the operator wrote it
    folder: Path
    digest: str  # sha256 over weights, tokenizer and configuration, hex
    which: str | None = None  # "best" or "last" of a run; None: no run
    run: dict[str, Any] = field(default_factory=dict)  # run.json; empty where nothing is known
    recipe: dict[str, Any] = field(default_factory=dict)  # recipe.json


def find(reference: str, *, which: Which | None, cache: Path, allow_downloads: bool) -> Source:
    """The model that `reference`, a run folder or a model reference, names.

    Args:
        which: the student of a run; None: the best where there is one, else the last.

    Raises:
        NotFound: no such folder, or a run without a student.
        BadRequest: `which` of something that is no run.
        ModelError: the model cannot be found, fetched, verified or converted.
    """
    folder = Path(reference).expanduser()
    if _is_run(folder):
        chosen = which or ("best" if (folder / FOLDERS["best"]).is_dir() else "last")
        return _student(reference, folder, chosen, cache=cache)
    if which is not None:
        raise BadRequest(f"{reference} is no run folder, so it has no {which} student", hint="leave --which out")
    if not folder.exists() and reference.startswith((".", "/", "~")):
        raise NotFound(f"{reference} is not there", hint="give a run folder of `k2d train`, or a model")
    found = resolve(reference, engine="transformers", cache=cache, allow_downloads=allow_downloads)
    past = _document(found.path / MADE_BY)
    return Source(reference, found.path, found.digest, run=past.get("run", {}), recipe=past.get("recipe", {}))


def _student(reference: str, run: Path, which: Which, *, cache: Path) -> Source:
    folder = run / FOLDERS[which]
    if not folder.is_dir():
        raise NotFound(
            f"{reference} has no {which} student",
            hint="it is written at the first validation (best) and at the end (last): wait, or `k2d train --resume`",
        )
    found = resolve(str(folder), engine="transformers", cache=cache, allow_downloads=False)
    return Source(reference, found.path, found.digest, which, _document(run / RUN), _document(run / RECIPE))


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in (RUN, RECIPE, *FOLDERS.values()))


def _document(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none: what is not known is left out of the card."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path} cannot be read: {error}", hint="it is JSON, written by `k2d train`") from error
    return found if isinstance(found, dict) else {}
