"""Known hallucinations: fluent, not repetitive, and often shared by both models, so that no distance sees them.

The list lies in data/phrases.txt. A text is a hit when it consists of known phrases and nothing else, once or many
times over; a sentence that contains one is speech. Source: method.md, section 6.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from k2d.text.tokens import mixed_tokens

_LONGEST_NAME = 6  # tokens that may follow a credit: a name, two names, an address
# What sentences have and names do not: "字幕志願者很辛苦" and "captions by default are off" are speech.
_NO_NAME_ZH = "的是了我你他她们很都在会有帮这那不也就要说吗呢吧把被和对还没让给"
_NO_NAME_EN = """
a i you we he she they it my your our is are was were be do does can will would not no but so that this which
"""
_NO_NAME = frozenset(_NO_NAME_ZH) | frozenset(_NO_NAME_EN.split())
_TIMES = "3×"


@dataclass(frozen=True, slots=True)
class _Phrase:
    written: str  # as in the list
    tokens: tuple[str, ...]
    open_tail: bool
    times: int  # how often it must be said to count


def phrase(text: str) -> str | None:
    """The known phrase a text consists of (the first one said, as the list writes it), or None."""
    return match_phrases(mixed_tokens(text))


def match_phrases(tokens: Sequence[str]) -> str | None:
    """`phrase` for text that is already mixed tokens."""
    if not tokens or tokens[0] not in _by_first_token():
        return None
    # Every prefix that phrases can make up, with the phrases that do: the longest phrase is tried first, so the
    # first way to reach a position is the one with the fewest phrases.
    reached: dict[int, tuple[_Phrase, ...]] = {0: ()}
    for position in range(len(tokens)):
        said = reached.get(position)
        if said is None:
            continue
        for candidate in _by_first_token().get(tokens[position], ()):
            end = position + len(candidate.tokens)
            if tuple(tokens[position:end]) == candidate.tokens:
                for stop in _stops(tokens, end) if candidate.open_tail else (end,):
                    reached.setdefault(stop, (*said, candidate))
    return _verdict(reached.get(len(tokens), ()))


def _stops(tokens: Sequence[str], start: int) -> Iterator[int]:
    """Where a name that begins at `start` may end, the empty name first."""
    yield start
    for end in range(start, min(start + _LONGEST_NAME, len(tokens))):
        if tokens[end] in _NO_NAME:
            return
        yield end + 1


def _verdict(said: tuple[_Phrase, ...]) -> str | None:
    """A farewell counts when it is said often enough, or beside a credit, which always counts."""
    if not said or len(said) < min(one.times for one in said):
        return None
    return min(said, key=lambda one: one.times).written


@cache
def _by_first_token() -> dict[str, tuple[_Phrase, ...]]:
    """The list, by first token, longest phrase first."""
    table: dict[str, list[_Phrase]] = {}
    for one in sorted(_load(), key=lambda one: -len(one.tokens)):
        table.setdefault(one.tokens[0], []).append(one)
    return {first: tuple(phrases) for first, phrases in table.items()}


@cache
def _load() -> tuple[_Phrase, ...]:
    phrases = []
    lines = (resources.files("k2d.text") / "data" / "phrases.txt").read_text("utf-8").splitlines()
    for line in lines:
        if not line or line.startswith("#"):
            continue
        times = 3 if line.startswith(_TIMES) else 1
        written = line.removeprefix(_TIMES).strip()
        open_tail = written.endswith("…")
        written = written.removesuffix("…")
        phrases.append(_Phrase(written, tuple(mixed_tokens(written)), open_tail, times))
    return tuple(phrases)
