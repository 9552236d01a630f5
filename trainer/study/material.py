"""What is studied: recordings that can be labeled, with what is said in them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from k2d.audio import encode_flac, probe_duration_s
from k2d.errors import AudioError, BadRequest
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_S, Samples
from k2d.settings import Settings
from trainer.evaluation.manifests import HINT
from trainer.evaluation.sets import open_set
from trainer.evaluation.utterances import EvaluationSet, Said, Utterance

_BLOCK = 600 * SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of a recording in which something known is said."""

    start_s: float
    end_s: float
    references: tuple[str, ...]  # as written, and as spoken


@dataclass(frozen=True, slots=True)
class Material:
    """One recording to label."""

    set: str
    said: Said
    path: Path
    duration_s: float | None  # as its header says
    timeline: tuple[Sentence, ...] | None  # None: its reference is one text, and no longer than one chunk

    @property
    def name(self) -> str:
        return f"{self.set}: {self.said.name}"


def gather(
    references: Sequence[str], settings: Settings, *, split: str, limit: int | None, folder: Path
) -> tuple[list[Material], dict[str, str]]:
    """Find all recordings, and those that cannot be studied with the reason.

    Utterances that are no local file of their own (parts of files, rows of Parquet files) are written to `folder` as
    FLAC: lossless, so their labels are found again by content.

    Raises:
        BadRequest, NotFound: as `trainer.evaluation.sets.open_set`; two sets or utterances of one name.
    """
    found: dict[str, Material] = {}
    aside: dict[str, str] = {}
    for reference in references:
        opened = open_set(reference, settings, split=split)
        for number, utterance in enumerate(islice(opened.utterances(), limit)):
            name = f"{opened.name}: {utterance.said.name}"
            if name in found or name in aside:
                raise BadRequest(f"two utterances are called {name!r}", hint="give each set once, each row an `id`")
            try:
                found[name] = _material(opened, utterance, folder / f"{len(found)}-{number}.flac")
            except AudioError as error:
                aside[name] = error.message
    return list(found.values()), aside


def _material(opened: EvaluationSet, utterance: Utterance, copy: Path) -> Material:
    """Raises AudioError: it cannot be studied."""
    said = utterance.said
    if not said.references:
        raise _unusable("no reference")
    if utterance.path is not None and not utterance.path.is_file():
        raise _unusable("no such file")
    path = utterance.path or _copied(utterance, copy)
    duration_s = probe_duration_s(path)
    timeline: tuple[Sentence, ...] | None = None
    if duration_s is None or duration_s > WINDOW_S:
        if utterance.timeline is not None:
            timeline = tuple(_sentences(utterance.timeline))
        elif any(said.references):
            raise _unusable("longer than 30 s, and nothing tells what is said when")
        else:
            timeline = ()  # nothing is said at any time
    return Material(opened.name, said, path, duration_s, timeline)


def _unusable(why: str) -> AudioError:
    return AudioError(why, reason="unusable")


def _copied(utterance: Utterance, copy: Path) -> Path:
    blocks: list[Samples] = []
    start = 0
    with utterance.open() as reader:
        while len(block := reader.read(start, start + _BLOCK)):
            blocks.append(block)
            start += len(block)
    if not blocks:
        raise _unusable("no samples where the set says the utterance is")
    copy.write_bytes(encode_flac(np.concatenate(blocks)))
    return copy


def _sentences(path: Path) -> Iterator[Sentence]:
    """Read a timeline: {"segments": [{"start", "end", "text", …}]}; segments without text are no speech.

    Raises:
        BadRequest: it is none.
    """
    try:
        for row in json.loads(path.read_text("utf-8"))["segments"]:
            texts = [row["text"], row.get("text_spoken", row["text"])]
            if row["text"].strip():
                yield Sentence(float(row["start"]), float(row["end"]), tuple(dict.fromkeys(texts)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRequest(f"{path.name} is no timeline: {error!r}", hint=HINT) from error
