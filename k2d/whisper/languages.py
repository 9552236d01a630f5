"""What language detection says about one window."""

from collections.abc import Mapping
from dataclasses import dataclass

from k2d.whisper.fallback import DECIMALS

KEPT = 5  # most likely languages that a record keeps; the rest carries no news


@dataclass(frozen=True, slots=True)
class Detected:
    """A window's language as prompted; `probs`, highest first, when it was detected."""

    code: str
    probs: tuple[tuple[str, float], ...]


def detected(probabilities: Mapping[str, float]) -> Detected:
    """The most likely language; of equals the first by name, so that the choice never depends on an order."""
    ranked = sorted(
        ((code, round(p, DECIMALS)) for code, p in probabilities.items()), key=lambda pair: (-pair[1], pair[0])
    )
    return Detected(ranked[0][0], tuple(ranked[:KEPT]))
