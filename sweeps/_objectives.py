"""What a sweep minimises, and which of its trials no other one beats in everything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# All are minimised. The first of a sweep is always bits/dim: it decides what is stopped early, and who wins.
OBJECTIVES = {
    "bits_per_dim": "valid/bits_per_dim",
    "parameters": "train/parameters",
    "seconds": "train/seconds",
    "foreground": "valid/second_foreground_error",  # of second VQ-VAEs alone
}
FIRST = "bits_per_dim"
LABELS = {
    "bits_per_dim": "bits/dim",
    "parameters": "parameters",
    "seconds": "seconds",
    "foreground": "foreground error",
}
FORMATS = {"bits_per_dim": "{:.4f}", "parameters": "{:,.0f}", "seconds": "{:,.1f}", "foreground": "{:.4f}"}


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names of objectives, bits_per_dim first; ``ValueError`` for one that is unknown or comes twice."""
    unknown = [name for name in names if name not in OBJECTIVES]
    if unknown or len(set(names)) != len(names) or FIRST not in names:
        given = ",".join(names)
        raise ValueError(
            f"--objectives is {given!r}; allowed are different ones of {', '.join(OBJECTIVES)}, {FIRST} among them"
        )
    return (FIRST, *(name for name in names if name != FIRST))


def values_of(metrics: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """The objectives of a trial, infinite where its metrics do not have one."""
    return [metrics.get(OBJECTIVES[name], math.inf) for name in names]


def front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """The Pareto front, by its first objective: those that no other point beats or equals in all and beats in one."""
    found = [
        name
        for name, own in points.items()
        if all(math.isfinite(value) for value in own) and not any(beats(other, own) for other in points.values())
    ]
    return sorted(found, key=lambda name: (tuple(points[name]), name))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point dominates another."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
