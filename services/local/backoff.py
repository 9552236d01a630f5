"""How long to wait before a process that ended is started again: exponentially longer, and short again once it ran."""

from typing import Final

FIRST_S: Final = 1.0  # after one failure
MOST_S: Final = 60.0
HEALTHY_S: Final = 60.0  # a process that ran for so long starts at FIRST_S again


def failures_after(failures: int, lived_s: float) -> int:
    """The number of failures in a row, after a process that had failed `failures` times ended after `lived_s` seconds.

    failures_after(3, 0.2)  -> 4
    failures_after(3, 600)  -> 1
    """
    return 1 if lived_s >= HEALTHY_S else failures + 1


def delay_s(failures: int) -> float:
    """Seconds to wait before the next start, after `failures` in a row.

    [delay_s(n) for n in (0, 1, 2, 3, 7, 100)]  -> [0.0, 1.0, 2.0, 4.0, 60.0, 60.0]
    """
    if failures <= 0:
        return 0.0
    return min(MOST_S, FIRST_S * 2.0 ** min(failures - 1, 30))
