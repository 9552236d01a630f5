"""An export as it was made, and its record."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import k2d
from trainer.export import gate
from trainer.export.source import Source


@dataclass(frozen=True, slots=True)
class Export:
    """What was made."""

    folder: Path
    format: str
    precision: str
    bytes: int
    max_drift: float
    checks: tuple[gate.Check, ...]
    source: Source


def document(made: Export) -> dict[str, Any]:
    """The export as JSON: what it was made from, how, and what the gate heard."""
    checks = [
        {**asdict(check), "rows": [_row(row) for row in check.rows], "passed": check.passes(made.max_drift)}
        for check in made.checks
    ]
    return {
        "format": made.format,
        "precision": made.precision,
        "bytes": made.bytes,
        "source": {"reference": made.source.reference, "which": made.source.which, "digest": made.source.digest},
        "k2d": k2d.__version__,
        "max_drift": made.max_drift,
        "checks": checks,
        "run": made.source.run,
        "recipe": made.source.recipe,
    }


def _row(row: Any) -> dict[str, Any]:
    return {
        "clip": row.name,
        "same": row.same_text,
        "drift": row.drift,
        "student": row.text_a,
        "export": row.text_b,
    }
