"""Tune at work: trials from a searcher, on the plan's resources, until they are done or the user says stop."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sweeps._asha import Asha
from sweeps._budget import Meter
from sweeps._cluster import connect
from sweeps._events import INTERRUPTED, SPENT, Events
from sweeps._group import trial_of_workers
from sweeps._plan import Plan
from sweeps._search import NotPickled, OptunaSearcher
from sweeps._trial import TrialActor


class StopFlag(NotPickled, tune.Stopper):
    """Raised by Ctrl-C, SIGTERM, a full disk or a spent budget: the trials save where they are, and then Tune ends."""

    patience = 60.0  # seconds for all trials to save

    def __init__(self, sweep_folder: Path, meter: Meter | None = None) -> None:
        self.raised = threading.Event()
        self.meter = meter or Meter(sweep_folder, None, 0, lambda: 0)
        self.reason, self.status = "", INTERRUPTED  # what else than a user's wish raised it, and the exit status
        self.file = sweep_folder / "stop"
        self.file.unlink(missing_ok=True)
        self.saved: Callable[[], bool] = lambda: True
        self._since: float | None = None

    def ask(self, reason: str = "", status: int = INTERRUPTED) -> None:
        """Raise it; the first reason counts."""
        if not self.raised.is_set():
            self.reason, self.status = reason, status
            self.raised.set()

    def ask_if_spent(self) -> None:
        """Raise it when the budget is used up."""
        if self.meter.spent:
            self.ask(self.meter.reason, SPENT)

    @property
    def cause(self) -> str:
        """Why the trials stopped, in a sentence's beginning."""
        return self.reason if self.status == SPENT else "the sweep was stopped"

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """What Tune asks all the time: whether to end now."""
        self.meter.tick()
        self.ask_if_spent()
        if not self.raised.is_set():
            return False
        if self._since is None:
            self._since = time.monotonic()
            try:
                self.file.touch()
            except OSError:  # a full disk: the trials will find out by themselves, or lose what came since they saved
                return True
        return self.saved() or time.monotonic() - self._since > self.patience


def scheduler(plan: Plan, searcher: OptunaSearcher, events: Events) -> TrialScheduler:
    """What stops trials early: ASHA at the plan's rungs, if it has any, and the limits of a codebook."""
    return Asha(searcher, plan.limits, plan.grace, events.stopped_for)


def execute(
    plan: Plan, searcher: Searcher, count: int, scheduler: TrialScheduler, events: Events, stop: StopFlag
) -> None:
    """Run up to ``count`` trials; returns when all are over or the flag was raised."""
    connect(plan.cluster, with_groups=plan.workers > 1)
    if plan.workers == 1:
        resources = {"CPU": plan.cpus_per_worker, "GPU": plan.gpus_per_worker}
        trainable = tune.with_resources(TrialActor, resources)
    else:
        # The workers take the CPUs; a trial that held one for itself could starve them for ever.
        trainable = tune.with_resources(trial_of_workers, {"memory": 1e6})
    storage = plan.folder / "tune"
    stop.saved = events.all_interrupted
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=count,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=plan.concurrent,
            reuse_actors=plan.workers == 1,
        ),
        run_config=tune.RunConfig(
            name=str(time.time_ns()),
            storage_path=str(storage),
            callbacks=[events],
            stop=stop,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=plan.restarts),
        ),
    )
    try:
        tuner.fit()
    finally:
        stop.meter.rest()
        events.close()
        for left in (storage, plan.folder / "train"):  # ours are the journal, the study and the checkpoints
            shutil.rmtree(left, ignore_errors=True)
