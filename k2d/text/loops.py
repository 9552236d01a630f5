"""Loops at the level of mixed tokens: where a text says one thing several times in a row.

The paper's rule counts character n-grams wherever they stand, so a word that a lecture needs six times is a loop to it
and 謝謝大家 five times is not (`k2d.text.repetition`). Here only repetition without a break counts, in the unit that is
said: a Han character, an English word. A loop is a unit said at least `LEAST_TURNS` times in a row, over at least
`LEAST_TOKENS` tokens: 看看, 對對對 and a sentence that is dictated twice are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_TURNS = 3
LEAST_TOKENS = 6
LEAST_NUMBERS = 10
_HAN_NUMBERS = frozenset("零〇一二三四五六七八九十百千万两")


@dataclass(frozen=True, slots=True)
class Loop:
    """`tokens[start:end]` says `tokens[start : start + period]` over and over; a text may end inside a turn."""

    start: int
    end: int
    period: int

    @property
    def turns(self) -> int:
        """How often the whole unit is said."""
        return (self.end - self.start) // self.period

    @property
    def surplus(self) -> int:
        """Tokens that say nothing new."""
        return self.end - self.start - self.period


def find_loops(tokens: Sequence[str]) -> tuple[Loop, ...]:
    """Find a text's loops, from left to right; they do not overlap.

    Where several begin at one place the longest is taken, and of those the one with the shortest unit. Texts of speech
    cost one set: nothing more is done unless four tokens in a row occur twice, as they do in every loop (six tokens at
    a period of one or two, nine or more at a longer one).
    """
    grams = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False))
    if len(set(grams)) == len(grams):
        return ()
    text = _encode(tokens)
    loops: list[Loop] = []
    done = 0
    for start, places in _comebacks(grams):
        if start >= done:
            loop = _longest_from(text, start, places)
            if loop is not None:
                loops.append(loop)
                done = loop.end
    return tuple(loops)


def count_loops(tokens: Sequence[str]) -> int:
    """The most turns of any loop; 1 for a text without one, 0 for an empty text."""
    return max((loop.turns for loop in find_loops(tokens)), default=min(1, len(tokens)))


def looping_share(tokens: Sequence[str]) -> float:
    """The share of the tokens that `unloop` leaves out: 0 without a loop, never quite 1."""
    return sum(loop.surplus for loop in find_loops(tokens)) / max(1, len(tokens))


def unloop(tokens: Sequence[str]) -> list[str]:
    """Write each loop once, so that a text that loops can be compared again with one that does not.

    What stands around a loop stays. Doing it again until nothing changes is not needed for comparing: a loop inside a
    unit is said once more than it should be.
    """
    kept: list[str] = []
    done = 0
    for loop in find_loops(tokens):
        kept += tokens[done : loop.start + loop.period]
        done = loop.end
    kept += tokens[done:]
    return kept


def count_up(tokens: Sequence[str]) -> int:
    """The most turns of a loop in which only a number changes (第一步，第二步，第三步 …), 0 without one.

    Numbers in a row count as one, so that plain counting and telephone numbers are no loop. Digits written in Han
    characters are numbers wherever they stand. A text with fewer than `LEAST_NUMBERS` is not looked at.
    """
    numbers = [token in _HAN_NUMBERS or token.isdecimal() for token in tokens]
    if sum(numbers) < LEAST_NUMBERS:
        return 0
    masked = ["#" if number else token for token, number in zip(tokens, numbers, strict=True)]
    merged = [token for token, before in zip(masked, ["", *masked], strict=False) if (token, before) != ("#", "#")]
    return max((loop.turns for loop in find_loops(merged) if "#" in merged[loop.start : loop.end]), default=0)


def _encode(tokens: Sequence[str]) -> str:
    """One character a token: comparing stretches is then comparing strings, which is quick."""
    codes: dict[str, str] = {}
    return "".join([codes.setdefault(token, chr(256 + len(codes))) for token in tokens])


def _comebacks(grams: Sequence[tuple[str, ...]]) -> list[tuple[int, list[int]]]:
    """Where a gram stands that occurs again, in order, each with all the places of that gram."""
    places: dict[tuple[str, ...], list[int]] = {}
    for place, gram in enumerate(grams):
        places.setdefault(gram, []).append(place)
    return sorted((place, found) for found in places.values() if len(found) > 1 for place in found)


def _longest_from(text: str, start: int, places: Sequence[int]) -> Loop | None:
    """The loop that begins at `start`, if one does. `places` are where the 4-gram at `start` occurs, in order."""
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
        if unit.startswith(text[end:]):  # the text ends within a turn
            end = len(text)
        loop = Loop(start, end, period)
        enough = loop.turns >= LEAST_TURNS and end - start >= LEAST_TOKENS
        if enough and (best is None or end > best.end):
            best = loop
        if best is not None and best.end == len(text):
            break
    return best
