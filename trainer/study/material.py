"""What is studied: recordings that can be labeled, with their references."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from k2d.audio import encode_flac, probe_duration_s
from k2d.errors import AudioError, BadRequest
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S, Samples
from k2d.settings import Settings
from k2d.textfiles import read_text
from trainer.evaluation.manifests import HINT
from trainer.evaluation.sets import open_set
from trainer.evaluation.utterances import EvaluationSet, Utterance, UtteranceReference

_BLOCK: Final = 600 * SAMPLE_RATE_HZ  # read at once: ten minutes, 19 MB


@dataclass(frozen=True, slots=True)
class Sentence:
    """A span of a recording in which something known is said."""

    start_s: float
    end_s: float
    references: tuple[str, ...]  # as written, and as spoken


@dataclass(frozen=True, slots=True)
class StudyRecording:
    """One recording to label."""

    set: str
    reference: UtteranceReference
    path: Path
    duration_s: float | None  # as its header says
    timeline: tuple[Sentence, ...] | None  # None: its reference is one text, and no longer than one chunk

    @property
    def name(self) -> str:
        return f"{self.set}: {self.reference.name}"


def gather(
    references: Sequence[str], settings: Settings, *, split: str, limit: int | None, folder: Path
) -> tuple[list[StudyRecording], dict[str, str]]:
    """All recordings of some sets, and those that cannot be studied with the reason.

    Utterances that are not a local file of their own (parts of files, rows of Parquet files) are written to `folder` as
    FLAC. That is lossless, so their labels are found again by content.

        material, skipped = gather(["clips.jsonl"], load(), split="test", limit=None, folder=Path("tmp"))

    Raises:
        BadRequest, NotFound: as `trainer.evaluation.sets.open_set`; two sets or utterances of one name.
    """
    material: dict[str, StudyRecording] = {}
    skipped: dict[str, str] = {}
    for reference in references:
        chosen = open_set(reference, settings, split=split)
        for number, utterance in enumerate(islice(chosen.utterances(), limit)):
            name = f"{chosen.name}: {utterance.reference.name}"
            if name in material or name in skipped:
                raise BadRequest(f"two utterances are called {name!r}", hint="give each set once, each row an `id`")
            try:
                material[name] = _recording(chosen, utterance, folder / f"{len(material)}-{number}.flac")
            except AudioError as error:
                skipped[name] = error.message
    return list(material.values()), skipped


def _recording(chosen: EvaluationSet, utterance: Utterance, copy: Path) -> StudyRecording:
    """Raises AudioError: it cannot be studied."""
    reference = utterance.reference
    if not reference.texts:
        raise _unusable("no reference")
    if utterance.path is not None and not utterance.path.is_file():
        raise _unusable("no such file")
    path = utterance.path or _write_copy(utterance, copy)
    duration_s = probe_duration_s(path)
    timeline: tuple[Sentence, ...] | None = None
    if duration_s is None or duration_s > WINDOW_S:
        if utterance.timeline is not None:
            timeline = tuple(_sentences(utterance.timeline))
        elif any(reference.texts):
            raise _unusable("longer than 30 s, without a timeline of its sentences")
        else:
            timeline = ()  # nothing is said at any time
    return StudyRecording(chosen.name, reference, path, duration_s, timeline)


def _unusable(reason: str) -> AudioError:
    return AudioError(reason, reason="unusable")


def _write_copy(utterance: Utterance, copy: Path) -> Path:
    blocks: list[Samples] = []
    start = 0
    with utterance.open() as excerpt:
        while len(block := excerpt.read(start, start + _BLOCK)):
            blocks.append(block)
            start += len(block)
    if not blocks:
        raise _unusable("no samples where the set says the utterance is")
    copy.write_bytes(encode_flac(np.concatenate(blocks)))
    return copy


def _sentences(path: Path) -> Iterator[Sentence]:
    """Read a timeline: {"segments": [{"start", "end", "text", …}]}; segments without text are not speech.

    Raises:
        BadRequest: the file is something else.
    """
    try:
        for row in json.loads(read_text(path))["segments"]:
            texts = [row["text"], row.get("text_spoken", row["text"])]
            if row["text"].strip():
                yield Sentence(float(row["start"]), float(row["end"]), tuple(dict.fromkeys(texts)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRequest(f"{path.name} is not a timeline: {error!r}", hint=HINT) from error
