"""The gate of every export: the golden clips, heard by the tool the export is for, must read as the student's own text.

The student in torch at float32 is the reference. Floating point must give the same text, to the letter where the tool
computes as precisely; 8 bits may drift, as they round every weight.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from k2d.inference.golden import clips
from k2d.inference.parity import ParityRow, Transcripts, compare, golden_recordings
from k2d.schema import ModelInfo, Segment
from trainer.errors import ExportDrift
from trainer.export.decoders import Validator, reference

# Largest mixed error rate over all clips together. Whisper base in CTranslate2's int8 differs in 1 of their 54 tokens
INT8_DRIFT = 0.1

Opens = Callable[[Path, str, Path], Iterator[Validator]]


@dataclass(frozen=True, slots=True)
class Check:
    """One tool's result on all clips."""

    tool: str
    timestamps: bool
    drift: float  # mixed error rate of its text with the student's as reference
    same: int  # clips with the same text, to the letter
    clips: int
    rows: tuple[ParityRow, ...]
    exact: bool = True

    def passes(self, max_drift: float) -> bool:
        """Without any drift allowed, an exact tool must agree to the letter; another one in every mixed token, which
        leaves out spaces and punctuation."""
        return self.drift <= max_drift and (max_drift > 0.0 or not self.exact or self.same == self.clips)


def allowed(precision: str, asked: float | None) -> float:
    """The largest drift: as asked, else none for floating point."""
    if asked is not None:
        return asked
    return INT8_DRIFT if precision.startswith("int8") else 0.0


def listen(student: Path, export: Path, *, opens: Opens, precision: str, cache: Path) -> list[Check]:
    """Let the student and each tool with the export hear the clips.

    Args:
        student: the transformers folder that was exported.
        opens: yields the tools, one in memory at a time.

    Raises:
        ModelError: a tool cannot load the export, or fails.
    """
    truth = {validator.way: _texts(validator) for validator in reference(student, cache)}
    return [check(validator, truth[validator.way], _texts(validator)) for validator in opens(export, precision, cache)]


def _texts(validator: Validator) -> list[str]:
    return [validator.hear(clip.samples, validator.way.language(clip.language)).strip() for clip in clips()]


def check(validator: Validator, expected: list[str], heard: list[str]) -> Check:
    """One tool's texts beside the student's, clip by clip. Pure."""
    report = compare(golden_recordings(), _heard("student", expected), _heard(validator.tool, heard))
    same = sum(row.same_text for row in report.rows)
    return Check(
        validator.tool, validator.way.timestamps, report.drift, same, len(report.rows), report.rows, validator.exact
    )


def judge(checks: list[Check], max_drift: float) -> None:
    """Refuse an export that says something else than its student.

    Raises:
        ExportDrift: names the tool and shows both texts of the worst clip.
    """
    failed = [check for check in checks if not check.passes(max_drift)]
    if not failed:
        return
    worst = max(failed, key=lambda check: check.drift)
    row = max((row for row in worst.rows if not row.same_text), key=lambda row: row.drift)
    raise ExportDrift(
        f"{worst.tool} hears {worst.clips - worst.same} of {worst.clips} clips differently: {worst.drift:.2%} MER, "
        f"at most {max_drift:.2%} is allowed; {row.name}: {_short(row.text_a)!r} became {_short(row.text_b)!r}",
        hint="a student that has hardly learned writes loops which any rounding changes: train on, or export with "
        "another precision, or allow it with --max-drift",
        tool=worst.tool,
        drift=worst.drift,
    )


def _heard(name: str, texts: list[str]) -> Transcripts:
    def segment(text: str) -> Segment:
        return Segment(0.0, 0.0, text, (), 0.0, 0.0, 0.0, 0.0, "")

    return Transcripts(ModelInfo(name, "", "", "", "cpu"), tuple((segment(text),) for text in texts))


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
