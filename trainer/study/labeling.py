"""From recordings to labels with their truth, by the service's own pipeline."""

import tempfile
from collections.abc import Sequence
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
from k2d.filehash import FileHashes
from k2d.filtering.policy import Columns, columns_of, evidence_columns
from k2d.schema import ChunkFacts, Outcome, RecordingResult
from k2d.settings import Settings
from k2d.store import Lake
from k2d.store.base import key_path
from trainer.evaluation.error_rates import bucket
from trainer.progress import OnProgress, no_progress
from trainer.study.blocks import DASH
from trainer.study.material import StudyRecording
from trainer.study.table import Floats, LabelTable, number_groups
from trainer.study.truth import LabelTruth, truth_of_clip, truth_of_span

LENGTHS: Final = ("up to 30 s", "longer than 30 s")
NOTHING_SAID: Final = "nothing said"
_SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True, slots=True, eq=False)
class SegmentTable:
    """The segments of all labels, in order; arrays of shape (segments,)."""

    owner: npt.NDArray[np.int64]  # the label each belongs to
    seconds: Floats
    edits: Floats
    tokens: Floats
    columns: Columns  # of their own evidence


@dataclass(frozen=True, slots=True, eq=False)
class ValidatorLabels:
    """The labels' evidence from one set of validators, in the labels' order.

    It has the members of `k2d.corpus.index.Part` that `k2d.filtering.policy.thresholds` reads.
    """

    name: str  # as it was asked for
    full_name: str  # with the models' references, as in facts
    fingerprints: tuple[str, str]  # of teacher and validator
    teacher: str
    chunks: Columns
    spans: SegmentTable
    facts: tuple[ChunkFacts, ...]
    cost_s: float | None = None  # seconds of compute for an hour of audio

    @property
    def segments(self) -> Columns:
        """The segments' evidence, their labels and lengths, as `thresholds` takes them."""
        ms = np.rint(self.spans.seconds * 1000).astype(np.int64)
        return {**self.spans.columns, "chunk": self.spans.owner, "ms": ms}


@dataclass(frozen=True, slots=True, eq=False)
class LabeledMaterial:
    """Everything the figures are computed from."""

    labels: LabelTable
    truths: tuple[LabelTruth, ...]
    validators: tuple[ValidatorLabels, ...]
    skipped: dict[str, str]  # recordings that were not studied, and why
    unlabeled: dict[str, str]  # recordings in which the teacher found no speech: no label, nothing to filter
    seconds_in: float
    recordings: int


_Results = dict[str, tuple[RecordingResult, tuple[ChunkFacts, ...]]]  # by the recording's name


def label_material(
    material: Sequence[StudyRecording],
    validators: Sequence[str],
    settings: Settings,
    *,
    on_progress: OnProgress = no_progress,
    cost_audio_s: float,
) -> LabeledMaterial:
    """Label the recordings once, validate them with every set of validators, and find each label's truth.

        label_material(material, ["perturbed", "perturbed+second-decode"], load(), cost_audio_s=300.0)

    Args:
        validators: sets of validators, each a name or several joined by `+`.
        on_progress: called with validators, recordings done, of how many.
        cost_audio_s: seconds of audio over which each set's compute is measured; 0: it is not.

    Raises:
        BadRequest, ModelError, StoreError: as labeling does.
        StoreError: the labels differ from one set of validators to another.
    """
    results = {name: _label(material, name, settings, on_progress) for name in validators}
    first = results[validators[0]]
    labels, truths, places, skipped, unlabeled = _truths(material, first)
    labeled = [_validator_labels(name, results[name], places, truths, settings) for name in validators]
    if cost_audio_s > 0:
        sample = _cost_sample(material, first, cost_audio_s)
        labeled = [replace(each, cost_s=_cost(sample, each.name, settings, on_progress)) for each in labeled]
    return LabeledMaterial(
        labels=labels,
        truths=truths,
        validators=tuple(labeled),
        skipped=skipped,
        unlabeled=unlabeled,
        seconds_in=sum(result.duration_s for result, _ in first.values()),
        recordings=len(first),
    )


def _label(
    material: Sequence[StudyRecording], validators: str, settings: Settings, on_progress: OnProgress
) -> _Results:
    """Label and validate all recordings as one batch."""
    backend = Embedded(settings)
    status = backend.label(
        [str(recording.path) for recording in material],
        BatchOptions(validator=validators),
        wait=True,
        on_status=lambda status: on_progress(validators, status.recordings, status.total),
    )
    batch, hashes = backend.lake.batches.get(status.id), FileHashes(settings.cache)
    by_key = {batch.sources[result.position].key: result for result in backend.lake.batches.results(batch.id)}
    results: _Results = {}
    for recording in material:
        result = by_key[sources.from_path(recording.path, hashes=hashes).key]
        facts = tuple(backend.lake.facts.read(result.facts_key)) if result.facts_key else ()
        results[recording.name] = result, facts
    return results


# ---- truth --------------------------------------------------------------------------------------------------------

_Places = list[tuple[str, int]]  # of each label: the recording's name, and the chunk's index in it


def _truths(
    material: Sequence[StudyRecording], results: _Results
) -> tuple[LabelTable, tuple[LabelTruth, ...], _Places, dict[str, str], dict[str, str]]:
    """The labels whose truth is known, the place of each, what is skipped and what has no label."""
    skipped: dict[str, str] = {}
    unlabeled: dict[str, str] = {}
    rows: list[tuple[StudyRecording, ChunkFacts, LabelTruth]] = []
    for recording in material:
        result, facts = results[recording.name]
        if result.outcome is not Outcome.LABELED:
            skipped[recording.name] = f"{result.reason}: {result.detail}"
        elif not facts:
            unlabeled[recording.name] = "the teacher found no speech"
        elif recording.timeline is not None:
            rows += [(recording, fact, truth_of_span(fact, recording.timeline)) for fact in facts]
        elif len(facts) == 1:
            rows.append((recording, facts[0], truth_of_clip(facts[0], recording.reference.texts)))
        else:
            skipped[recording.name] = f"became {len(facts)} chunks, and there is no timeline of its sentences"
    errors = [truth.errors for *_, truth in rows]
    labels = LabelTable(
        names=tuple(f"{recording.name}, chunk {fact.index}" for recording, fact, _ in rows),
        seconds=np.array([fact.duration_s for _, fact, _ in rows]),
        edits=np.array([float(each.mixed.edits) for each in errors]),
        tokens=np.array([float(each.mixed.reference_length) for each in errors]),
        switch_edits=np.array([float(each.switch.edits) for each in errors]),
        switch_tokens=np.array([float(each.switch.reference_length) for each in errors]),
        groups=number_groups([(recording.set, recording.reference.recording) for recording, *_ in rows]),
        kinds={
            "set": np.array([recording.set for recording, *_ in rows], np.str_),
            "language": np.array([recording.reference.language for recording, *_ in rows], np.str_),
            "length": np.array([LENGTHS[recording.timeline is not None] for recording, *_ in rows], np.str_),
            "code mixing": np.array([bucket(truth.reference) or NOTHING_SAID for *_, truth in rows], np.str_),
        },
    )
    places = [(recording.name, fact.index) for recording, fact, _ in rows]
    return labels, tuple(truth for *_, truth in rows), places, skipped, unlabeled


def _validator_labels(
    name: str, results: _Results, places: _Places, truths: Sequence[LabelTruth], settings: Settings
) -> ValidatorLabels:
    rows = []
    for recording, index in places:
        facts = results[recording][1]
        if index >= len(facts):
            raise StoreError(
                f"{recording} has other labels with {name!r}", hint="use a store that nothing else writes to"
            )
        rows.append(facts[index])
    meta: dict[str, Any] = {}
    if places:
        key = results[places[0][0]][0].facts_key
        assert key is not None
        meta = Lake(settings.store).facts.meta(key)
    spans = [(at, segment) for at, fact in enumerate(rows) for segment in fact.segments]
    edits = [counts for truth in truths for counts in truth.segments]
    return ValidatorLabels(
        name=name,
        full_name=rows[0].validators if rows else name,
        fingerprints=(fingerprint(meta.get("teacher")) or DASH, fingerprint(meta.get("validator")) or DASH),
        teacher=_reference(meta.get("teacher")),
        chunks=columns_of([fact.distances for fact in rows], [fact.evidence for fact in rows]),
        spans=SegmentTable(
            owner=np.array([at for at, _ in spans], np.int64),
            seconds=np.array([round(segment.end_s - segment.start_s, 3) for _, segment in spans]),
            edits=np.array([float(counts.edits) for counts in edits]),
            tokens=np.array([float(counts.reference_length) for counts in edits]),
            columns=evidence_columns([evidence for fact in rows for evidence in fact.segment_evidence]),
        ),
        facts=tuple(rows),
    )


def _reference(model: Any) -> str:
    return str(model["reference"]) if isinstance(model, dict) else DASH


# ---- cost ---------------------------------------------------------------------------------------------------------

_CostSample = list[tuple[StudyRecording, str, float]]  # recordings with label key and duration


def _cost_sample(material: Sequence[StudyRecording], results: _Results, audio_s: float) -> _CostSample:
    """Labeled recordings, spread over the material, that add up to so many seconds."""
    labeled = [
        (recording, result.label_key, result.duration_s)
        for recording in material
        for result, facts in [results[recording.name]]
        if result.label_key and facts
    ]
    # not an hour where minutes were asked for
    labeled = [row for row in labeled if row[2] <= audio_s] or labeled[:1]
    total_s = sum(duration_s for *_, duration_s in labeled)
    sample: _CostSample = []
    passed_s = taken_s = 0.0
    for row in labeled:  # one is taken where what is taken lags behind its share of what has passed
        passed_s += row[2]
        if taken_s < audio_s and taken_s <= passed_s / total_s * audio_s:
            sample.append(row)
            taken_s += row[2]
    return sample


def _cost(sample: _CostSample, validators: str, settings: Settings, on_progress: OnProgress) -> float | None:
    """Seconds of compute that validators need for an hour of audio that is labeled already.

    Measured in a store of its own that has the labels of the sample only; loading models does not count.
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
                [str(recording.path) for recording, *_ in sample],
                BatchOptions(validator=validators),
                wait=True,
                on_status=lambda status: on_progress(f"{validators}, cost", status.recordings, status.total),
            )
        except K2DError:
            return None  # what a validator needs (a probe) may be in the other store only
        wall_s = sum(result.wall_s for result in backend.lake.batches.results(status.id))
        return wall_s / audio_s * _SECONDS_PER_HOUR
