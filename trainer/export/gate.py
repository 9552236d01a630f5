"""The check of every export: the tool it is for must transcribe the golden clips as the student itself does.

The student in torch at float32 is the reference. In floating point the text must be the same, to the letter where the
tool computes as precisely; in 8 bits it may drift, as they round every weight.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final

from k2d.filtering.distance import counts
from k2d.inference.golden import clips
from k2d.schema import Counts
from k2d.text.loops import find_loops
from k2d.text.reading import read
from trainer.errors import ExportDrift
from trainer.export.decoders import ToolDecoder, open_student

# Largest mixed error rate over all clips together. Whisper base in CTranslate2's int8 differs in 1 of their 54 tokens
INT8_DRIFT: Final = 0.1

OpenTools = Callable[[Path, str, Path], Iterator[ToolDecoder]]  # export, precision, cache → tools, one loaded at a time


@dataclass(frozen=True, slots=True)
class ClipCheck:
    """One clip's text by the student and by the export."""

    clip: str
    same: bool  # to the letter
    drift: float  # mixed error rate of the export's text with the student's as reference
    student: str
    export: str


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """One tool's result on all clips."""

    tool: str
    timestamps: bool
    drift: float  # mixed error rate of its texts with the student's as reference, pooled
    same: int  # clips with the same text, to the letter
    clips: int
    rows: tuple[ClipCheck, ...]
    exact: bool = True

    def passes(self, max_drift: float) -> bool:
        """Whether the drift is allowed.

        Where none is, an exact tool must agree to the letter; another one in every mixed token, which leaves out spaces
        and punctuation.
        """
        return self.drift <= max_drift and (max_drift > 0.0 or not self.exact or self.same == self.clips)


def allowed_drift(precision: str, asked: float | None) -> float:
    """The largest drift: as asked, else none for floating point."""
    if asked is not None:
        return asked
    return INT8_DRIFT if precision.startswith("int8") else 0.0


def check_export(student: Path, export: Path, *, tools: OpenTools, precision: str, cache: Path) -> list[ToolCheck]:
    """Transcribe the clips with the student and with each tool, and compare.

        checks = check_export(Path("runs/a/best"), Path("out"), tools=for_onnx, precision="float32", cache=cache)
        require_pass(checks, max_drift=0.0)

    Args:
        student: the transformers folder that was exported.
        tools: yields the tools with the export in them, one in memory at a time.

    Raises:
        ModelError: a tool cannot load the export, or fails.
    """
    expected = {decoder.mode: _texts(decoder) for decoder in open_student(student, cache)}
    return [compare_texts(tool, expected[tool.mode], _texts(tool)) for tool in tools(export, precision, cache)]


def _texts(decoder: ToolDecoder) -> list[str]:
    return [decoder.transcribe(clip.samples, decoder.mode.language(clip.language)).strip() for clip in clips()]


def compare_texts(tool: ToolDecoder, student: list[str], export: list[str]) -> ToolCheck:
    """Compare a tool's texts with the student's, clip by clip. Pure."""
    edits = [counts(read(ours).tokens, read(theirs).tokens) for ours, theirs in zip(student, export, strict=True)]
    rows = tuple(
        ClipCheck(clip.name, ours == theirs, drift.rate, ours, theirs)
        for clip, ours, theirs, drift in zip(clips(), student, export, edits, strict=True)
    )
    return ToolCheck(
        tool=tool.tool,
        timestamps=tool.mode.timestamps,
        drift=reduce(add, edits, Counts()).rate,
        same=sum(row.same for row in rows),
        clips=len(rows),
        rows=rows,
        exact=tool.exact,
    )


def looping_clips(checks: Sequence[ToolCheck]) -> list[str]:
    """The golden clips on which the student itself repeats the same words again and again."""
    rows = (row for check in checks for row in check.rows)
    return list(dict.fromkeys(row.clip for row in rows if find_loops(read(row.student).tokens)))


def require_pass(checks: list[ToolCheck], max_drift: float) -> None:
    """Refuse an export whose texts differ from its student's.

    Raises:
        ExportDrift: names the tool and shows both texts of the worst clip.
    """
    failed = [check for check in checks if not check.passes(max_drift)]
    if not failed:
        return
    worst = max(failed, key=lambda check: check.drift)
    row = max((row for row in worst.rows if not row.same), key=lambda row: row.drift)
    raise ExportDrift(
        f"{worst.tool} transcribes {worst.clips - worst.same} of {worst.clips} clips differently: {worst.drift:.2%} "
        f"MER, at most {max_drift:.2%} is allowed; {row.clip}: {_short(row.student)!r} became {_short(row.export)!r}",
        hint="a student that has hardly learned writes loops which any rounding changes: train on, or export with "
        "another precision, or allow it with --max-drift",
        tool=worst.tool,
        drift=worst.drift,
    )


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
