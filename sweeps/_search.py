"""Optuna as Tune's searcher: stopped trials are told as pruned, failed as failed; the study outlives the driver."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps._asha import History
from sweeps._board import verdict
from sweeps._plan import Plan
from sweeps._space import Point, known_points, suggest
from vqvae_core.batches import mix
from vqvae_core.config import Experiment
from vqvae_core.overrides import flatten

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class TrialSpec:
    """One configuration with one seed, about to be trained."""

    number: int
    run: str  # its name in the journal: 007, or 007-seed-2 for a replicate
    point: Point
    origin: str  # who proposed it
    experiment: Experiment
    folder: Path
    parent: str  # the run it belongs to


def sampler(plan: Plan, number: int) -> optuna.samplers.BaseSampler:
    """TPE for one trial: seeded by its number, so that a continued study does not repeat its first points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group, and constant_liar in Optuna 4
        return optuna.samplers.TPESampler(
            seed=mix("tpe", plan.base.seed, number) % 2**32,
            n_startup_trials=max(5, len(plan.sweep.space) * 3),
            multivariate=True,
            group=True,
            constant_liar=True,
        )


class NotPickled:
    """Of the driver alone: Tune writes all that it is given into a file, which we never read, and this is not in it."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return NotPickled, ()


class OptunaSearcher(NotPickled, Searcher):
    """Asks the study for trials and tells it what became of them.

    Trials that a killed driver left running come first, under their own numbers and with their own checkpoints.
    """

    def __init__(self, plan: Plan, study: optuna.Study, started: Callable[[str, TrialSpec], None]) -> None:
        super().__init__(metric="objective", mode="min")
        self.plan, self.study, self.started = plan, study, started
        self._trials: dict[str, optuna.Trial] = {}
        self._told: set[str] = set()
        known = study.get_trials(deepcopy=False)
        self._left = [t.number for t in known if t.state == TrialState.RUNNING]
        self._values: dict[int, dict[int, float]] = {t.number: dict(t.intermediate_values) for t in known}
        if not known:
            for origin, point in known_points(plan.sweep).items():
                study.enqueue_trial(point, user_attrs={"origin": origin})

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune, as the plain values that its actor takes; its end is ``Searcher.FINISHED``."""
        if self._left:
            number = self._left.pop(0)
            trial = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)
        elif self.asked() >= self.plan.trials:
            return Searcher.FINISHED
        else:
            self.study.sampler = sampler(self.plan, self.asked())
            trial = self.study.ask()
        point = suggest(trial, self.plan.sweep, flatten(self.plan.base))
        spec = TrialSpec(
            number=trial.number,
            run=f"{trial.number:03d}",
            point=point,
            origin=trial.user_attrs.get("origin", "TPE"),
            experiment=self.plan.experiment(point),
            folder=self.plan.folder / "trials" / f"{trial.number:03d}",
            parent="sweep",
        )
        self._trials[trial_id] = trial
        self.started(trial_id, spec)
        return config_of(spec.experiment, spec.folder, self.plan)

    def histories(self, trial_id: str) -> tuple[History, list[History]]:
        """The values of a trial by images seen, and those of every other trial of the study."""
        number = self._trials[trial_id].number
        own = self._values.get(number, {})
        return own, [values for other, values in self._values.items() if other != number]

    def asked(self) -> int:
        """Trials that the study has begun."""
        waiting = (TrialState.WAITING,)
        return sum(t.state not in waiting for t in self.study.get_trials(deepcopy=False))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A value on the way: Optuna's pruned trials are ranked by them."""
        value = result.get("objective")
        if value is not None and math.isfinite(value):
            self._values.setdefault(self._trials[trial_id].number, {}).setdefault(int(result["images_seen"]), value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a step that is told twice after a crash is the same step
                self._trials[trial_id].report(value, int(result["images_seen"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end: complete at the full budget, pruned before it, failed when it broke."""
        trial = self._trials.get(trial_id)
        if trial is None or trial_id in self._told:
            return
        self._told.add(trial_id)
        state, reason = verdict(None if error else result, self.plan.base.train.images)
        if state == "stopped":
            return  # still running as far as the study is concerned: the next driver takes it up
        result = result or {}
        record: dict[str, Any] = {name: result[name] for name in ("images_seen", "objective") if name in result}
        record |= {"metrics": metrics_of(result), "seconds": result.get("time_total_s", 0.0), "reason": reason}
        record["state"] = state
        # First the decision, then its effects: a driver that dies between the two leaves them to the next one.
        trial.set_user_attr("record", json.dumps(record))
        if state != "failed":
            self._values.setdefault(trial.number, {}).setdefault(int(result["images_seen"]), result["objective"])
        settle(self.study, trial, record)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""


def settle(study: optuna.Study, trial: optuna.Trial, record: dict[str, Any]) -> None:
    """Tell the study of an end that was decided."""
    if record["state"] == "failed":
        study.tell(trial, state=TrialState.FAIL)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the value may be there
        trial.report(record["objective"], int(record["images_seen"]))
    if record["state"] == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, record["objective"])


def metrics_of(result: dict[str, Any]) -> dict[str, float]:
    """The metrics of a result, which Tune flattens on the way to a searcher."""
    prefix = "metrics/"
    return {name.removeprefix(prefix): value for name, value in result.items() if name.startswith(prefix)}


class FixedList(NotPickled, Searcher):
    """A list of trials, one after the other: the replicates that confirm the best."""

    def __init__(self, plan: Plan, specs: list[TrialSpec], started: Callable[[str, TrialSpec], None]) -> None:
        super().__init__(metric="objective", mode="min")
        self.plan, self.specs, self.started = plan, list(specs), started

    def suggest(self, trial_id: str) -> Any:
        """The next one."""
        if not self.specs:
            return Searcher.FINISHED
        spec = self.specs.pop(0)
        self.started(trial_id, spec)
        return config_of(spec.experiment, spec.folder, self.plan)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn from."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


def config_of(experiment: Experiment, folder: Path, plan: Plan) -> dict[str, Any]:
    """What an actor needs to train an experiment in a folder, in plain values."""
    return {
        "experiment": flatten(experiment),
        "folder": str(folder),
        "dataset": str(plan.dataset_folder),
        "fingerprint": plan.data_fingerprint,
        "keep": plan.keep,
        "group": {
            "workers": plan.workers,
            "cpus_per_worker": plan.cpus_per_worker,
            "gpus_per_worker": plan.gpus_per_worker,
            "restarts": plan.restarts,
        },
    }
