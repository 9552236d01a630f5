"""Temperature fallback without sampling, for an engine whose random numbers cannot be reproduced.

Whisper samples at temperatures above 0 to escape loops and wrong hypotheses. CTranslate2 seeds its generator once per
thread, so what it samples depends on everything it sampled before, and a label could not be reproduced. Here each
temperature stands for a beam search instead: first a plain one, then ones that forbid repeated n-grams, shorter ones at
higher temperatures. docs/adr/0002 has the measurements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from k2d.schema import DecodeOptions
from k2d.whisper.fallback import DecodingResult

FIRST_NGRAM_T: Final = 0.3  # at lower temperatures, no n-gram is forbidden
MIN_NGRAM: Final = 4  # tokens: a Han character can take three, and 謝謝 must stay possible


@dataclass(frozen=True, slots=True)
class Search:
    """The parameters of a beam search."""

    beam_size: int
    no_repeat_ngram_size: int  # no n-gram of this size may occur twice; 0: no restriction


def search_at(temperature: float, options: DecodeOptions) -> Search:
    """The search for a temperature.

    0: `beam_size` beams; 0.2: `best_of` beams; 0.4, 0.6, 0.8, 1.0: the same without repeated 9-, 7-, 6-, 4-grams.
    """
    if temperature == 0.0:
        return Search(options.beam_size, 0)
    if temperature < FIRST_NGRAM_T:
        return Search(options.best_of, 0)
    return Search(options.best_of, max(MIN_NGRAM, round(12 - 8 * temperature)))


class DeterministicFallback:
    """Decodes the windows of one batch by searches, and skips a search that could only repeat the last result."""

    def __init__(
        self, options: DecodeOptions, *, search: Callable[[Sequence[int], Search], list[DecodingResult]]
    ) -> None:
        self._options = options
        self._search = search
        self._last: dict[int, tuple[Search, DecodingResult]] = {}

    def decode(self, indices: Sequence[int], temperature: float) -> list[DecodingResult]:
        """A result for each window in `indices`, from the search for `temperature`."""
        search = search_at(temperature, self._options)
        fresh = [index for index in indices if self._could_change(index, search)]
        if fresh:
            self._last.update(
                (index, (search, result)) for index, result in zip(fresh, self._search(fresh, search), strict=True)
            )
        return [self._last[index][1] for index in indices]

    def _could_change(self, index: int, search: Search) -> bool:
        if index not in self._last:
            return True
        before, result = self._last[index]
        if before.beam_size != search.beam_size:
            return True
        return search.no_repeat_ngram_size > 0 and repeats_ngram(result.tokens, search.no_repeat_ngram_size)


def repeats_ngram(tokens: Sequence[int], size: int) -> bool:
    """Whether some n-gram of `size` tokens occurs twice."""
    ngrams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    return len(set(ngrams)) < len(ngrams)
