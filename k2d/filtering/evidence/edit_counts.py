"""The edits of many alignments as columns, and the rates that follow from them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Added to a span's tokens before the share of differing ones is taken. Chosen: two tokens that differ may be a loan
# word and its native form (OK, 好), so a language flip needs more than two.
_FLIP_TOKENS: Final = 2.0
_TINY: Final = 1e-9  # keeps a denominator above 0

# the columns of `EditCounts.rates`
RATES: Final = ("disagreement", "zh_error", "en_error", "substituted", "deleted", "inserted", "homophones", "flip")


@dataclass(frozen=True, slots=True, eq=False)
class EditCounts:
    """Counts of each span's alignment of a label with a hypothesis, shape (spans,) each.

    A token counts by the share of it that is wrong (0…1). `hypothesis_…` are the same counts of the hypothesis's
    tokens. Counts of segments add up to those of their chunk.
    """

    tokens: Floats
    hypothesis_tokens: Floats
    substituted: Floats
    inserted: Floats
    deleted: Floats
    homophones: Floats
    zh_phonemes: Floats  # Mandarin phonemes
    hypothesis_zh_phonemes: Floats
    zh_phoneme_edits: Floats  # with a Mandarin phoneme on either side
    words: Floats  # English tokens
    hypothesis_words: Floats
    words_wrong: Floats
    hypothesis_words_wrong: Floats
    wrong: Floats  # tokens
    wrong_mandarin: Floats
    hypothesis_wrong: Floats
    hypothesis_wrong_mandarin: Floats

    def summed(self, first: npt.NDArray[np.intp]) -> "EditCounts":
        """Add up neighbouring spans: `first` are the first spans of each sum, shape (sums,)."""
        return EditCounts(*(np.add.reduceat(getattr(self, name), first) for name in self.__slots__))

    @property
    def disagreement(self) -> Floats:
        """Token edits over the longer side's tokens, 0…1. 1 when exactly one side is empty."""
        return _share(self.substituted + self.deleted + self.inserted, self._longer)

    @property
    def zh_error(self) -> Floats:
        """Mandarin phoneme edits over the longer side's Mandarin phonemes, 0…1."""
        return _share(self.zh_phoneme_edits, np.maximum(self.zh_phonemes, self.hypothesis_zh_phonemes))

    @property
    def en_error(self) -> Floats:
        """Wrong English words over the longer side's English words, 0…1."""
        wrong = np.maximum(self.words_wrong, self.hypothesis_words_wrong)
        return _share(wrong, np.maximum(self.words, self.hypothesis_words))

    @property
    def flip(self) -> Floats:
        """How much the language differs, 0…1.

        The difference between the shares of Mandarin among the wrong tokens of both sides, times the share of the span
        that is wrong on both sides.
        """
        both = (self.wrong > 0) & (self.hypothesis_wrong > 0)
        label = self.wrong_mandarin / np.maximum(self.wrong, _TINY)
        hypothesis = self.hypothesis_wrong_mandarin / np.maximum(self.hypothesis_wrong, _TINY)
        differing = np.minimum(self.wrong, self.hypothesis_wrong) / (self._longer + _FLIP_TOKENS)
        flip: Floats = np.where(both, np.abs(label - hypothesis) * np.minimum(1.0, differing), 0.0)
        return flip

    def rates(self) -> Floats:
        """All rates in the order of RATES, shape (spans, 8)."""
        longer = self._longer
        return np.stack(
            (
                self.disagreement,
                self.zh_error,
                self.en_error,
                _share(self.substituted, longer),
                _share(self.deleted, longer),
                _share(self.inserted, longer),
                _share(self.homophones, self.tokens),
                self.flip,
            ),
            axis=1,
        )

    @property
    def _longer(self) -> Floats:
        return np.maximum(self.tokens, self.hypothesis_tokens)


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    share: Floats = np.minimum(1.0, part / np.maximum(whole, 1.0))
    return share
