"""How sure a mean over seeds is: Student's t, exactly, without scipy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of the mean of ``values``; None for a single value, which has none."""
    if len(values) < 2:
        return None
    return t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


@cache
def t95(freedom: int) -> float:
    """The t between whose negative and itself 95 % of Student's distribution lies; ``freedom`` >= 1."""
    low, high = 1.9, 13.0  # normal: 1.960; one degree of freedom: 12.706
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if share_within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def share_within(t: float, freedom: int) -> float:
    """P(-t < T < t) by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
