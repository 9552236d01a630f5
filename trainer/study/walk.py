"""From recordings to labels with their truth, through the service's own walk."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2d import sources
from k2d.client.embedded import Embedded
from k2d.corpus.gather import fingerprint
from k2d.documents import BatchOptions
from k2d.errors import K2DError, StoreError
from k2d.filtering.policy import Columns, columns_of, evidence_columns
from k2d.schema import ChunkFacts, Outcome, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.base import key_path
from trainer.evaluation.error_rates import bucket
from trainer.study.material import Material
from trainer.study.table import Floats, Labels, numbered
from trainer.study.truth import Truth, of_clip, of_stretch

Told = Callable[[str, int, int], None]  # validators, recordings done, of how many
LENGTHS: Final = ("up to 30 s", "longer than 30 s")
NOTHING_SAID: Final = "nothing said"


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """The segments of all labels, in order; arrays of shape (segments,)."""

    owner: npt.NDArray[np.int64]  # the label each belongs to
    seconds: Floats
    edits: Floats
    tokens: Floats
    columns: Columns  # of their own evidence


@dataclass(frozen=True, slots=True, eq=False)
class ValidatorLabels:
    """What one set of validators made of the labels, in their order; judged like a part of a corpus."""

    name: str  # as it was asked for
    validators: str  # as facts name them
    fingerprints: tuple[str, str]  # of teacher and validator
    teacher: str
    chunks: Columns
    spans: Segments
    facts: tuple[ChunkFacts, ...]
    cost_s: float | None = None  # seconds of compute for an hour of audio

    @property
    def segments(self) -> Columns:
        """The segments' evidence, their labels and lengths, as `thresholds` takes them."""
        ms = np.rint(self.spans.seconds * 1000).astype(np.int64)
        return {**self.spans.columns, "chunk": self.spans.owner, "ms": ms}


@dataclass(frozen=True, slots=True, eq=False)
class Walked:
    """Everything the figures are made of."""

    labels: Labels
    truths: tuple[Truth, ...]
    validator_sets: tuple[ValidatorLabels, ...]
    aside: dict[str, str]
    unlabeled: dict[str, str]  # recordings in which the teacher heard nothing: no label, nothing to filter
    seconds_in: float
    recordings: int


_Heard = dict[str, tuple[RecordingResult, tuple[ChunkFacts, ...]]]  # by the material's name


def walk(
    material: Sequence[Material], validator_sets: Sequence[str], settings: Settings, *, told: Told, cost_audio_s: float
) -> Walked:
    """Label the recordings once and doubt them with every validators; find each label's truth.

    Raises:
        BadRequest, ModelError, StoreError: as the walk does.
        StoreError: validator_sets have other labels than one another.
    """
    heard = {validators: _heard(material, validators, settings, told) for validators in validator_sets}
    labels, truths, chunks, aside, unlabeled = _truths(material, heard[validator_sets[0]])
    made = [_panel(validators, heard[validators], chunks, truths, settings) for validators in validator_sets]
    results = [result for result, _ in heard[validator_sets[0]].values()]
    if cost_audio_s > 0:
        sample = _sample(material, heard[validator_sets[0]], cost_audio_s)
        made = [replace(one, cost_s=_cost(sample, one.name, settings, told)) for one in made]
    return Walked(
        labels=labels,
        truths=truths,
        validator_sets=tuple(made),
        aside=aside,
        unlabeled=unlabeled,
        seconds_in=sum(result.duration_s for result in results),
        recordings=len(results),
    )


def _heard(material: Sequence[Material], validators: str, settings: Settings, told: Told) -> _Heard:
    backend = Embedded(settings)
    status = backend.label(
        [str(one.path) for one in material],
        BatchOptions(validator=validators),
        wait=True,
        on_status=lambda status: told(validators, status.recordings, status.total),
    )
    results = {result.name: result for result in backend.lake.batches.results(status.id)}
    found: _Heard = {}
    for one in material:
        result = results[sources.from_path(one.path).name]
        facts = tuple(backend.lake.facts.read(result.facts_key)) if result.facts_key else ()
        found[one.name] = result, facts
    return found


# ---- truth --------------------------------------------------------------------------------------------------------


def _truths(
    material: Sequence[Material], heard: _Heard
) -> tuple[Labels, tuple[Truth, ...], list[tuple[str, int]], dict[str, str], dict[str, str]]:
    """The labels whose truth is known, where each is (material, index), what is set aside and what has no label."""
    aside: dict[str, str] = {}
    unlabeled: dict[str, str] = {}
    rows: list[tuple[Material, ChunkFacts, Truth]] = []
    for one in material:
        result, facts = heard[one.name]
        if result.outcome is not Outcome.LABELED:
            aside[one.name] = f"{result.reason}: {result.detail}"
        elif not facts:
            unlabeled[one.name] = "the teacher heard nothing"
        elif one.timeline is not None:
            rows += [(one, fact, of_stretch(fact, one.timeline)) for fact in facts]
        elif len(facts) == 1:
            rows.append((one, facts[0], of_clip(facts[0], one.said.references)))
        else:
            aside[one.name] = f"became {len(facts)} chunks, and nothing tells what is said when"
    labels = Labels(
        names=tuple(f"{one.name}, chunk {fact.index}" for one, fact, _ in rows),
        seconds=np.array([fact.duration_s for _, fact, _ in rows]),
        edits=np.array([float(truth.tally.mixed.edits) for *_, truth in rows]),
        tokens=np.array([float(truth.tally.mixed.reference_length) for *_, truth in rows]),
        switch_edits=np.array([float(truth.tally.switch.edits) for *_, truth in rows]),
        switch_tokens=np.array([float(truth.tally.switch.reference_length) for *_, truth in rows]),
        groups=numbered([(one.set, one.said.recording) for one, *_ in rows]),
        kinds={
            "set": np.array([one.set for one, *_ in rows], np.str_),
            "language": np.array([one.said.language for one, *_ in rows], np.str_),
            "length": np.array([LENGTHS[one.timeline is not None] for one, *_ in rows], np.str_),
            "code mixing": np.array([bucket(truth.reference) or NOTHING_SAID for *_, truth in rows], np.str_),
        },
    )
    places = [(one.name, fact.index) for one, fact, _ in rows]
    return labels, tuple(truth for *_, truth in rows), places, aside, unlabeled


def _panel(
    name: str, heard: _Heard, places: Sequence[tuple[str, int]], truths: Sequence[Truth], settings: Settings
) -> ValidatorLabels:
    rows = []
    for recording, index in places:
        facts = heard[recording][1]
        if index >= len(facts):
            raise StoreError(f"{recording} has other labels under {name!r}", hint="use a store that nobody writes to")
        rows.append(facts[index])
    meta: dict[str, Any] = {}
    if places:
        key = heard[places[0][0]][0].facts_key
        assert key is not None
        meta = Lake(settings.store).facts.meta(key)
    spans = [(at, segment) for at, fact in enumerate(rows) for segment in fact.segments]
    counts = [one for truth in truths for one in truth.segments]
    return ValidatorLabels(
        name=name,
        validators=rows[0].validators if rows else name,
        fingerprints=(fingerprint(meta.get("teacher")) or "–", fingerprint(meta.get("validator")) or "–"),
        teacher=_reference(meta.get("teacher")),
        chunks=columns_of([fact.distances for fact in rows], [fact.evidence for fact in rows]),
        spans=Segments(
            owner=np.array([at for at, _ in spans], np.int64),
            seconds=np.array([round(segment.end_s - segment.start_s, 3) for _, segment in spans]),
            edits=np.array([float(one.edits) for one in counts]),
            tokens=np.array([float(one.reference_length) for one in counts]),
            columns=evidence_columns([one for fact in rows for one in fact.segment_evidence]),
        ),
        facts=tuple(rows),
    )


def _reference(model: Any) -> str:
    return str(model["reference"]) if isinstance(model, dict) else "–"


# ---- cost ---------------------------------------------------------------------------------------------------------


def _sample(material: Sequence[Material], heard: _Heard, audio_s: float) -> list[tuple[Material, str, float]]:
    """Labeled recordings from all over the material, with label key and duration, that make up so many seconds."""
    known = [
        (one, result.label_key, result.duration_s)
        for one in material
        for result, facts in [heard[one.name]]
        if result.label_key and facts
    ]
    known = [one for one in known if one[2] <= audio_s] or known[:1]  # not an hour where minutes were asked for
    total = sum(duration_s for *_, duration_s in known)
    found: list[tuple[Material, str, float]] = []
    passed = taken = 0.0
    for one in known:  # a recording is taken where what is taken lags behind its share of what has passed
        passed += one[2]
        if taken < audio_s and taken <= passed / total * audio_s:
            found.append(one)
            taken += one[2]
    return found


def _cost(
    sample: Sequence[tuple[Material, str, float]], validators: str, settings: Settings, told: Told
) -> float | None:
    """Seconds of compute that a validators needs for an hour of audio, where the labels are there already.

    Measured in a store of its own, with nothing in it but the labels of the sample; loading models does not count.
    """
    audio_s = sum(duration_s for *_, duration_s in sample)
    if not audio_s:
        return None
    lake = Lake(settings.store)
    with tempfile.TemporaryDirectory(prefix="k2d-study-") as folder:
        scratch = settings.model_copy(update={"store": str(Path(folder) / "store")})
        backend = Embedded(scratch)
        for _, key, _ in sample:
            path = key_path("labels", key, ".parquet")
            backend.lake.files.write(path, lake.files.read(path))
        try:
            status = backend.label(
                [str(one.path) for one, *_ in sample],
                BatchOptions(validator=validators),
                wait=True,
                on_status=lambda status: told(f"{validators}, cost", status.recordings, status.total),
            )
        except K2DError:
            return None  # what a validators needs may be in the other store only
        return sum(result.wall_s for result in backend.lake.batches.results(status.id)) / audio_s * 3600
