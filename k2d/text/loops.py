"""Finds loops of mixed tokens: a sequence of tokens that is repeated several times in a row.

The paper's rule counts character n-grams anywhere in a text, so it flags a term that a lecture uses six times and
misses 謝謝大家 said five times (`k2d.text.repetition`). Here only uninterrupted repetition counts, in tokens. A loop is
a unit of tokens repeated at least LEAST_TURNS times in a row over at least LEAST_TOKENS tokens, so 看看, 對對對 and a
sentence dictated twice are not loops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Chosen so that reduplication (看看, 對對對) and a sentence dictated twice are not loops.
LEAST_TURNS: Final = 3
LEAST_TOKENS: Final = 6
LEAST_NUMBERS: Final = 10  # `count_up` ignores texts with fewer numbers; chosen: people count to ten
_HAN_NUMBERS: Final = frozenset("零〇一二三四五六七八九十百千万两")


@dataclass(frozen=True, slots=True)
class Loop:
    """`tokens[start:end]` repeats `tokens[start : start + period]`; at the end of a text the last turn may be cut."""

    start: int
    end: int
    period: int

    @property
    def turns(self) -> int:
        """How often the unit occurs completely."""
        return (self.end - self.start) // self.period

    @property
    def surplus(self) -> int:
        """Number of tokens after the first occurrence of the unit."""
        return self.end - self.start - self.period


def find_loops(tokens: Sequence[str]) -> tuple[Loop, ...]:
    """Find the loops of a text, from left to right, without overlap.

        find_loops(list("謝謝大家謝謝大家謝謝大家"))  # (Loop(start=0, end=12, period=4),)

    Of several loops that begin at one token the longest is taken, and among those the one with the shortest unit. For
    ordinary speech this costs one set: every loop contains some four tokens in a row at least twice (it has at least
    six tokens, and nine or more if its period is above two), so a text without a repeated 4-gram has no loop.
    """
    grams = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    if len(set(grams)) == len(grams):
        return ()
    text = _encode(tokens)
    loops: list[Loop] = []
    done = 0
    for start, places in _recurring(grams):
        if start >= done:
            loop = _longest_from(text, start, places)
            if loop is not None:
                loops.append(loop)
                done = loop.end
    return tuple(loops)


def count_loops(tokens: Sequence[str]) -> int:
    """The largest number of turns of any loop; 1 for a text without a loop, 0 for an empty text."""
    return max((loop.turns for loop in find_loops(tokens)), default=min(1, len(tokens)))


def unloop(tokens: Sequence[str]) -> list[str]:
    """Reduce each loop to one occurrence of its unit, so that a looping text can be compared with others.

        unloop(list("謝謝大家謝謝大家謝謝大家吧"))  # ['謝', '謝', '大', '家', '吧']

    One pass is enough for comparing, although loops within a unit remain.
    """
    kept: list[str] = []
    done = 0
    for loop in find_loops(tokens):
        kept += tokens[done : loop.start + loop.period]
        done = loop.end
    kept += tokens[done:]
    return kept


def count_up(tokens: Sequence[str]) -> int:
    """The largest number of turns of a loop in which only a number changes (第一步，第二步，第三步 …); 0 without one.

    Adjacent numbers are merged into one, so plain counting and telephone numbers are not loops. Han numerals count as
    numbers in any context. Returns 0 for a text with fewer than LEAST_NUMBERS numbers.
    """
    numbers = [token in _HAN_NUMBERS or token.isdecimal() for token in tokens]
    if sum(numbers) < LEAST_NUMBERS:
        return 0
    masked = ["#" if number else token for token, number in zip(tokens, numbers, strict=True)]
    merged = [token for token, before in zip(masked, ["", *masked], strict=False) if (token, before) != ("#", "#")]
    return max((loop.turns for loop in find_loops(merged) if "#" in merged[loop.start : loop.end]), default=0)


def _encode(tokens: Sequence[str]) -> str:
    """Encode tokens as a string, one character per token, because comparing strings is fast."""
    codes: dict[str, str] = {}
    return "".join([codes.setdefault(token, chr(256 + len(codes))) for token in tokens])


def _recurring(grams: Sequence[tuple[str, ...]]) -> list[tuple[int, list[int]]]:
    """The positions of all grams that occur more than once, ascending, each with all positions of its gram."""
    positions: dict[tuple[str, ...], list[int]] = {}
    for position, gram in enumerate(grams):
        positions.setdefault(gram, []).append(position)
    return sorted((place, places) for places in positions.values() if len(places) > 1 for place in places)


def _longest_from(text: str, start: int, places: Sequence[int]) -> Loop | None:
    """The longest loop that begins at `start`, or None. `places`: positions of the 4-gram at `start`, ascending."""
    best: Loop | None = None
    for place in places:
        period = place - start
        if period <= 0:
            continue
        if start + LEAST_TURNS * period > len(text):
            break
        unit = text[start:place]
        if not text.startswith(unit, place):
            continue
        end = place + period
        while text.startswith(unit, end):
            end += period
        if unit.startswith(text[end:]):  # the text ends inside a turn
            end = len(text)
        loop = Loop(start, end, period)
        enough = loop.turns >= LEAST_TURNS and end - start >= LEAST_TOKENS
        if enough and (best is None or end > best.end):
            best = loop
        if best is not None and best.end == len(text):
            break
    return best
