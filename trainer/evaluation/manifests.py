"""JSON lines: this project's manifests, NeMo's, and others with the same keys for audio and text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from k2d.errors import BadRequest
from k2d.foreign import parse_json
from k2d.textfiles import read_lines
from trainer.evaluation.utterances import Utterance, UtteranceReference, make_reference, opener

MANIFEST: Final = "manifest.jsonl"
AUDIO: Final = ("audio", "audio_filepath")  # relative to the manifest; NeMo's name for it is the second
LANGUAGE: Final = ("language", "lang")
RECORDING: Final = ("recording_id", "base_id")  # a degraded clip and the clean one it was made from are one recording
HINT: Final = 'one JSON object a line: {"audio": "a.flac", "text": "…"}; docs/evaluation.md lists the other keys'


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A manifest; keys: audio or audio_filepath, text, text_spoken, language or lang, offset with duration, id,
    timeline."""

    path: Path
    kind: str = "JSON lines"
    pseudo_labels: bool = False

    @property
    def name(self) -> str:
        folder = self.path.resolve().parent
        return f"{folder.parent.name}/{folder.name}" if self.path.name == MANIFEST else self.path.stem

    def references(self) -> Iterator[UtteranceReference]:
        return (utterance.reference for utterance in self.utterances())

    def utterances(self) -> Iterator[Utterance]:
        number = 0
        try:
            for number, line in enumerate(read_lines(self.path), 1):
                if line.strip():
                    yield self._utterance(parse_json(line), number)
        except ValueError as error:  # not JSON, or not UTF-8
            raise BadRequest(f"{self.path}, line {number}: {error}", hint=HINT) from error

    def _utterance(self, row: Any, number: int) -> Utterance:
        audio = _first(row, AUDIO) if isinstance(row, dict) else None
        if not isinstance(audio, str) or not audio:
            raise BadRequest(f"{self.path}, line {number} names no audio", hint=HINT)
        start_s, length_s = _number(row, "offset"), _number(row, "duration")
        part = row.get("offset") is not None  # without an offset, a duration only tells how long the file is
        name = str(row.get("id") or (f"{audio}@{start_s:.3f}" if part else audio))
        return Utterance(
            make_reference(
                name=name,
                text=row.get("text"),
                spoken=row.get("text_spoken"),
                language=_first(row, LANGUAGE),
                recording=_first(row, RECORDING) or audio,
            ),
            opener(
                lambda: self.path.parent / audio, start_s=start_s or 0.0, length_s=length_s if part else None
            ),  # an absolute path stays as it is
            path=None if part else self.path.parent / audio,
            timeline=None if part or not row.get("timeline") else self.path.parent / str(row["timeline"]),
        )


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name)), None)


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise BadRequest(f"{name} must be seconds, not {value!r}", hint=HINT)
    return float(value)
