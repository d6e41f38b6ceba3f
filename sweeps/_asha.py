"""Asynchronous successive halving on images seen (Li et al. 2018), decided from the study alone.

Tune's own scheduler keeps its rungs in memory: after a crash it has forgotten them, and judges a trial again at a rung
that it had passed. Here a decision follows from the values in the study: a continued sweep decides as an undisturbed
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from sweeps._search import OptunaSearcher

History = Mapping[int, float]  # images seen -> objective


def is_stopped(
    rungs: Sequence[int], reduction: int, own: History, seen: int, value: float, others: Iterable[History]
) -> bool:
    """Whether a trial that has now seen ``seen`` images with ``value`` is worse than the best 1 / ``reduction``.

    ``own`` are its values before. It is judged once at each rung, by the first value at or after it, against those that
    have come there before; the first to come goes on. Rungs are ascending.
    """
    reached = [rung for rung in rungs if rung <= seen]
    if not reached or any(step >= reached[-1] for step in own):
        return False
    there = [found for other in others if (found := value_at(other, reached[-1])) is not None]
    return bool(there) and value > float(np.percentile(there, 100 / reduction))


def value_at(history: History, rung: int) -> float | None:
    """The first value at or after a rung, None for a trial that did not come there."""
    steps = [step for step in history if step >= rung]
    return history[min(steps)] if steps else None


class Asha(FIFOScheduler):
    """``is_stopped`` as Tune asks for it."""

    def __init__(self, rungs: Sequence[int], reduction: int, searcher: OptunaSearcher) -> None:
        super().__init__()
        self.rungs, self.reduction, self.searcher = rungs, reduction, searcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial or let it go on; a result without a value, as of a failure, is not judged."""
        if "objective" not in result or result.get("done"):
            return TrialScheduler.CONTINUE
        own, others = self.searcher.histories(trial.trial_id)
        seen, value = result["images_seen"], result["objective"]
        stopped = is_stopped(self.rungs, self.reduction, own, seen, value, others)
        return TrialScheduler.STOP if stopped else TrialScheduler.CONTINUE

    def __reduce__(self) -> tuple[type, tuple[()]]:  # Tune pickles what it is given; nobody reads it
        return FIFOScheduler, ()
