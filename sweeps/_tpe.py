"""TPE whose choice costs the same after ten thousand trials as after five hundred.

Optuna's looks at every trial for every dimension. It tells the best 25 at most from all others, and gives an old one
of these the less weight the more there are; what is left out here had next to none.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

BEST, LATEST = 50, 450  # ended trials that are looked at; TPE's good ones are the best 25 of more than 250


class Tpe(optuna.samplers.TPESampler):
    """``TPESampler`` for one trial of a study with one objective, or with few trials: it looks once."""

    _seen: optuna.Study | None = None

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._seen is None:
            self._seen = seen_of(study)
            for name, distribution in trial.distributions.items():  # of a driver that died between two: drawn again,
                super().sample_independent(self._seen, trial, name, distribution)  # so that the rest is the same
        return super().sample_independent(self._seen, trial, param_name, param_distribution)


def seen_of(study: optuna.Study) -> Any:
    """The study, or of a long one a view with the trials that count."""
    trials = study.get_trials(deepcopy=False)
    if len(study.directions) > 1 or len(trials) <= BEST + LATEST:
        return study
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    kept = {trial.number for trial in [*sorted(ended, key=_merit)[:BEST], *ended[-LATEST:]]}
    return View(study, [t for t in trials if t.number in kept or t.state == TrialState.RUNNING])


def _merit(trial: FrozenTrial) -> tuple[bool, bool, float]:
    """As TPE ranks them: those that keep to a codebook's limits, complete ones, the least value."""
    value = trial.value if trial.state == TrialState.COMPLETE else None
    return "codebook" in trial.user_attrs, value is None, math.inf if value is None else value


class View:
    """A study with some of its trials, as far as TPE asks."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self._study, self._trials = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]
