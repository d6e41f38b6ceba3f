"""A search of a finite space proposes no point twice: its value is known already, and a trial would be lost on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from sweeps._space import Point, Sweep, suggest

MOST = 4096  # points of a space in which repeats are looked for; in a larger one they are rare
OWN, ANY = 8, 64  # proposals of the searcher, then of chance, before the space is taken for used up


def unseen(
    study: optuna.Study, sweep: Sweep, base: Mapping[str, Any], sampler: Callable[[int], optuna.samplers.BaseSampler]
) -> Point | None:
    """A point that the study does not hold yet; None where there is no need for one, or none is left.

    Args:
        study: it is read, and not changed.
        sweep: the space.
        base: the fields that a point does not change.
        sampler: what proposes, from the number of the attempt.
    """
    if points(sweep) > MOST:
        return None
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):  # a point is chosen already
        return None
    seen = [trial.params for trial in trials]
    shadow = optuna.create_study(directions=study.directions)
    shadow.add_trials(trials)
    for attempt in range(OWN + ANY):
        proposes = sampler(attempt)
        shadow.sampler = proposes if attempt < OWN else optuna.samplers.RandomSampler(attempt)
        point = suggest(shadow.ask(), sweep, base)
        if point not in seen:
            return point
    return None


def points(sweep: Sweep) -> float:
    """How many points a space has, those included in which some dimension has no meaning; infinite where it has a
    continuous dimension."""
    return math.prod(values(dimension.distribution) for dimension in sweep.space.values())


def values(distribution: BaseDistribution) -> float:
    """How many values a dimension has."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return len(choices)
        case IntDistribution(low=low, high=high, step=step):
            return (high - low) // step + 1
    return math.inf
