"""Export a student: written beside, checked by ear, then put in place. Nothing half done is ever left."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from k2d.errors import BadRequest, Conflict
from k2d.store.guard import guard
from trainer.export import card, gate
from trainer.export.formats import FORMATS
from trainer.export.made import Export, document
from trainer.export.source import MADE_BY, Which, find


def convert(
    reference: str,
    out: str | Path,
    *,
    format: str,
    precision: str | None = None,
    which: Which | None = None,
    max_drift: float | None = None,
    keep: bool = False,
    evaluation: Path | None = None,
    licence: str = "other",
    cache: Path,
    allow_downloads: bool = False,
) -> Export:
    """Export the model or run `reference` to the folder `out`, which must be empty or not there.

    Args:
        format: a key of `FORMATS`.
        precision: one of the format's; None: its first.
        which: the student of a run; None: the best where there is one, else the last.
        max_drift: largest mixed error rate against the student; None: none for floating point, some for 8 bits.
        keep: leave an export that fails its check, to look at it.
        evaluation: report.json of `k2d eval`, for the model card.
        licence: for the model card, as model hubs name it.

    Raises:
        BadRequest: an unknown format or precision, or a file that cannot be read.
        Conflict: `out` holds something.
        NotFound: no such run or student.
        ModelError: the model cannot be loaded or converted, or a package is missing.
        ExportDrift: the export says something else than the student.
        StoreError: the folder cannot be written; a full disk.
    """
    form = FORMATS.get(format)
    if form is None:
        raise BadRequest(f"unknown format: {format[:40]!r}", hint=f"formats are: {', '.join(FORMATS)}")
    chosen = form.check(precision)
    final = _place(Path(out).expanduser().absolute())
    results = card.read_evaluation(evaluation)
    source = find(reference, which=which, cache=cache, allow_downloads=allow_downloads)
    limit = gate.allowed(chosen, max_drift)
    write, opens = form.parts()
    with guard(str(final), writing=True):
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = final.parent / f".{final.name}.{uuid.uuid4().hex}.tmp"
        staged.mkdir()
        try:
            write(source.folder, staged, chosen)
            checks = tuple(gate.listen(source.folder, staged, opens=opens, precision=chosen, cache=cache))
            passed = all(check.passes(limit) for check in checks)
            if passed or keep:
                size = sum(path.stat().st_size for path in staged.rglob("*"))
                made = Export(final, format, chosen, size, limit, checks, source)
                _dump(staged / MADE_BY, document(made))
                (staged / "README.md").write_text(card.card(made, results, licence=licence), "utf-8")
                staged.rename(final)  # takes the place of an empty folder
            gate.judge(list(checks), limit)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return made


def _place(final: Path) -> Path:
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise Conflict(f"{final} is not empty", hint="export to a new folder; nothing is ever overwritten")
    return final


def _dump(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
