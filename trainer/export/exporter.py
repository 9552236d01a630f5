"""Exports a student: written to a temporary folder, checked by transcribing, then renamed. Nothing partial is left."""

import json
import shutil
import uuid
from pathlib import Path

from k2d.errors import BadRequest, Conflict
from k2d.store.guard import guard
from trainer.export import card, gate
from trainer.export.formats import FORMATS
from trainer.export.record import Export, document
from trainer.export.source import PROVENANCE, Which, find_source


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
    """Export the model or run `reference` to the folder `out`, which must be empty or not exist.

        convert("runs/first", "students/first", format="ctranslate2", cache=load().cache)

    Args:
        format: a key of `FORMATS`.
        precision: one of the format's; None: its first.
        which: the student of a run; None: the best where there is one, else the last.
        max_drift: largest mixed error rate against the student; None: 0 for floating point, `gate.INT8_DRIFT` for int8.
        keep: leave an export that fails its check, to look at it.
        evaluation: report.json of `k2d eval`, for the model card.
        licence: for the model card, as model hubs name it.

    Raises:
        BadRequest: an unknown format or precision, or a file that cannot be read.
        Conflict: `out` is not empty.
        NotFound: no such run or student.
        ModelError: the model cannot be loaded or converted, or a package is missing.
        ExportDrift: the export's transcripts differ from the student's.
        StoreError: the folder cannot be written; a full disk.
    """
    export_format = FORMATS.get(format)
    if export_format is None:
        raise BadRequest(f"unknown format: {format[:40]!r}", hint=f"formats are: {', '.join(FORMATS)}")
    chosen = export_format.check(precision)
    final = _empty(Path(out).expanduser().absolute())
    results = card.read_evaluation(evaluation)
    source = find_source(reference, which=which, cache=cache, allow_downloads=allow_downloads)
    limit = gate.allowed_drift(chosen, max_drift)
    write, tools = export_format.parts()
    with guard(str(final), writing=True):
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = final.parent / f".{final.name}.{uuid.uuid4().hex}.tmp"
        staged.mkdir()
        try:
            write(source.folder, staged, chosen)
            checks = tuple(gate.check_export(source.folder, staged, tools=tools, precision=chosen, cache=cache))
            passed = all(check.passes(limit) for check in checks)
            if passed or keep:
                size = sum(path.stat().st_size for path in staged.rglob("*"))
                export = Export(final, format, chosen, size, limit, checks, source)
                provenance = json.dumps(document(export), ensure_ascii=False, indent=1) + "\n"
                (staged / PROVENANCE).write_text(provenance, "utf-8")
                (staged / "README.md").write_text(card.card(export, results, licence=licence), "utf-8")
                staged.rename(final)  # replaces an empty folder
            gate.require_pass(list(checks), limit)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return export


def _empty(final: Path) -> Path:
    """The folder to make.

    Raises:
        Conflict: it exists and is not empty.
    """
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise Conflict(f"{final} is not empty", hint="export to a new folder; nothing is ever overwritten")
    return final
