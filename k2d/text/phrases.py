"""Known hallucinations: fluent, not repetitive, and often shared by both models, so that no distance sees them.

The list lies in data/phrases.txt. A text is a hit when it consists of known phrases and nothing else, once or many
times over; a sentence that contains one is speech. What joins such endings (我們, 好了: 0× in the list) is a phrase too
that says nothing alone: 我們 字幕由 Amara.org 社區提供 is a hit, 黑板 字幕由 Amara.org 社區提供 is not.
`credit_at_edge` finds what nobody says aloud (a subtitle credit) before or after speech, where the writing sets it
apart. Source: docs/method.md.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise

from k2d.text.tokens import mixed_tokens

_LONGEST_NAME = 6  # tokens that may follow a credit: a name, two names, an address
# What sentences have and names do not: "字幕志願者很辛苦" and "captions by default are off" are speech.
_NO_NAME_ZH = "的是了我你他她们很都在会有帮这那不也就要说吗呢吧把被和对还没让给一下先再做完请"
_NO_NAME_EN = """
a i you we he she they it my your our is are was were be do does can will would not no but so that this which
"""
_NO_NAME = frozenset(_NO_NAME_ZH) | frozenset(_NO_NAME_EN.split())
_IN_A_ROW = 3  # 謝謝大家，再見，拜拜 is how a talk ends; 謝謝大家 three times is not
_LINE = re.compile(r"(?P<unspoken>!)? *(?:(?P<times>[0-9])×)? *(?P<written>.*?)(?P<open_tail>…)?")
# What ends a sentence, or a line of a subtitle: Whisper writes a space there as often as a mark.
_BREAK = re.compile(r"(?<=[。！？!?\s])")
_EDGE_PIECES = 6  # a credit with its spaces: 請不吝點贊 訂閱 轉發 打賞支持…, YoYo Television Series Exclusive


@dataclass(frozen=True, slots=True)
class _Phrase:
    written: str  # as in the list
    tokens: tuple[str, ...]
    open_tail: bool
    times: int  # 0: may stand among others, says nothing alone; 1; 2: of any mixture; 3: of this one, in a row
    unspoken: bool  # nobody says it aloud


@dataclass(frozen=True, slots=True)
class _Said:
    """What a prefix of a text consists of."""

    telling: _Phrase | None = None  # the one that asks for the fewest, the first of them
    counted: int = 0  # phrases that count in any mixture
    last: _Phrase | None = None
    run: int = 0  # how often `last` was said in a row
    longest_run: int = 0

    def then(self, phrase: _Phrase) -> "_Said":
        if phrase.times == 0:
            return self
        run = self.run + 1 if phrase == self.last else 1
        return _Said(
            telling=phrase if self.telling is None or phrase.times < self.telling.times else self.telling,
            counted=self.counted + (phrase.times < _IN_A_ROW),
            last=phrase,
            run=run,
            longest_run=max(run, self.longest_run),
        )

    @property
    def is_hit(self) -> bool:
        if self.telling is None:
            return False
        if self.telling.times < _IN_A_ROW:
            return self.counted >= self.telling.times
        return self.longest_run >= self.telling.times

    @property
    def worth(self) -> tuple[int, int]:
        return self.longest_run, self.counted


def phrase(text: str) -> str | None:
    """The known phrase a text consists of (the first one said, as the list writes it), or None."""
    return match_phrases(mixed_tokens(text))


def listed() -> tuple[str, ...]:
    """The phrases that count once they are said, as the list writes them."""
    return tuple(one.written for one in _load() if one.times == 1)


def match_phrases(tokens: Sequence[str]) -> str | None:
    """`phrase` for text that is already mixed tokens."""
    found = _match(tokens)
    return found.written if found is not None else None


def credit_line(text: str) -> str | None:
    """The role that a text of the form "role: name" credits, or None: nobody says a colon."""
    role, colon, name = text.replace("：", ":").partition(":")
    if not colon or not 0 < len(mixed_tokens(name)) <= _LONGEST_NAME:
        return None
    found = _match(mixed_tokens(f"{role} {role}"))  # twice, since a role without a name needs another beside it
    return found.written if found is not None and found.times and found.open_tail else None


def credit_at_edge(text: str, tokens: Sequence[str] | None = None) -> str | None:
    """A credit that nobody says aloud at the beginning or the end of a text, set apart by a space or a full stop.

    None where the text has no such credit, or runs it into a sentence (字幕由 Amara.org 社區提供這句話 …).
    `tokens` are the text's mixed tokens, where the caller has them.
    """
    if not may_credit(mixed_tokens(text) if tokens is None else tokens):
        return None
    pieces = [piece for piece in _BREAK.split(text) if piece.strip()]
    for count in range(min(_EDGE_PIECES, len(pieces)), 0, -1):
        for edge in (pieces[:count], pieces[-count:]):
            found = _match(mixed_tokens("".join(edge)))
            if found is not None and found.unspoken:
                return found.written
    return None


def may_begin(token: str) -> bool:
    """Whether some known phrase begins with a token."""
    return token in _by_first_token()


def may_credit(tokens: Sequence[str]) -> bool:
    """Whether any part of a text can be a credit at its edge; most texts need not be looked at more closely."""
    starts = _unspoken_starts()
    return not _first_of(starts).isdisjoint(tokens) and not starts.isdisjoint(pairwise(tokens))


def _match(tokens: Sequence[str]) -> _Phrase | None:
    """Cover the tokens with phrases, if they can be.

    For every prefix that phrases make up, the ways to do so are kept apart by how often the telling phrase must be
    said: of ways with a credit the first, which has the longest phrases, of others the one that is worth the most.
    """
    if tuple(tokens[:1]) not in _starts() and tuple(tokens[:2]) not in _starts():
        return None
    reached: dict[int, dict[int, _Said]] = {0: {0: _Said()}}
    for position in range(len(tokens)):
        if position > max(reached):
            return None
        for said in tuple(reached.get(position, {}).values()):
            for candidate in _by_first_token().get(tokens[position], ()):
                end = position + len(candidate.tokens)
                if tuple(tokens[position:end]) == candidate.tokens:
                    for stop in _stops(tokens, end) if candidate.open_tail else (end,):
                        _keep(reached.setdefault(stop, {}), said.then(candidate))
    hits = [said.telling for said in reached.get(len(tokens), {}).values() if said.is_hit and said.telling is not None]
    return min(hits, key=lambda one: one.times, default=None)


def _keep(ways: dict[int, _Said], said: _Said) -> None:
    times = said.telling.times if said.telling is not None else 0
    if times not in ways or (times > 1 and said.worth > ways[times].worth):
        ways[times] = said


def _stops(tokens: Sequence[str], start: int) -> Iterator[int]:
    """Where a name that begins at `start` may end, the empty name first."""
    yield start
    for end in range(start, min(start + _LONGEST_NAME, len(tokens))):
        if tokens[end] in _NO_NAME:
            return
        yield end + 1


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
        parts = _LINE.fullmatch(line)
        assert parts is not None  # the pattern takes every line
        written = parts["written"]
        times = int(parts["times"] or 1)
        tokens = tuple(mixed_tokens(written))
        phrases.append(_Phrase(written, tokens, bool(parts["open_tail"]), times, bool(parts["unspoken"])))
    return tuple(phrases)


@cache
def _starts() -> frozenset[tuple[str, ...]]:
    """The first two tokens of every phrase, and those of one token: most texts are no phrase, and begin otherwise."""
    return frozenset(one.tokens[:2] for one in _load())


@cache
def _first_of(pairs: frozenset[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(pair[0] for pair in pairs)


@cache
def _unspoken_starts() -> frozenset[tuple[str, ...]]:
    """The first two tokens of every phrase that nobody says: without such a pair there is no need to look further."""
    return frozenset(one.tokens[:2] for one in _load() if one.unspoken)
