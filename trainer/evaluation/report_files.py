"""Writes the files of a report."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from k2d.errors import StoreError
from trainer.evaluation.eval_report import EvaluationReport
from trainer.evaluation.render import html, markdown

JSON: Final = "report.json"


def prepare(folder: Path, first: str = JSON) -> None:
    """Make the folder and check that it can be written, by creating the file `first`.

    Raises:
        StoreError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / first).touch()
    except OSError as error:
        raise _unwritable(folder, error) from error


def write(report: EvaluationReport, folder: Path) -> None:
    """Write report.html, report.md, utterances.jsonl with every text, and report.json last.

        write(evaluate(models, chosen, settings), Path("eval/first"))

    Raises:
        StoreError: the folder cannot be written.
    """
    prepare(folder)
    lines = ({name: value for name, value in asdict(line).items() if name != "diffs"} for line in report.lines)
    documents = {
        "utterances.jsonl": "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
        "report.md": markdown(report),
        "report.html": html(report),
        JSON: json.dumps(report.document(), ensure_ascii=False, indent=2, allow_nan=False) + "\n",
    }
    put(folder, {name: text.encode() for name, text in documents.items()})


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a report, in order.

    Raises:
        StoreError: the folder cannot be written.
    """
    for name, data in files.items():
        try:
            (folder / name).write_bytes(data)
        except OSError as error:
            raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"no report can be written to {folder}: {error.strerror}", hint="give another folder")
