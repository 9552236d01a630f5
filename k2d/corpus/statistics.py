"""Student's t distribution, for intervals over few recordings: tail probabilities and quantiles. Without SciPy."""

import math
from typing import Final

_ROUNDS: Final = 200  # most terms of the continued fraction; it converges within a few dozen
_TINY: Final = 1e-300  # keeps denominators above 0
_LARGEST: Final = 1e4  # of the quantiles searched: a tail of 3e-5 even with one degree of freedom


def tail(t: float, degrees: int) -> float:
    """P(T > t) with `degrees` of freedom (less than 1 counts as 1).

    round(tail(1.96, 1000), 3)  # 0.025
    """
    n = max(1, degrees)
    half = 0.5 * _incomplete_beta(n / 2, 0.5, n / (n + t * t))
    return half if t >= 0 else 1 - half


def quantile(level: float, degrees: int) -> float:
    """The t with P(T > t) = 1 - `level`, by bisection.

    round(quantile(0.975, 10), 2)  # 2.23
    """
    low, high = -_LARGEST, _LARGEST
    while high - low > 1e-9 * max(1.0, abs(low)):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, degrees) > 1 - level else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by a continued fraction (Abramowitz and Stegun, 26.5.8; Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges faster for 1 - x
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            value *= d * c
        if abs(d * c - 1) < 1e-12:
            break
    return front * value / a


def _nonzero(value: float) -> float:
    """The value, or a tiny number instead of 0."""
    return value if abs(value) > _TINY else _TINY
