"""Finds known hallucination phrases: subtitle credits, farewells of videos and the like.

Such phrases are fluent and not repetitive, and teacher and validator often produce the same one, so no distance shows
them (docs/method.md). The list is data/phrases.txt. A text matches when it consists of known phrases only, once or
repeated; a sentence that contains a phrase does not match. Words that join such phrases (我們, 好了: 0× in the list)
may stand among them but do not count: 我們 字幕由 Amara.org 社區提供 matches, 黑板 字幕由 Amara.org 社區提供 does not.
`credit_at_edge` finds phrases that are never spoken (subtitle credits) before or after speech, if a space or a full
stop separates them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise, product
from typing import Final

from k2d.text.reading import read, read_many

_LONGEST_NAME: Final = 6  # tokens that may follow a credit; chosen: a name, two names or an address
# Tokens of sentences that do not occur in names: "字幕志願者很辛苦" and "captions by default are off" are speech.
_NO_NAME_ZH: Final = "的是了我你他她们很都在会有帮这那不也就要说吗呢吧把被和对还没让给一下先再做完请"
_NO_NAME_EN: Final = """
a i you we he she they it my your our is are was were be do does can will would not no but so that this which
"""
_NO_NAME: Final = frozenset(_NO_NAME_ZH) | frozenset(_NO_NAME_EN.split())
_IN_A_ROW: Final = 3  # a talk may end with 謝謝大家，再見，拜拜, but not with 謝謝大家 three times
_ALTERNATIVES: Final = re.compile(r"\{([^}]*)\}")
_LINE: Final = re.compile(r"(?P<unspoken>!)? *(?:(?P<times>[0-9])×)? *(?P<written>.*?)(?P<open_tail>…)?")
# The end of a sentence or of a subtitle line, where Whisper writes a space as often as a punctuation mark.
_BREAK: Final = re.compile(r"(?<=[。！？!?\s])")
# Pieces between breaks that a credit may have; the longest are 請不吝點贊 訂閱 轉發 打賞支持…, YoYo Television Series …
_EDGE_PIECES: Final = 6


@dataclass(frozen=True, slots=True)
class _ListedPhrase:
    """One line of data/phrases.txt."""

    written: str  # as in the file
    tokens: tuple[str, ...]
    open_tail: bool  # a name may follow
    # Occurrences needed for a match. 0: does not count, but may stand among others; 1; 2: of any such phrases;
    # 3: of this phrase, in a row.
    times: int
    unspoken: bool  # nobody says it aloud, so it also counts before and after speech


@dataclass(frozen=True, slots=True)
class _Cover:
    """One way to cover the beginning of a text with listed phrases."""

    decisive: _ListedPhrase | None = None  # the phrase that needs the fewest occurrences, the first of those
    counted: int = 0  # phrases that count in any mixture
    last: _ListedPhrase | None = None
    run: int = 0  # occurrences of `last` in a row
    longest_run: int = 0

    def then(self, phrase: _ListedPhrase) -> "_Cover":
        """This cover with one more phrase."""
        if phrase.times == 0:
            return self
        run = self.run + 1 if phrase == self.last else 1
        return _Cover(
            decisive=phrase if self.decisive is None or phrase.times < self.decisive.times else self.decisive,
            counted=self.counted + (phrase.times < _IN_A_ROW),
            last=phrase,
            run=run,
            longest_run=max(run, self.longest_run),
        )

    @property
    def is_match(self) -> bool:
        """Whether the phrases occur often enough."""
        if self.decisive is None:
            return False
        if self.decisive.times < _IN_A_ROW:
            return self.counted >= self.decisive.times
        return self.longest_run >= self.decisive.times

    @property
    def strength(self) -> tuple[int, int]:
        """For choosing between covers: larger is nearer to a match."""
        return self.longest_run, self.counted


def phrase(text: str) -> str | None:
    """Return the known phrase that a text consists of (the first one, as written in the list), or None.

    phrase("字幕由 Amara.org 社區提供")  # '字幕由 Amara.org 社区提供'
    """
    return match_phrases(read(text).tokens)


def listed() -> tuple[str, ...]:
    """The phrases of which one occurrence is a match, as written in the list."""
    return tuple(entry.written for entry in _load() if entry.times == 1)


def match_phrases(tokens: Sequence[str]) -> str | None:
    """`phrase` for mixed tokens."""
    match = _match(tokens)
    return match.written if match is not None else None


def credit_line(text: str, tokens: Sequence[str] | None = None) -> str | None:
    """Return the role in a text of the form "role: name" (字幕：小明), as written in the list, or None.

    The colon shows that the text was not spoken. `tokens`: the text's mixed tokens, if the caller has them already.
    """
    role, colon, name = text.replace("：", ":").partition(":")
    if not colon or (tokens is not None and not (tokens and tokens[0] in _by_first_token())):
        return None
    if not 0 < len(read(name).tokens) <= _LONGEST_NAME:
        return None
    match = _match(read(f"{role} {role}").tokens)  # twice: a role without a name counts only beside another
    return match.written if match is not None and match.times and match.open_tail else None


def credit_at_edge(text: str, tokens: Sequence[str] | None = None) -> str | None:
    """Return an unspoken credit at the beginning or the end of a text, separated by a space or a full stop, or None.

        credit_at_edge("今天就到這裡。字幕由 Amara.org 社區提供")  # '字幕由 Amara.org 社区提供'

    None also where the credit is part of a sentence (字幕由 Amara.org 社區提供這句話 …). `tokens`: the text's mixed
    tokens, if the caller has them already.
    """
    if not may_credit(read(text).tokens if tokens is None else tokens):
        return None
    pieces = [piece for piece in _BREAK.split(text) if piece.strip()]
    head, tail = pieces[:_EDGE_PIECES], pieces[-_EDGE_PIECES:]
    readings = read_many([*head, *tail])
    split = [readings.tokens[first:end] for first, end in readings.token_ranges]
    for count in range(len(head), 0, -1):
        for edge in (split[:count], split[-count:]):
            match = _match([token for piece in edge for token in piece])
            if match is not None and match.unspoken:
                return match.written
    return None


def may_begin(first: str, second: str) -> bool:
    """Whether a text that begins with these tokens ("" for none) can consist of known phrases. A quick test."""
    starts = _starts()
    return (first, second) in starts or (first,) in starts


def may_credit(tokens: Sequence[str]) -> bool:
    """Whether a text can contain an unspoken credit. A quick test before `credit_at_edge`."""
    starts = _unspoken_starts()
    return not _first_of(starts).isdisjoint(tokens) and not starts.isdisjoint(pairwise(tokens))


def _match(tokens: Sequence[str]) -> _ListedPhrase | None:
    """The decisive phrase of a cover of all tokens by listed phrases, or None.

    Dynamic programming over prefixes of the text. For each prefix one cover is kept for every value of the decisive
    phrase's `times`: at 1 the first found, which has the longest phrases, above 1 the strongest.
    """
    if not tokens or not may_begin(tokens[0], tokens[1] if len(tokens) > 1 else ""):
        return None
    reached: dict[int, dict[int, _Cover]] = {0: {0: _Cover()}}  # by end position, by `times`
    for position in range(len(tokens)):
        if position > max(reached):
            return None
        for cover in tuple(reached.get(position, {}).values()):
            for length in _by_first_token().get(tokens[position], ()):
                end = position + length
                candidate = _by_tokens().get(tuple(tokens[position:end]))
                if candidate is not None:
                    for stop in _stops(tokens, end) if candidate.open_tail else (end,):
                        _keep(reached.setdefault(stop, {}), cover.then(candidate))
    complete = reached.get(len(tokens), {}).values()
    matches = [cover.decisive for cover in complete if cover.is_match and cover.decisive is not None]
    return min(matches, key=lambda entry: entry.times, default=None)


def _keep(covers: dict[int, _Cover], cover: _Cover) -> None:
    times = cover.decisive.times if cover.decisive is not None else 0
    if times not in covers or (times > 1 and cover.strength > covers[times].strength):
        covers[times] = cover


def _stops(tokens: Sequence[str], start: int) -> Iterator[int]:
    """The positions at which a name that begins at `start` may end, the empty name first."""
    yield start
    for end in range(start, min(start + _LONGEST_NAME, len(tokens))):
        if tokens[end] in _NO_NAME:
            return
        yield end + 1


@cache
def _by_first_token() -> dict[str, tuple[int, ...]]:
    """The lengths of the phrases that begin with each token, longest first."""
    lengths: dict[str, set[int]] = {}
    for tokens in _by_tokens():
        lengths.setdefault(tokens[0], set()).add(len(tokens))
    return {first: tuple(sorted(many, reverse=True)) for first, many in lengths.items()}


@cache
def _by_tokens() -> dict[tuple[str, ...], _ListedPhrase]:
    """The list by tokens; of lines with the same tokens the one that asks for the fewest occurrences."""
    return {entry.tokens: entry for entry in sorted(_load(), key=lambda entry: entry.times or 9, reverse=True)}


@cache
def _load() -> tuple[_ListedPhrase, ...]:
    lines = (resources.files("k2d.text") / "data" / "phrases.txt").read_text("utf-8").split("\n")
    written = dict.fromkeys(way for line in lines if line and not line.startswith("#") for way in _ways(line))
    entries = [_parts(line) for line in written]
    readings = read_many([parts["written"] for parts in entries])
    return tuple(
        _ListedPhrase(
            parts["written"],
            readings[place].tokens,
            open_tail=bool(parts["open_tail"]),
            times=int(parts["times"] or 1),
            unspoken=bool(parts["unspoken"]),
        )
        for place, parts in enumerate(entries)
    )


def _ways(line: str) -> Iterator[str]:
    """What a line with alternatives stands for: {a|b}c → ac, bc."""
    pieces = _ALTERNATIVES.split(line)
    choices = [piece.split("|") if place % 2 else [piece] for place, piece in enumerate(pieces)]
    yield from (" ".join("".join(way).split()) for way in product(*choices))


def _parts(line: str) -> re.Match[str]:
    parts = _LINE.fullmatch(line)
    assert parts is not None  # the pattern matches every line
    return parts


@cache
def _starts() -> frozenset[tuple[str, ...]]:
    """The first two tokens of every phrase (one, if it has only one), to reject most texts quickly."""
    return frozenset(entry.tokens[:2] for entry in _load())


@cache
def _first_of(pairs: frozenset[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(pair[0] for pair in pairs)


@cache
def _unspoken_starts() -> frozenset[tuple[str, ...]]:
    """The first two tokens of every unspoken phrase, to reject most texts quickly."""
    return frozenset(entry.tokens[:2] for entry in _load() if entry.unspoken)
