"""Tune without Ray: searcher and scheduler are asked and told as Tune's controller does it, in simulated time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from sweeps._trial import Result

JITTER = 0.05  # by which trials differ in speed, so that they do not report in lockstep


@dataclass
class Simulated:
    """A trial as far as schedulers and callbacks look at it."""

    trial_id: str
    results: Iterator[Result]
    pace: float  # simulated time from one report to the next
    last_result: Result = field(default_factory=dict)
    run_metadata: SimpleNamespace = field(default_factory=SimpleNamespace)


def run(
    searcher: Searcher,
    scheduler: Any,
    results_of: Callable[[dict[str, Any]], Sequence[Result]],
    concurrent: int,
    seed: int,
    callbacks: Callback | None = None,
) -> Iterator[Result]:
    """Every result of a sweep, in the order of simulated time, until the searcher has no more trials.

    As in ``TuneController``: the scheduler judges a result first, unless the trial says that it is done; the searcher
    is told ``on_trial_result`` of one that goes on, and ``on_trial_complete`` of the last. Both see a result flat,
    callbacks as it came.
    """
    told = callbacks or Callback()
    chance = random.Random(seed)
    events: list[tuple[float, int, Simulated]] = []
    count = 0

    def start(now: float) -> None:
        nonlocal count
        config = searcher.suggest(f"{count:05d}")
        if config is None or config == Searcher.FINISHED:
            return
        trial = Simulated(f"{count:05d}", iter(results_of(config)), 1 + JITTER * chance.uniform(-1, 1))
        scheduler.on_trial_add(None, trial)
        told.on_trial_start(count, [], trial)  # type: ignore[arg-type]
        heapq.heappush(events, (now + trial.pace, count, trial))
        count += 1

    for _ in range(concurrent):
        start(0.0)
    while events:
        now, number, trial = heapq.heappop(events)
        result = {**next(trial.results), "trial_id": trial.trial_id}
        flat = flatten_dict(result)
        over = result["done"] or scheduler.on_trial_result(None, trial, flat) == TrialScheduler.STOP
        result["done"] = over
        if not over:
            searcher.on_trial_result(trial.trial_id, flat)
            heapq.heappush(events, (now + trial.pace, number, trial))
        told.on_trial_result(number, [], trial, result)  # type: ignore[arg-type]
        trial.last_result = result
        if over:
            flat = flatten_dict(result)  # callbacks may have added to it
            scheduler.on_trial_complete(None, trial, flat)
            searcher.on_trial_complete(trial.trial_id, flat)
            told.on_trial_complete(number, [], trial)  # type: ignore[arg-type]
        yield result
        if over:
            start(now)
