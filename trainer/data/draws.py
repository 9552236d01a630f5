"""Random choices that depend on what they are for and on nothing else: not on order, threads or processes."""

import numpy as np

from k2d.keys import digest


def generator(*key: int | str) -> np.random.Generator:
    """A generator that starts the same for equal keys, on every machine (Python's own hash() does not)."""
    return np.random.Generator(np.random.PCG64(int(digest(*key), 16)))


def share(*key: int | str) -> float:
    """A number in 0…1 that belongs to this key."""
    return int(digest(*key)[:12], 16) / 16**12
