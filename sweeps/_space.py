"""What a sweep asks, as data: dimensions, points known to be good, and settings that follow from others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps._health import NO_LIMITS, Limits
from sweeps._objectives import FIRST, checked

Point = dict[str, Any]  # dotted field -> value

EVEN, TPE, LIST = SAMPLED = ("spread evenly", "TPE", "the list")  # origins of points that are nobody's known ones

# Tried before anything is sampled, as far as a sweep has their dimensions.
KNOWN_POINTS: dict[str, Point] = {
    "the report": {
        "model.beta": 1.0,
        "train.lr": 3e-4,
        "train.batch_size": 32,
        "model.num_codes": 512,
        "model.code_dim": 256,
        "model.codes_per_position": 1,
        "model.quantizer": "gradient",
        "model.codebook_init": "uniform",
    },
    "the original paper": {
        "model.beta": 0.25,
        "train.lr": 2e-4,
        "train.batch_size": 128,
        "model.num_codes": 512,
        "model.code_dim": 64,
        "model.codes_per_position": 10,
        "model.quantizer": "gradient",
        "model.codebook_init": "uniform",
    },
}


@dataclass(frozen=True)
class Dimension:
    """One thing that a sweep varies, and when it has a meaning at all."""

    distribution: BaseDistribution
    only_if: tuple[str, tuple[Any, ...]] | None = None  # another field and the values under which this one counts


def uniform(low: float, high: float) -> Dimension:
    """A number between two others."""
    return Dimension(FloatDistribution(low, high))


def log_uniform(low: float, high: float) -> Dimension:
    """A number between two others, each factor equally likely."""
    return Dimension(FloatDistribution(low, high, log=True))


def integer(low: int, high: int, step: int = 1) -> Dimension:
    """A whole number between two others, both included."""
    return Dimension(IntDistribution(low, high, step=step))


def choice(*options: Any) -> Dimension:
    """One of a few values."""
    return Dimension(CategoricalDistribution(options))


def only_if(name: str, values: Sequence[Any], dimension: Dimension) -> Dimension:
    """A dimension that is varied only where another field has one of some values."""
    return Dimension(dimension.distribution, (name, tuple(values)))


@dataclass(frozen=True)
class Sweep:
    """One question: which fields are varied, over what, and from which preset."""

    name: str
    question: str
    space: Mapping[str, Dimension]
    model: str = "vqvae"
    base: Point = field(default_factory=dict)  # what differs from the preset in every trial
    known: Mapping[str, Point] = field(default_factory=lambda: KNOWN_POINTS)
    derive: Callable[[Point], Point] | None = None  # sampled point -> dotted fields of the experiment
    fixed: Mapping[str, Point] = field(default_factory=dict)  # runs by name, all trained and tested: no search
    objectives: Sequence[str] = (FIRST,)  # what is minimised; more than one gives a Pareto front
    limits: Limits = NO_LIMITS  # what the codebook must keep to

    def __post_init__(self) -> None:
        checked(self.objectives)
        names = list(self.space)
        for place, (name, dimension) in enumerate(self.space.items()):
            if not dimension.only_if:
                continue
            other, values = dimension.only_if
            if other in names[place:]:
                raise ValueError(f"{name} is varied only if {other} has some value; {other} must come before it")
            options = self.space[other].distribution if other in self.space else None
            if options and not any(contains(options, value) for value in values):
                text = " or ".join(map(str, values))
                raise ValueError(
                    f"{name} is varied only if {other} is {text}, which {describe(self.space[other])} never is"
                )


def counts(sweep: Sweep, name: str, point: Point, base: Mapping[str, Any]) -> bool:
    """Whether a dimension has a meaning beside the dimensions before it; ``base`` are the fields that are not swept."""
    condition = sweep.space[name].only_if
    if condition is None:
        return True
    other, values = condition
    if other in sweep.space:  # one that has no meaning itself gives none to others
        return other in point and point[other] in values
    return base.get(other) in values


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is one that a distribution could give."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


def suggest(trial: optuna.Trial, sweep: Sweep, base: Mapping[str, Any]) -> Point:
    """Let Optuna choose a point; ``base`` are the fields that the point does not change."""
    point: Point = {}
    for name, dimension in sweep.space.items():
        if not counts(sweep, name, point, base):
            continue
        match dimension.distribution:
            case FloatDistribution(low=low, high=high, log=log):
                point[name] = trial.suggest_float(name, low, high, log=log)
            case IntDistribution(low=low, high=high, step=step):
                point[name] = trial.suggest_int(name, low, high, step=step)
            case CategoricalDistribution(choices=choices):
                point[name] = trial.suggest_categorical(name, choices)
    return point


def fields_of(sweep: Sweep, point: Point) -> Point:
    """The dotted fields of the experiment that a point sets."""
    return sweep.derive(point) if sweep.derive else dict(point)


def known_points(sweep: Sweep, base: Mapping[str, Any] | None = None) -> dict[str, Point]:
    """The known points as far as the sweep has their dimensions and these have a meaning; each once.

    One that lies outside of the space is not tried: whoever drew the space did not mean it.
    """
    found: dict[str, Point] = {}
    for origin, point in sweep.known.items():
        own: Point = {}
        for name in sweep.space:
            if name in point and counts(sweep, name, own, base or {}):
                own[name] = point[name]
        inside = all(contains(sweep.space[name].distribution, value) for name, value in own.items())
        if own and inside and own not in found.values():
            found[origin] = own
    return found


def describe(dimension: Dimension) -> str:
    """``0.05 .. 5 (log)`` or ``64 | 128 | 256``."""
    match dimension.distribution:
        case CategoricalDistribution(choices=choices):
            text = " | ".join(str(value) for value in choices)
        case FloatDistribution(low=low, high=high, log=log):
            text = f"{low:g} .. {high:g}" + (" (log)" if log else "")
        case IntDistribution(low=low, high=high, step=step):
            text = f"{low} .. {high}" + (f" by {step}" if step != 1 else "")
        case other:
            text = str(other)
    if dimension.only_if:
        text += f", if {dimension.only_if[0]} is {' or '.join(map(str, dimension.only_if[1]))}"
    return text
