"""Asynchronous successive halving on images seen (Li et al. 2018), decided from the study alone.

Tune's own scheduler keeps its rungs in memory: after a crash it has forgotten them, and judges a trial again at a rung
that it had passed. Here a decision follows from the values in the study: a continued sweep decides as an undisturbed
one.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps._health import Limits, unhealthy

if TYPE_CHECKING:
    from sweeps._search import OptunaSearcher


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a result, which Tune flattens on the way to its scheduler and searcher."""
    prefix = "metrics/"
    return {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}


class Rungs:
    """What every trial was worth when it came to each rung: its first value at or after so many images.

    Kept as values come in, so that a decision costs the same after a thousand trials as after ten.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = sorted(rungs)
        self._values: list[dict[int, float]] = [{} for _ in self.rungs]  # of each rung, by trial

    def note(self, trial: int, seen: int, value: float) -> None:
        """A trial's value after ``seen`` images; its values come in the order in which it had them."""
        for rung, values in zip(self.rungs, self._values, strict=True):
            if rung <= seen:
                values.setdefault(trial, value)

    def stops(self, trial: int, seen: int, value: float, reduction: int) -> bool:
        """Whether a trial that has now seen ``seen`` images is worse than the best 1 / ``reduction``.

        It is judged once at each rung, by the first value at or after it, against those that have come there before;
        the first to come goes on.
        """
        reached = [values for rung, values in zip(self.rungs, self._values, strict=True) if rung <= seen]
        if not reached or trial in reached[-1] or not reached[-1]:
            return False
        return value > float(np.percentile(list(reached[-1].values()), 100 / reduction))


class Asha(FIFOScheduler):
    """``Rungs`` and the limits of a codebook as Tune asks for them; without rungs, only the limits.

    ``stopped_for`` is where the reason of a trial is left that was stopped for its codebook.
    """

    def __init__(
        self,
        searcher: OptunaSearcher,
        reduction: int,
        limits: Limits,
        grace: int,
        stopped_for: MutableMapping[str, str],
    ) -> None:
        super().__init__()
        self.searcher, self.reduction = searcher, reduction
        self.limits, self.grace, self.stopped_for = limits, grace, stopped_for

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial or let it go on; a result without a value, as of a failure, is not judged."""
        if "objective" not in result or result.get("done"):
            return TrialScheduler.CONTINUE
        seen = result["images_seen"]
        if self.limits.prune and seen >= self.grace:
            reason = self.limits.broken(metrics_of(result))
            if reason:
                self.stopped_for[trial.trial_id] = unhealthy(reason, seen)
                return TrialScheduler.STOP
        number = self.searcher.number(trial.trial_id)
        stopped = self.searcher.rungs.stops(number, seen, result["objective"], self.reduction)
        return TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE

    def __reduce__(self) -> tuple[type, tuple[()]]:  # Tune pickles what it is given; nobody reads it
        return FIFOScheduler, ()
