"""From batches to a stored probe: encode once, train a network for each fold, judge each by what it never saw."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch

import k2d
from k2d.errors import BadRequest
from k2d.filtering.distance import counts
from k2d.inference.address import is_address, plain
from k2d.inference.open import engine_of
from k2d.keys import digest
from k2d.schema import Counts
from k2d.settings import Settings
from k2d.store import Lake
from k2d.validators.probe import ctc
from k2d.validators.probe.network import Probe, dump, encode_units, hash_of
from k2d.whisper.engine import Engine
from trainer.errors import NoTrainingData
from trainer.probe import training as network
from trainer.probe.encodings import Encodings
from trainer.probe.examples import Example, Passed, Shard, alphabet, examples, shards

log = structlog.get_logger()

Told = Callable[[str, int, int], None]  # what is done, how far, of how much


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the operator may choose. The rest of the recipe stands where it is used."""

    folds: int = 5
    epochs: int = 20
    seed: int = 0
    hours: float = 20.0  # more labels than this sharpen half a million weights no further, and cost time and disk


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold: what it was judged by, and how it did."""

    chunks: int  # held out from it
    seconds: float
    loss: float  # CTC, nats a phoneme, on these
    distance: float  # median bounded phoneme distance between what it heard in them and their labels


@dataclass(frozen=True)
class Trained:
    """A probe in the lake."""

    digest: str
    folds: tuple[Fold, ...]
    all: Fold  # the same over all chunks, each judged by the fold that did without it
    recordings: int
    passed: Mapping[str, int]
    units: int
    encode_s: float
    train_s: float
    encoded_bytes: int
    device: str

    @property
    def name(self) -> str:
        """As it is written into a validators."""
        return f"probe:{self.digest}"

    def document(self) -> dict[str, Any]:
        return {"name": self.name, **dataclasses.asdict(self)}


@dataclass
class Gathered:
    """All examples and their encodings."""

    encodings: Encodings
    found: list[Example] = field(default_factory=list)
    passed: Passed = field(default_factory=Passed)


def cross_fit(
    lake: Lake, batches: Sequence[str], recipe: Recipe, *, settings: Settings, told: Told, engine: Engine | None = None
) -> Trained:
    """Train a probe on the labels of batches and store it in the lake.

    Encodings lie in a temporary folder (TMPDIR) meanwhile: 184 MB an hour of speech for Whisper base, 461 MB for
    large, at most `recipe.hours` of it.

    Raises:
        BadRequest: the teacher is on a server.
        NotFound: no such batch.
        NoTrainingData: too few recordings with labels to hold one out in each fold.
        ModelError: the teacher cannot be loaded, or fails.
    """
    chosen = shards(lake, batches, hours=recipe.hours)
    if len(chosen) < recipe.folds:
        raise NoTrainingData(
            f"{len(chosen)} labeled recordings cannot be split into {recipe.folds} folds",
            hint="label more recordings first, or set --folds lower",
        )
    opened = engine or _open(settings)
    try:
        _compare(lake, chosen[0], opened)
        with tempfile.TemporaryDirectory(prefix="k2d-probe-") as folder:
            started = time.monotonic()
            gathered = _gather(lake, chosen, recipe, Encodings(Path(folder), opened, batch_size=16), told)
            encode_s = time.monotonic() - started
            return _fit(lake, gathered, recipe, teacher=opened, batches=batches, told=told, encode_s=encode_s)
    finally:
        if engine is None:
            opened.close()


def _open(settings: Settings) -> Engine:
    if is_address(settings.teacher):
        raise BadRequest(
            f"a probe needs the teacher's encoder in this process, and the teacher is at {settings.teacher}",
            hint="set K2D_TEACHER to the model that is served there",
        )
    return engine_of(plain(settings.teacher), settings)


def _compare(lake: Lake, shard: Shard, engine: Engine) -> None:
    """Tell when the labels are another teacher's: a label is a label, but it is worth knowing."""
    labeled_by = lake.labels.meta(shard.label_key)["teacher"]
    if labeled_by["digest"] != engine.model.digest:
        log.warning("the labels are another model's", labels=labeled_by["reference"], encoder=engine.model.reference)


def _gather(lake: Lake, chosen: Sequence[Shard], recipe: Recipe, encodings: Encodings, told: Told) -> Gathered:
    gathered = Gathered(encodings)
    for done, shard in enumerate(chosen, 1):
        for example, samples in examples(lake, shard, folds=recipe.folds, passed=gathered.passed):
            gathered.found.append(example)
            encodings.add(samples)
        told("recordings encoded", done, len(chosen))
    encodings.finish()
    empty = [fold for fold in range(recipe.folds) if not any(one.fold == fold for one in gathered.found)]
    if empty:
        raise NoTrainingData(
            f"{len(empty)} of {recipe.folds} folds got no recording with a label to learn from",
            hint="label more recordings first, or set --folds lower",
        )
    return gathered


def _fit(
    lake: Lake,
    gathered: Gathered,
    recipe: Recipe,
    *,
    teacher: Engine,
    batches: Sequence[str],
    told: Told,
    encode_s: float,
) -> Trained:
    started = time.monotonic()
    units = alphabet(gathered.found)
    data = _data(gathered, units)
    device = _device(teacher)
    how = network.How(epochs=recipe.epochs, seed=recipe.seed, device=device)
    layers, losses = [], []
    for fold in range(recipe.folds):
        inside = [index for index, one in enumerate(gathered.found) if one.fold != fold]
        outside = [index for index, one in enumerate(gathered.found) if one.fold == fold]

        def hear(epoch: int, loss: float, done: int = fold * recipe.epochs) -> None:
            log.info("epoch", number=epoch, loss=round(loss, 4))
            told("epochs trained", done + epoch + 1, recipe.folds * recipe.epochs)

        trained = network.train(data, inside, how, fold=fold, units=len(units), told=hear)
        losses.append(network.held_out_loss(trained, data, outside, device))
        layers.append(trained.layers())
    mean, scale = gathered.encodings.statistics()
    hashes = sorted({hash_of(one.recording_id) for one in gathered.found})
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
            "labels": digest("probe labels", [(one.recording_id, one.phonemes) for one in gathered.found]),
            "batches": list(batches),
            "recipe": dataclasses.asdict(recipe),
            "held_out_loss": [round(loss, 4) for loss in losses],
            "k2d": k2d.__version__,
            "torch": torch.__version__,
        },
    )
    train_s = time.monotonic() - started
    distances = _distances(probe, gathered, told)
    each = tuple(_fold(gathered.found, fold, losses[fold], distances) for fold in range(recipe.folds))
    return Trained(
        digest=lake.probes.put(dump(probe)),
        folds=each,
        all=Fold(
            chunks=len(gathered.found),
            seconds=sum(fold.seconds for fold in each),
            loss=sum(fold.loss * fold.chunks for fold in each) / len(gathered.found),
            distance=statistics.median(distances),
        ),
        recordings=len(hashes),
        passed=dict(gathered.passed.why),
        units=len(units),
        encode_s=encode_s,
        train_s=train_s,
        encoded_bytes=gathered.encodings.nbytes,
        device=device,
    )


def _data(gathered: Gathered, units: tuple[str, ...]) -> network.Data:
    index = {unit: place for place, unit in enumerate(units)}
    mean, scale = gathered.encodings.statistics()
    return network.Data(
        encodings=gathered.encodings,
        mean=torch.from_numpy(mean),
        scale=torch.from_numpy(scale),
        targets=[encode_units(one.phonemes, index) for one in gathered.found],
        frames=[one.frames for one in gathered.found],
        weights=[one.weight for one in gathered.found],
    )


def _distances(probe: Probe, gathered: Gathered, told: Told) -> list[float]:
    """The bounded phoneme distance of each example's label to what the probe that never saw it hears."""
    found: list[float] = []
    for position, example in enumerate(gathered.found):
        heard = ctc.best_path(probe.posteriors(gathered.encodings.one(position), example.recording_id))
        between: Counts = counts([probe.units[unit] for unit in heard.units], list(example.phonemes))
        found.append(between.bounded)
        told("chunks heard", position + 1, len(gathered.found))
    return found


def _fold(found: Sequence[Example], fold: int, loss: float, distances: Sequence[float]) -> Fold:
    mine = [index for index, one in enumerate(found) if one.fold == fold]
    return Fold(
        chunks=len(mine),
        seconds=sum(found[index].frames for index in mine) / 50,
        loss=loss,
        distance=statistics.median(distances[index] for index in mine),
    )


def _device(teacher: Engine) -> str:
    """Where the teacher is, if torch can be there too."""
    return "cuda" if teacher.model.device == "cuda" and torch.cuda.is_available() else "cpu"
