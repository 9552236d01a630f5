"""Trains a probe on the labels of batches, cross-fitted: each network is judged by recordings it did not see."""

import dataclasses
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
import torch

import k2d
from k2d.errors import BadRequest
from k2d.filtering.distance import counts
from k2d.inference.address import is_address, plain
from k2d.inference.open import engine_of
from k2d.keys import digest
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.probe import ctc
from k2d.validators.probe.network import Probe, dump, encode_units, hash_of
from k2d.whisper.engine import Engine
from trainer.errors import NoTrainingData
from trainer.probe.encodings import Encodings
from trainer.probe.examples import LabelShard, ProbeExample, alphabet, examples, label_shards
from trainer.probe.training import FitOptions, TrainingSet, held_out_loss, train_fold
from trainer.progress import OnProgress, no_progress

ENCODE_BATCH: Final = 16
FRAMES_PER_SECOND: Final = 50  # of the encoder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProbeRecipe:
    """What can be chosen; the other numbers are constants where they are used."""

    folds: int = 5
    epochs: int = 20
    seed: int = 0
    hours: float = 20.0  # more labels than this improve half a million weights no further, and cost time and disk


@dataclass(frozen=True, slots=True)
class FoldResult:
    """How one fold's network did on the examples that were held out from it."""

    chunks: int
    seconds: float
    loss: float  # CTC, nats per phoneme
    distance: float  # median bounded phoneme distance between its transcripts and the labels


@dataclass(frozen=True)
class StoredProbe:
    """A probe in the lake, and how it was trained."""

    digest: str
    folds: tuple[FoldResult, ...]
    all: FoldResult  # over all chunks, each judged by the network it was held out from
    recordings: int
    skipped: Mapping[str, int]  # chunks that were not learned from, by reason
    units: int
    encode_s: float
    train_s: float
    encoded_bytes: int
    device: str

    @property
    def name(self) -> str:
        """Its name among validators."""
        return f"probe:{self.digest}"

    def document(self) -> dict[str, Any]:
        """JSON values."""
        return {"name": self.name, **dataclasses.asdict(self)}


@dataclass
class EncodedExamples:
    """All examples and their encodings, in the same order."""

    encodings: Encodings
    examples: list[ProbeExample] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def cross_fit(
    lake: Lake,
    batches: Sequence[str],
    recipe: ProbeRecipe,
    *,
    settings: Settings,
    on_progress: OnProgress = no_progress,
    engine: Engine | None = None,
) -> StoredProbe:
    """Train a probe on the labels of batches and store it in the lake.

    Encodings are kept in a temporary folder (TMPDIR) meanwhile: 184 MB per hour of speech for Whisper base, 461 MB for
    large, for at most `recipe.hours` of it.

        cross_fit(Lake("store"), ["lectures"], ProbeRecipe(folds=5), settings=load()).name  # "probe:3f…"

    Args:
        engine: the teacher, where it is open already; it is not closed.

    Raises:
        BadRequest: the teacher is on a server.
        NotFound: no such batch.
        NoTrainingData: too few recordings with labels to hold one out in each fold.
        ModelError: the teacher cannot be loaded, or fails.
    """
    shards = label_shards(lake, batches, hours=recipe.hours)
    if len(shards) < recipe.folds:
        raise NoTrainingData(
            f"{len(shards)} labeled recordings cannot be split into {recipe.folds} folds",
            hint="label more recordings first, or set --folds lower",
        )
    teacher = engine or _open_teacher(settings)
    try:
        _warn_of_other_teacher(lake, shards[0], teacher)
        with tempfile.TemporaryDirectory(prefix="k2d-probe-") as folder:
            started = time.monotonic()
            encodings = Encodings(Path(folder), teacher, batch_size=ENCODE_BATCH)
            encoded = _encode(lake, shards, recipe, encodings, on_progress)
            encode_s = time.monotonic() - started
            return _fit(
                lake, encoded, recipe, teacher=teacher, batches=batches, on_progress=on_progress, encode_s=encode_s
            )
    finally:
        if engine is None:
            teacher.close()


def _open_teacher(settings: Settings) -> Engine:
    if is_address(settings.teacher):
        raise BadRequest(
            f"a probe needs the teacher's encoder in this process, and the teacher is at {settings.teacher}",
            hint="set K2D_TEACHER to the model that is served there",
        )
    return engine_of(plain(settings.teacher), settings)


def _warn_of_other_teacher(lake: Lake, shard: LabelShard, engine: Engine) -> None:
    """Log when the labels are another model's than the encoder: training works, but may not be what was meant."""
    labeled_by = lake.labels.meta(shard.label_key)["teacher"]
    if labeled_by["digest"] != engine.model.digest:
        log.warning("the labels are another model's", labels=labeled_by["reference"], encoder=engine.model.reference)


def _encode(
    lake: Lake, shards: Sequence[LabelShard], recipe: ProbeRecipe, encodings: Encodings, on_progress: OnProgress
) -> EncodedExamples:
    encoded = EncodedExamples(encodings)
    for done, shard in enumerate(shards, 1):
        for example, samples in examples(lake, shard, folds=recipe.folds, skipped=encoded.skipped):
            encoded.examples.append(example)
            encodings.add(samples)
        on_progress("recordings encoded", done, len(shards))
    encodings.finish()
    empty = set(range(recipe.folds)) - {example.fold for example in encoded.examples}
    if empty:
        raise NoTrainingData(
            f"{len(empty)} of {recipe.folds} folds have no recording with a label to learn from",
            hint="label more recordings first, or set --folds lower",
        )
    return encoded


def _fit(
    lake: Lake,
    encoded: EncodedExamples,
    recipe: ProbeRecipe,
    *,
    teacher: Engine,
    batches: Sequence[str],
    on_progress: OnProgress,
    encode_s: float,
) -> StoredProbe:
    started = time.monotonic()
    units = alphabet(encoded.examples)
    data = _training_set(encoded, units)
    device = _device(teacher)
    options = FitOptions(epochs=recipe.epochs, seed=recipe.seed, device=device)
    layers, losses = [], []
    for fold in range(recipe.folds):
        inside = [index for index, example in enumerate(encoded.examples) if example.fold != fold]
        outside = [index for index, example in enumerate(encoded.examples) if example.fold == fold]

        def report(epoch: int, loss: float, done: int = fold * recipe.epochs) -> None:
            log.info("epoch", number=epoch, loss=round(loss, 4))
            on_progress("epochs trained", done + epoch + 1, recipe.folds * recipe.epochs)

        network = train_fold(data, inside, options, fold=fold, units=len(units), on_epoch=report)
        losses.append(held_out_loss(network, data, outside, device))
        layers.append(network.layers())
    mean, scale = encoded.encodings.statistics()
    hashes = sorted({hash_of(example.recording_id) for example in encoded.examples})
    labels = [(example.recording_id, example.phonemes) for example in encoded.examples]
    probe = Probe(
        folds=tuple(layers),
        mean=mean,
        scale=scale,
        units=units,
        recordings=np.array(hashes, np.uint64),
        about={
            "teacher": teacher.model.reference,
            "teacher_digest": teacher.model.digest,
            "teacher_fingerprint": teacher.model.fingerprint,
            "labels": digest("probe labels", labels),
            "batches": list(batches),
            "recipe": dataclasses.asdict(recipe),
            "held_out_loss": [round(loss, 4) for loss in losses],
            "k2d": k2d.__version__,
            "torch": torch.__version__,
        },
    )
    train_s = time.monotonic() - started
    distances = _distances(probe, encoded, on_progress)
    results = tuple(_fold_result(encoded.examples, fold, losses[fold], distances) for fold in range(recipe.folds))
    return StoredProbe(
        digest=lake.probes.put(dump(probe)),
        folds=results,
        all=FoldResult(
            chunks=len(encoded.examples),
            seconds=sum(result.seconds for result in results),
            loss=sum(result.loss * result.chunks for result in results) / len(encoded.examples),
            distance=statistics.median(distances),
        ),
        recordings=len(hashes),
        skipped=dict(encoded.skipped),
        units=len(units),
        encode_s=encode_s,
        train_s=train_s,
        encoded_bytes=encoded.encodings.nbytes,
        device=device,
    )


def _training_set(encoded: EncodedExamples, units: tuple[str, ...]) -> TrainingSet:
    index = {unit: place for place, unit in enumerate(units)}
    mean, scale = encoded.encodings.statistics()
    return TrainingSet(
        encodings=encoded.encodings,
        mean=torch.from_numpy(mean),
        scale=torch.from_numpy(scale),
        targets=[encode_units(example.phonemes, index) for example in encoded.examples],
        frames=[example.frames for example in encoded.examples],
        weights=[example.weight for example in encoded.examples],
    )


def _distances(probe: Probe, encoded: EncodedExamples, on_progress: OnProgress) -> list[float]:
    """The bounded phoneme distance of each label to the transcript of the network it was held out from."""
    distances: list[float] = []
    for position, example in enumerate(encoded.examples):
        path = ctc.best_path(probe.posteriors(encoded.encodings.read(position), example.recording_id))
        transcript = [probe.units[unit] for unit in path.units]
        distances.append(counts(transcript, list(example.phonemes)).bounded)
        on_progress("chunks judged", position + 1, len(encoded.examples))
    return distances


def _fold_result(
    all_examples: Sequence[ProbeExample], fold: int, loss: float, distances: Sequence[float]
) -> FoldResult:
    members = [index for index, example in enumerate(all_examples) if example.fold == fold]
    return FoldResult(
        chunks=len(members),
        seconds=sum(all_examples[index].frames for index in members) / FRAMES_PER_SECOND,
        loss=loss,
        distance=statistics.median(distances[index] for index in members),
    )


def _device(teacher: Engine) -> str:
    """The teacher's device, if torch can use it too."""
    return "cuda" if teacher.model.device == "cuda" and torch.cuda.is_available() else "cpu"
