"""Brent's method: where the minimum is, within the tolerance, from few values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from vqvae_core.minimise import minimise

CASES: dict[str, tuple[Callable[[float], float], float]] = {
    "a parabola": (lambda x: (x - 1.25) ** 2, 1.25),
    "of fourth order": (lambda x: (x - 0.3) ** 4 + x**2, 0.0365641),
    "a kink": (lambda x: abs(x + 2.1), -2.1),
    "flat to one side": (lambda x: math.exp(-x) + math.exp(4 * (x - 3)), (12 - math.log(4)) / 5),
    "at the lower end": (lambda x: x, -4.0),
    "at the upper end": (lambda x: -math.exp(x), 5.5),
}


@pytest.mark.parametrize(("cost", "where"), CASES.values(), ids=CASES)
def test_it_is_where_the_minimum_is(cost: Callable[[float], float], where: float) -> None:
    assert minimise(cost, -4.0, 5.5, 1e-6) == pytest.approx(where, abs=5e-6)


def test_of_a_smooth_function_it_takes_few_values_and_none_twice() -> None:
    asked = []

    def cost(x: float) -> float:
        asked.append(x)
        return math.exp(-x) + math.exp(4 * (x - 3))

    minimise(cost, -4.0, 5.5, 1e-6)
    assert len(asked) == len(set(asked)) < 20  # golden section alone takes 34
    assert all(-4.0 < x < 5.5 for x in asked)
