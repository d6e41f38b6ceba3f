"""What a sweep's figures say: ranges that outliers do not spoil, the Pareto front, and what mattered."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis._sweep import Dimension, Sweep, Trial, as_number

LEAST = 8  # trials from which it can be said what mattered
SHUFFLES = 200  # of the objective, to see what chance alone would give
TRIALS = 2000  # that importance is judged on; more of them change no digit that is shown


def robust_range(values: Sequence[float]) -> tuple[float, float]:
    """The range that is worth drawing: outliers far above, as of trials that went wrong, are beyond it."""
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return 0.0, 1.0
    low, high = known[0], known[-1]
    if len(known) >= 4:
        quarter, _, three = statistics.quantiles(known, n=4, method="inclusive")
        # The last value before the box plot's outer fence, on the side where trials go wrong.
        high = max(value for value in known if value <= three + 3 * (three - quarter))
    if high <= low:
        return low - abs(low) * 0.05 - 1e-6, low + abs(low) * 0.05 + 1e-6
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def pareto(points: Sequence[Sequence[float]]) -> list[int]:
    """Which points no other one beats: nowhere worse and somewhere better, less being better. NaN is the worst."""
    clean = [[value if not math.isnan(value) else math.inf for value in point] for point in points]
    order = sorted(range(len(clean)), key=lambda i: clean[i])
    front: list[int] = []
    for i in order:  # whoever beats a point comes before it
        mine = clean[i]
        if not any(
            all(a <= b for a, b in zip(clean[j], mine, strict=True)) and list(clean[j]) != list(mine) for j in front
        ):
            front.append(i)
    return front


@dataclass(frozen=True)
class Importance:
    """How much of the differences between trials one dimension explains, alone."""

    dimension: Dimension
    share: float  # of the variance of the objective's ranks, predicted for trials left out; 0 = none
    chance: float  # what 95 % of shuffled objectives stay under


@dataclass(frozen=True)
class Comparison:
    """Every dimension's importance, and on what it was judged."""

    images: int  # seen, when the trials were compared
    trials: int
    parts: tuple[Importance, ...]  # most important first


def common_budget(sweep: Sweep) -> tuple[int, list[tuple[Trial, float]]]:
    """The most images that nine of ten trials with a curve have seen, and the objective of each of those there.

    Trials that were stopped early are part of the evidence, but only at a budget that they share with the others.
    """
    curves = [trial for trial in sweep.own if trial.curve]
    if not curves:
        return 0, []
    ends = sorted((trial.curve[-1][0] for trial in curves), reverse=True)
    budget = ends[max(0, math.ceil(0.9 * len(ends)) - 1)]
    found = [(trial, [value for step, value in trial.curve if step <= budget]) for trial in curves]
    return budget, [(trial, values[-1]) for trial, values in found if values and trial.curve[-1][0] >= budget]


def importance(sweep: Sweep) -> Comparison | None:
    """What mattered; None when there are too few trials to tell.

    For each dimension: each trial's rank is predicted from its nearest neighbours in that dimension alone, itself left
    out (for choices, from the others with the same choice), and the share of the variance that this explains is
    counted. Unlike measures that share out 100 % among the dimensions, it is 0 where nothing can be said. It sees no
    effect that two dimensions have only together.
    """
    budget, found = common_budget(sweep)
    found = found[:: max(1, -(-len(found) // TRIALS))]
    if len(found) < LEAST:
        return None
    ranks = ranked([value for _, value in found])
    parts = []
    shuffled = np.random.default_rng(0).permuted(np.tile(ranks, (SHUFFLES, 1)), axis=1)
    for dimension in sweep.dimensions:
        groups = neighbours(dimension, [trial.point.get(dimension.name) for trial, _ in found])
        if groups is None:
            continue
        null = np.sort(explained(groups, shuffled))
        share = float(explained(groups, [ranks])[0])
        parts.append(Importance(dimension, max(0.0, share), max(0.0, float(null[int(0.95 * SHUFFLES)]))))
    parts.sort(key=lambda part: -part.share)
    return Comparison(budget, len(found), tuple(parts))


def ranked(values: Sequence[float]) -> list[float]:
    """Ranks from 0 to 1, equal values sharing theirs: a trial that went wrong counts as last, not as far away."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for i in order[start : end + 1]:
            ranks[i] = (start + end) / 2 / (len(order) - 1)
        start = end + 1
    return ranks


@dataclass(frozen=True)
class Neighbours:
    """For each trial, in the order of a dimension, the stretch of trials that predicts it."""

    order: list[int]  # trials by their value
    stretch: list[tuple[int, int]]  # [from, to) in that order, itself included


def neighbours(dimension: Dimension, values: Sequence[str | None]) -> Neighbours | None:
    """Who predicts whom in one dimension; None when it does not vary. Where it has no meaning is a value of its own."""
    if dimension.kind == "choice":
        keys: list[tuple[int, float]] = [(0, float(option(dimension, value))) for value in values]
    else:
        numbers = [as_number(value) if value is not None else None for value in values]
        keys = [(1, 0.0) if number is None else (0, number) for number in numbers]
    if len(set(keys)) < 2:
        return None
    order = sorted(range(len(keys)), key=lambda i: keys[i])
    if dimension.kind == "choice":
        return Neighbours(order, equal_stretches([keys[i] for i in order]))
    width = max(2, round(math.sqrt(len(order)) / 2))
    last = len(order)
    stretch = [(max(0, place - width), min(last, place + width + 1)) for place in range(last)]
    return Neighbours(order, stretch)


def option(dimension: Dimension, value: str | None) -> int:
    """The place of an option in its dimension's list."""
    return dimension.options.index(value) if value in dimension.options else -1


def equal_stretches(keys: Sequence[object]) -> list[tuple[int, int]]:
    """For each place of a sorted list the stretch of those equal to it."""
    stretches: list[tuple[int, int]] = []
    start = 0
    while start < len(keys):
        end = start
        while end < len(keys) and keys[end] == keys[start]:
            end += 1
        stretches += [(start, end)] * (end - start)
        start = end
    return stretches


def explained(groups: Neighbours, ranks: ArrayLike) -> NDArray[np.float64]:
    """1 - squared error of the left-out predictions / that of the left-out mean; below 0 is worse than the mean.

    For each row of ``ranks`` (S, N), one for each of N trials: (S,).
    """
    own = np.asarray(ranks, np.float64)[:, groups.order]
    sums = np.pad(own.cumsum(1), ((0, 0), (1, 0)))
    start, end = np.array(groups.stretch).T
    others = end - start - 1
    mean = (sums[:, -1:] - own) / (own.shape[1] - 1)
    guess = np.where(others > 0, (sums[:, end] - sums[:, start] - own) / np.maximum(others, 1), mean)
    error, base = ((own - guess) ** 2).sum(1), ((own - mean) ** 2).sum(1)
    return np.where(base > 0, 1 - error / np.where(base > 0, base, 1), 0.0)
