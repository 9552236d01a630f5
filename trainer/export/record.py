"""An export that was made, and its record as JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import k2d
from trainer.export.gate import ToolCheck
from trainer.export.source import ExportSource


@dataclass(frozen=True, slots=True)
class Export:
    """A student in one format."""

    folder: Path
    format: str
    precision: str
    bytes: int
    max_drift: float
    checks: tuple[ToolCheck, ...]
    source: ExportSource


def document(export: Export) -> dict[str, Any]:
    """The export as JSON values: what it was made from, how, and how it was checked."""
    return {
        "format": export.format,
        "precision": export.precision,
        "bytes": export.bytes,
        "source": {"reference": export.source.reference, "which": export.source.which, "digest": export.source.digest},
        "k2d": k2d.__version__,
        "max_drift": export.max_drift,
        "checks": [asdict(check) | {"passed": check.passes(export.max_drift)} for check in export.checks],
        "run": export.source.run,
        "recipe": export.source.recipe,
    }
