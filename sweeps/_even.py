"""The first points of a search, spread evenly over its space: a Sobol sequence (Sobol 1967, scrambled as Owen 1998).

Independent random points lie in heaps and leave holes; of these, few as they are, every part of each dimension has its
share, and so has, as far as may be, every part of each two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from torch.quasirandom import SobolEngine

from vqvae_core.batches import mix

STARTUP = 16  # trials that have ended before the searcher looks at any; as many points of a Sobol sequence are balanced


class Evenly(optuna.samplers.RandomSampler):
    """The point of one trial: a function of the seed and of its number alone, whatever else there is in the study."""

    def __init__(self, names: Sequence[str], seed: int, number: int) -> None:
        """``names`` are all dimensions of the space, in order, also those that have no meaning in some trials."""
        super().__init__(seed)
        self._coordinates = dict(zip(names, coordinates(len(names), seed, number), strict=True))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return value_at(param_distribution, self._coordinates[param_name])


def coordinates(dimensions: int, seed: int, number: int) -> list[float]:
    """The ``number``-th point of a sequence in the unit cube, each coordinate in [0, 1)."""
    if not dimensions:
        return []
    engine = SobolEngine(dimensions, scramble=True, seed=mix("even", seed) % 2**32)
    found: list[float] = engine.fast_forward(number).draw(1, dtype=torch.float64)[0].tolist()
    return found


def value_at(distribution: BaseDistribution, share: float) -> Any:
    """The value below which such a share of a distribution lies."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[int(share * len(choices))]
        case IntDistribution(low=low, high=high, step=step, log=False):
            return low + step * int(share * ((high - low) // step + 1))
        case FloatDistribution(low=low, high=high, log=True):
            return min(high, low * math.exp(share * math.log(high / low)))
        case FloatDistribution(low=low, high=high, step=None):
            return min(high, low + share * (high - low))
    raise TypeError(f"no even points are known for {distribution}")
