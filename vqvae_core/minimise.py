"""The minimum of a function of one number, from as few of its values as may be."""

from __future__ import annotations

import math
from collections.abc import Callable


def minimise(cost: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where a function with one minimum between two ends has it, give or take ``tolerance``.

    Brent's method (Algorithms for Minimization without Derivatives, 1973, Chapter 5): a parabola through the three best
    points where that closes in on it, golden section where it does not.
    """
    golden = (3 - math.sqrt(5)) / 2
    best = second = third = low + golden * (high - low)
    cost_best = cost_second = cost_third = cost(best)
    step = step_before = 0.0
    while True:
        middle = (low + high) / 2
        if abs(best - middle) + (high - low) / 2 <= 2 * tolerance:
            return best
        # The parabola's minimum is at best + p / q.
        r = (best - second) * (cost_best - cost_third)
        q = (best - third) * (cost_best - cost_second)
        p = (best - third) * q - (best - second) * r
        q = 2 * (q - r)
        p, q = (-p, q) if q > 0 else (p, -q)
        if abs(p) < abs(q * step_before / 2) and q * (low - best) < p < q * (high - best):
            step_before, step = step, p / q
            if min(best + step - low, high - best - step) < 2 * tolerance:
                step = math.copysign(tolerance, middle - best)
        else:
            step_before = (low if best >= middle else high) - best
            step = golden * step_before
        new = best + math.copysign(max(abs(step), tolerance), step)
        cost_new = cost(new)
        if cost_new <= cost_best:
            low, high = (low, best) if new < best else (best, high)
            third, cost_third, second, cost_second = second, cost_second, best, cost_best
            best, cost_best = new, cost_new
        else:
            low, high = (new, high) if new < best else (low, new)
            if cost_new <= cost_second or second == best:
                third, cost_third, second, cost_second = second, cost_second, new, cost_new
            elif cost_new <= cost_third or third in (best, second):
                third, cost_third = new, cost_new
