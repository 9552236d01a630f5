"""Random numbers that depend on a key alone: not on order, threads or processes."""

import numpy as np

from k2d.keys import digest


def generator(*key: int | str) -> np.random.Generator:
    """A random generator seeded by a key; equal keys give the same one on every machine (Python's hash() does not)."""
    return np.random.Generator(np.random.PCG64(int(digest(*key), 16)))


def share(*key: int | str) -> float:
    """A number in 0…1 that belongs to a key: always the same, uniform over keys."""
    return int(digest(*key)[:12], 16) / 16**12
