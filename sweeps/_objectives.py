"""What a sweep minimises, and which of its trials no other one beats in everything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

# All are minimised. The first of a sweep is always bits/dim: it decides who wins.
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


def ranked(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of points, the most promising first: front after front, each in the order in which it is best covered.

    Non-dominated sorting (Deb et al. 2002) with an epsilon net (Salinas et al. 2021): of a front, first the best in the
    first objective, then each time the one that is farthest from those before it. Distances are between ranks, since
    a million parameters are nothing beside a bit; of equal ones the first counts. What is missing is the worst.
    """
    values = np.nan_to_num(np.array(points, float), nan=math.inf, posinf=math.inf, neginf=-math.inf)
    ranks = np.stack([np.searchsorted(np.sort(column), column) for column in values.T], axis=1)
    beat = np.ones((len(ranks), len(ranks)), bool)  # [i, j]: whether i dominates j
    for column in ranks.T:
        beat &= column[:, None] <= column[None]
    beat &= ~beat.T
    beaten_by, order = beat.sum(0), list[int]()
    while len(order) < len(ranks):
        on_front = np.flatnonzero(beaten_by == 0)
        beaten_by -= beat[on_front].sum(0)
        beaten_by[on_front] = -1
        order += on_front[covering(ranks[on_front])].tolist()
    return order


def covering(ranks: np.ndarray) -> list[int]:
    """Indices of a front's points (n, objectives): the best in the first objective, then always the farthest one."""
    chosen = [int(np.lexsort(ranks.T[::-1])[0])]
    distances = np.full(len(ranks), np.inf)
    while len(chosen) < len(ranks):
        distances = np.minimum(distances, np.linalg.norm(ranks - ranks[chosen[-1]], axis=1))
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one point dominates another."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
