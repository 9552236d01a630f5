"""Fallback without dice: what stands for sampling where an engine's random numbers cannot be repeated.

Whisper samples at temperatures above 0 to get out of loops and off wrong tracks. CTranslate2 seeds its generator once
for each thread, so what it samples depends on everything sampled before; a label made so could never be made again.
Here each temperature stands for a search instead: first over several beams, then with repeats of ever shorter runs of
tokens forbidden. docs/adr/0002 has the measurements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from k2d.schema import DecodeOptions
from k2d.whisper.fallback import Draft

FIRST_BAN_T = 0.3  # below it, beams alone
SHORTEST_BAN = 4  # tokens: one Han character can take three, and 謝謝 must stay possible


@dataclass(frozen=True, slots=True)
class Search:
    """How to look for the likeliest tokens."""

    beams: int
    unrepeated: int  # no run of so many tokens may occur twice; 0: anything may


def search_at(temperature: float, options: DecodeOptions) -> Search:
    """What a temperature stands for: 0 as the options say; 0.2 `best_of` beams; 0.4 … 1.0 runs of 9, 7, 6, 4 banned."""
    if temperature == 0.0:
        return Search(options.beam_size, 0)
    if temperature < FIRST_BAN_T:
        return Search(options.best_of, 0)
    return Search(options.best_of, max(SHORTEST_BAN, round(12 - 8 * temperature)))


class Ladder:
    """The searches of one batch. A rung that forbids nothing its window's last beam search did is not climbed."""

    def __init__(self, options: DecodeOptions, *, search: Callable[[Sequence[int], Search], list[Draft]]) -> None:
        self._options = options
        self._search = search
        self._last: dict[int, tuple[Search, Draft]] = {}

    def decode(self, indices: Sequence[int], temperature: float) -> list[Draft]:
        """A draft for each window in `indices`, found as `temperature` asks."""
        how = search_at(temperature, self._options)
        fresh = [index for index in indices if self._could_change(index, how)]
        if fresh:
            self._last.update(
                (index, (how, draft)) for index, draft in zip(fresh, self._search(fresh, how), strict=True)
            )
        return [self._last[index][1] for index in indices]

    def _could_change(self, index: int, how: Search) -> bool:
        if index not in self._last:
            return True
        before, draft = self._last[index]
        if before.beams != how.beams:
            return True
        return how.unrepeated > 0 and repeats(draft.tokens, how.unrepeated)


def repeats(tokens: Sequence[int], length: int) -> bool:
    """Whether some run of `length` tokens occurs twice."""
    runs = [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]
    return len(set(runs)) < len(runs)
