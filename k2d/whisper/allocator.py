"""Keeps freed memory in the process, so that a CPU engine does not map and unmap its work space for every window.

By default glibc maps each large block by itself and unmaps it when it is freed. A model's attention matrices (72 MB for
each window and layer of base) are such blocks: their page faults took a third of the CPU time of labeling
(docs/LOG.md, 2026-11-29).
"""

import ctypes
import os
from functools import cache
from typing import Final

# glibc's malloc.h: the parameter, and its value
_OPTIONS: Final = (
    (-4, 0),  # M_MMAP_MAX: no block is mapped by itself
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: the heap keeps what is freed; the largest value an int holds
    (-8, 1),  # M_ARENA_MAX: one heap for all threads; with one for each, the two above do not help
)
_SET_BY_OPERATOR: Final = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> str:
    """Tell glibc to keep freed memory; returns what was done, in words for the log.

    Does nothing where the operator has set glibc's own variables, and where the C library is another one (macOS, musl).
    """
    if any(os.environ.get(name) for name in _SET_BY_OPERATOR):
        return "as the MALLOC_ variables say"
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 — musl has a mallopt that does nothing
    except (AttributeError, OSError):
        return "as the C library does"
    done = all(mallopt(option, value) == 1 for option, value in _OPTIONS)
    return "freed memory is kept" if done else "as the C library does"
