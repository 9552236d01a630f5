"""The tokens of a chunk's label with their phonemes, and the times at which they are probably said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from k2d.filtering.distance import located
from k2d.text.reading import read_many
from k2d.text.sounds import decode


class TimedText(Protocol):
    """A segment of a label."""

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SpokenToken:
    """One mixed token of a label."""

    text: str  # as written, with what follows it
    phonemes: tuple[str, ...]  # empty inside numbers of several words
    start_s: float  # interpolated within its segment by phonemes; seconds in the recording
    segment: int  # its number in the chunk


def spoken_tokens(text: str, segments: Sequence[TimedText]) -> tuple[SpokenToken, ...]:
    """Return the tokens of a label in order.

        spoken_tokens(chunk.text, chunk.segments)[0].start_s == chunk.segments[0].start_s

    No time of a token is stored. Within a segment, whose times the teacher gave, phonemes are taken to be equally long;
    silence at its ends is not known of, so a token is found within some tenths of a second in fluent speech.
    """
    readings = read_many([text])
    tokens = readings[0].tokens
    sounds = readings.sounds[: len(tokens)]
    places = located(text, tokens)
    owners = _owners(text, segments, places.offsets[: len(tokens)])
    spoken: list[SpokenToken] = []
    for number, segment in enumerate(segments):
        mine = [token for token, owner in enumerate(owners) if owner == number]
        weights = [len(sounds[token]) for token in mine]
        total, before = max(1, sum(weights)), 0
        for token, weight in zip(mine, weights, strict=True):
            start_s = segment.start_s + (segment.end_s - segment.start_s) * before / total
            spoken.append(
                SpokenToken(places.text_of(token, token + 1), decode(sounds[token]), round(start_s, 3), number)
            )
            before += weight
    return tuple(spoken)


def _owners(text: str, segments: Sequence[TimedText], offsets: Sequence[int]) -> list[int]:
    """The segment of each token, by the offset at which it begins: segments' texts follow one another in the label."""
    starts, done = [], 0
    for segment in segments:
        written = segment.text.strip()
        at = text.find(written, done)
        starts.append(done if at < 0 else at)
        done = starts[-1] if at < 0 else at + len(written)
    return [max(0, sum(start <= offset for start in starts) - 1) for offset in offsets]
