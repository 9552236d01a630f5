"""One row of a dataset becomes features and tokens, or is skipped with a reason."""

from dataclasses import dataclass
from typing import Any, Final

from k2d.audio import decode_flac
from k2d.errors import StoreError
from k2d.schema import SAMPLE_RATE_HZ, WINDOW_SAMPLES, Samples
from k2d.whisper.features import Features, log_mel
from k2d.whisper.vocabulary import Vocabulary
from trainer.data.augment import add_noise, spec_augment
from trainer.data.batch import PreparedRow
from trainer.data.draws import generator, share
from trainer.data.targets import SkipReason, tokenize_label
from trainer.options import Recipe

# How far the length of the audio may be from the row's duration: enough for rounding to milliseconds; a file that was
# cut off lacks more
TOLERANCE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row that is not trained on, and why."""

    id: str
    reason: SkipReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Preparer:
    """Prepares rows for one model.

    row = Preparer(recipe, vocabulary, mels=80).prepare(fields, visit=0)
    """

    recipe: Recipe
    vocabulary: Vocabulary
    mels: int

    def prepare(self, fields: dict[str, Any], *, visit: int, with_features: bool = True) -> PreparedRow | SkippedRow:
        """A row from its fields (`trainer.data.prefetch.COLUMNS`).

        Args:
            visit: how often the row was used before; random choices are drawn anew for each visit.
            with_features: False leaves the audio alone; the row then has no features.
        """
        row_id = fields["id"]
        if is_held_out(fields["recording_id"], share_of=self.recipe.holdout):
            return SkippedRow(row_id, SkipReason.HELD_OUT)
        label = tokenize_label(fields, vocabulary=self.vocabulary, recipe=self.recipe, visit=visit)
        if isinstance(label, SkipReason):
            return SkippedRow(row_id, label)
        features = None
        if with_features:
            try:
                samples = decode_row(fields)
            except StoreError as error:
                return SkippedRow(row_id, SkipReason.DAMAGED, error.message)
            if len(samples) > WINDOW_SAMPLES:
                return SkippedRow(row_id, SkipReason.TOO_LONG, f"{len(samples) / SAMPLE_RATE_HZ:.2f} s")
            features = self._features(samples, visit=visit, row_id=row_id)
        return PreparedRow(row_id, features, label, fields["duration_s"])

    def _features(self, samples: Samples, *, visit: int, row_id: str) -> Features:
        """Samples (n,) → noise if the recipe asks for it → log-mel (mels, 3000) → SpecAugment likewise."""
        recipe, key = self.recipe, (self.recipe.seed, visit, row_id)
        if recipe.noise_snr_db is not None:
            samples = add_noise(samples, snr_db=recipe.noise_snr_db, draws=generator("noise", *key))
        features = log_mel(samples, mels=self.mels)
        if recipe.spec_augment:
            features = spec_augment(features, samples=len(samples), draws=generator("mask", *key))
        return features


def is_held_out(recording_id: str, *, share_of: float) -> bool:
    """Whether a recording validates instead of training.

    The same ones for every seed, so that runs compare.
    """
    return share_of > 0.0 and share("holdout", recording_id) < share_of


def decode_row(fields: dict[str, Any]) -> Samples:
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
