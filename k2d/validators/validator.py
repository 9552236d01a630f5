"""What a listener is, and how the likelihood of a whole text becomes that of its segments."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

from k2d.schema import Chunk, Opinion, Samples, Segment

AS_IS = "as is"  # the view of those who hear a chunk unchanged
DECIMALS = 4  # of a score


class Listener(Protocol):
    """Someone with an opinion. Calls may run concurrently.

    What it says of a chunk depends on nothing but the chunk, its audio, `key`, and, where `key` says so, on those
    before it: opinions are stored under that key and never asked for twice.
    """

    @property
    def name(self) -> str:
        """ "kind:reference", as in every record."""
        ...

    @property
    def key(self) -> tuple[Any, ...]:
        """All that can change its opinions, as JSON values and dataclasses."""
        ...

    def wants(self, chunk: Chunk, before: Sequence[Opinion]) -> bool:
        """Whether it hears this chunk at all, given the opinions before its own. Costs no model time."""
        ...

    async def hear(
        self, chunk: Chunk, samples: Samples, before: Sequence[Opinion], *, recording_id: str
    ) -> tuple[Opinion, ...]:
        """Its opinions, one for each view, in an order that never changes.

        Samples have shape (n,): exactly the label's span.

        Raises:
            ModelError: a model failed, or cannot be reached.
        """
        ...


def by_segment(values: Sequence[float], segments: Sequence[Segment]) -> tuple[float, ...]:
    """The mean over each segment's tokens, from values of the tokens of all segments' text in a row.

    A segment gets as many of the tokens as it has itself, exactly where those add up; where they do not (another
    vocabulary, tokens merged across a joint) it gets its share, at rounded places. A segment without tokens of its own
    counts a third of its UTF-8 bytes, what a Whisper token covers; one that no token falls to gets the mean of all.
    Empty where there are no tokens.
    """
    if not values:
        return ()
    weights = [len(one.tokens) or len(one.text.strip().encode("utf-8", "replace")) / 3 for one in segments]
    total = sum(weights)
    if not total:
        return ()
    cuts, reached = [0], 0.0
    for weight in weights:
        reached += weight
        cuts.append(round(reached / total * len(values)))
    whole = _mean(values)
    return tuple(_mean(values[start:end]) if end > start else whole for start, end in pairwise(cuts))


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), DECIMALS)
