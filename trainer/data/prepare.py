"""One row of a dataset becomes features and tokens, or a reason why not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k2d.audio import decode_flac
from k2d.errors import StoreError
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Samples
from k2d.whisper.features import Features, log_mel
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.augment import add_noise, spec_augment
from trainer.data.batch import Row
from trainer.data.draws import generator, share
from trainer.data.targets import Skip, example
from trainer.options import Recipe

# What audio and label may differ by in length: rounding to milliseconds, not a cut file
TOLERANCE_S = 0.05

Wanted = Callable[[str], bool]  # whether the features of the row with this id are wanted; asked from several threads


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not trained on."""

    id: str
    why: Skip
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Preparer:
    """Makes rows ready for one model."""

    recipe: Recipe
    vocabulary: Vocabulary
    mels: int

    def prepare(self, fields: dict[str, Any], *, visit: int, wanted: Wanted | None = None) -> Row | Skipped:
        """A row from its fields (`trainer.data.prefetch.COLUMNS`); without features where they are not wanted."""
        if held_out(fields["recording_id"], share_of=self.recipe.holdout):
            return Skipped(fields["id"], Skip.HELD_OUT)
        label = example(fields, vocabulary=self.vocabulary, recipe=self.recipe, visit=visit)
        if isinstance(label, Skip):
            return Skipped(fields["id"], label)
        features = None
        if wanted is None or wanted(fields["id"]):
            try:
                samples = decode(fields)
            except StoreError as error:
                return Skipped(fields["id"], Skip.DAMAGED, error.message)
            if len(samples) > WINDOW_SAMPLES:
                return Skipped(fields["id"], Skip.TOO_LONG, f"{len(samples) / SAMPLE_RATE_HZ:.2f} s")
            features = self._features(samples, visit=visit, row_id=fields["id"])
        return Row(id=fields["id"], features=features, example=label, seconds=fields["duration_s"])

    def _features(self, samples: Samples, *, visit: int, row_id: str) -> Features:
        recipe, key = self.recipe, (self.recipe.seed, visit, row_id)
        if recipe.noise_snr_db is not None:
            samples = add_noise(samples, snr_db=recipe.noise_snr_db, draws=generator("noise", *key))
        features = log_mel(samples, mels=self.mels)
        if recipe.spec_augment:
            features = spec_augment(features, samples=len(samples), draws=generator("mask", *key))
        return features


def held_out(recording_id: str, *, share_of: float) -> bool:
    """Whether a recording validates instead of training: the same ones for every seed, so that runs compare."""
    return share_of > 0.0 and share("holdout", recording_id) < share_of


def decode(fields: dict[str, Any]) -> Samples:
    """A row's audio, shape (n,).

    Raises:
        StoreError: there is none, it is damaged, or it is not as long as the row says.
    """
    flac = (fields["audio"] or {}).get("bytes")
    if not flac:
        raise StoreError("the row has no audio")
    samples = decode_flac(flac)
    length_s = len(samples) / SAMPLE_RATE_HZ
    if abs(length_s - fields["duration_s"]) > TOLERANCE_S:
        raise StoreError(f"{length_s:.3f} s of audio for a row of {fields['duration_s']:.3f} s")
    return samples
