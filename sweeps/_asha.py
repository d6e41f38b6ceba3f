"""Asynchronous successive halving on images seen (Li et al. 2018), decided from the study alone.

Where a sweep has several objectives, also what may come to be on their front goes on (MO-ASHA, Schmucker et al. 2021).

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
from sweeps._objectives import ranked

if TYPE_CHECKING:
    from sweeps._search import OptunaSearcher

LATEST = 1000  # trials beside which a place for the front is looked for, in 20 ms; beside ten times as many, 1.5 s


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a result, which Tune flattens on the way to its scheduler and searcher."""
    prefix = "metrics/"
    return {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}


class Rungs:
    """What every trial was worth when it came to each rung: its first values at or after so many images.

    Kept as values come in, so that a decision needs no look at the study.
    """

    def __init__(self, rungs: Mapping[int, int]) -> None:
        """``rungs`` gives for so many images seen the part that goes on from there: 3 for the best third, 1 for all."""
        self.rungs = dict(sorted(rungs.items()))
        self._values: dict[int, dict[int, Sequence[float]]] = {rung: {} for rung in self.rungs}  # by trial
        self._seen: dict[int, int] = {}

    def note(self, trial: int, seen: int, values: Sequence[float]) -> None:
        """A trial's objectives, bits/dim first, after ``seen`` images; they come in the order in which it had them."""
        self._seen[trial] = seen
        for rung, known in self._values.items():
            if rung <= seen:
                known.setdefault(trial, values)

    def stops(self, trial: int, seen: int, values: Sequence[float]) -> bool:
        """Whether a trial that has now seen ``seen`` images is not, or no longer, among the best.

        What counts is what it was worth at the last rung that it has passed, against all others that have come there
        by now: the first to come goes on, until there are enough that were better. Of several objectives, it goes on
        for its bits/dim or for its place on the front. What is told again after a crash is not judged again.
        """
        reached = [rung for rung in self.rungs if rung <= seen]
        if not reached or seen <= self._seen.get(trial, -1):
            return False
        reduction, known = self.rungs[reached[-1]], self._values[reached[-1]]
        own, others = known.get(trial, values), [known[number] for number in sorted(known) if number != trial]
        if not others or reduction == 1:
            return False
        worse = own[0] > float(np.percentile([other[0] for other in others], 100 / reduction))
        if not worse or len(own) == 1:
            return worse
        points = [own, *others[-LATEST:]]
        return ranked(points).index(0) >= len(points) / reduction


class Asha(FIFOScheduler):
    """``Rungs`` and the limits of a codebook as Tune asks for them; without rungs, only the limits.

    ``stopped_for`` is where the reason of a trial is left that was stopped for its codebook.
    """

    def __init__(
        self,
        searcher: OptunaSearcher,
        limits: Limits,
        grace: int,
        stopped_for: MutableMapping[str, str],
    ) -> None:
        super().__init__()
        self.searcher, self.limits, self.grace, self.stopped_for = searcher, limits, grace, stopped_for

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
        stopped = self.searcher.rungs.stops(number, seen, self.searcher.values(result))
        return TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE

    def __reduce__(self) -> tuple[type, tuple[()]]:  # Tune pickles what it is given; nobody reads it
        return FIFOScheduler, ()
