"""Optuna as Tune's searcher: stopped trials are told as pruned, failed as failed; the study outlives the driver."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from sweeps._asha import Rungs, metrics_of
from sweeps._board import verdict
from sweeps._cache import Found
from sweeps._even import STARTUP, Evenly
from sweeps._objectives import FIRST, OBJECTIVES, values_of
from sweeps._plan import Plan
from sweeps._space import EVEN, TPE, Point, known_points, suggest
from sweeps._tpe import Tpe
from sweeps._unseen import unseen
from vqvae_core.batches import mix
from vqvae_core.config import Experiment
from vqvae_core.overrides import flatten

optuna.logging.set_verbosity(optuna.logging.WARNING)

ON_THE_WAY = "values at "  # the user attributes that hold a trial's objectives on the way where there are several


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


def sampler(plan: Plan, number: int, ended: int, attempt: int = 0) -> optuna.samplers.BaseSampler:
    """What proposes one trial, with so many ended before it: points spread evenly, then TPE.

    Seeded by its number, so that a continued study does not repeat its first points, and by how often it was asked for
    one that is new. Each dimension by itself, which also suits conditional spaces; taken together they were no better
    in ``benchmarks.search_quality``.
    """
    again = (attempt,) if attempt else ()
    if ended < STARTUP:
        seed = mix("again", plan.base.seed, attempt) % 2**32 if again else plan.base.seed
        return Evenly(list(plan.sweep.space), seed, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of Optuna 4
        return Tpe(
            seed=mix("tpe", plan.base.seed, number, *again) % 2**32,
            n_startup_trials=STARTUP,
            multivariate=False,
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

    def __init__(
        self,
        plan: Plan,
        study: optuna.Study,
        started: Callable[[str, TrialSpec], None],
        taken: Callable[[TrialSpec], Found | None] = lambda spec: None,
    ) -> None:
        """``taken`` gives the run that stands for a trial and makes its training needless, if there is one."""
        super().__init__(metric="objective", mode="min")
        self.plan, self.study, self.started, self.taken = plan, study, started, taken
        self._trials: dict[str, optuna.Trial] = {}
        self._told: set[str] = set()
        known = study.get_trials(deepcopy=False)
        self._left = [t.number for t in known if t.state == TrialState.RUNNING]
        self._asked = sum(t.state != TrialState.WAITING for t in known)
        self.rungs = Rungs(plan.rungs)
        for t in known:
            for seen, values in sorted(on_the_way(t).items()):
                self.rungs.note(t.number, seen, values)
        begun = {t.user_attrs.get("origin") for t in known}
        for origin, point in known_points(plan.sweep, flatten(plan.base)).items():
            if origin not in begun:  # a driver may have been killed between two of them
                study.enqueue_trial(point, user_attrs={"origin": origin})

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune, as the plain values that its actor takes; its end is ``Searcher.FINISHED``.

        Trials that need no training are told to the study on the way, and Tune never hears of them.
        """
        while (trial := self._next()) is not None:
            if isinstance(self.study.sampler, Evenly) and "origin" not in trial.user_attrs:
                trial.set_user_attr("origin", EVEN)
            point = suggest(trial, self.plan.sweep, flatten(self.plan.base))
            spec = TrialSpec(
                number=trial.number,
                run=f"{trial.number:03d}",
                point=point,
                origin=trial.user_attrs.get("origin", TPE),
                experiment=self.plan.experiment(point),
                folder=self.plan.folder / "trials" / f"{trial.number:03d}",
                parent="sweep",
            )
            if found := self.taken(spec):
                self._take(trial, found)
                continue
            self._trials[trial_id] = trial
            self.started(trial_id, spec)
            return config_of(spec.experiment, spec.folder, self.plan)
        return Searcher.FINISHED

    def _next(self) -> optuna.Trial | None:
        """A trial that was left running, else a new one, as long as there is any to come."""
        number = self._left[0] if self._left else self._asked
        ended = len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
        proposes = partial(sampler, self.plan, number, ended)
        self.study.sampler = proposes()
        if self._left:  # the last driver may not have got to its point
            return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[self._left.pop(0)]._trial_id)
        if self._asked >= self.plan.trials:
            return None
        self._asked += 1
        point = unseen(self.study, self.plan.sweep, flatten(self.plan.base), proposes)
        if point is not None:
            self.study.enqueue_trial(point)
        return self.study.ask()

    def _take(self, trial: optuna.Trial, found: Found) -> None:
        """Tell the study of a trial what another run was worth."""
        for seen, metrics in found.reports:
            values = values_of(metrics, self.plan.objectives)
            if math.isfinite(values[0]):
                self.rungs.note(trial.number, seen, values)
                note(self.study, trial, seen, values)
        seen, metrics = found.reports[-1]
        result = {"images_seen": seen, "objective": metrics[OBJECTIVES[FIRST]], "time_total_s": 0.0}
        self._settle(trial, result, metrics, "complete", taken_reason(found), found.origin)

    def number(self, trial_id: str) -> int:
        """The study's number of a trial that Tune knows by its own name."""
        return self._trials[trial_id].number

    def values(self, result: Mapping[str, Any]) -> list[float]:
        """The objectives of a result of Tune's, bits/dim first."""
        return [result["objective"], *values_of(metrics_of(result), self.plan.objectives)[1:]]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A value on the way: Optuna's pruned trials are ranked by them."""
        value = result.get("objective")
        if value is None or not math.isfinite(value):
            return
        trial, seen = self._trials[trial_id], int(result["images_seen"])
        values = self.values(result)
        self.rungs.note(trial.number, seen, values)
        note(self.study, trial, seen, values)

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
        self._settle(trial, result, metrics_of(result), state, reason)

    def _settle(
        self,
        trial: optuna.Trial,
        result: Mapping[str, Any],
        metrics: dict[str, float],
        state: str,
        reason: str,
        taken: str = "",
    ) -> None:
        record: dict[str, Any] = {name: result[name] for name in ("images_seen", "objective") if name in result}
        limits = self.plan.limits
        record |= {"metrics": metrics, "seconds": result.get("time_total_s", 0.0), "reason": reason, "state": state}
        record |= {"taken": taken} if taken else {}
        record |= {"unhealthy": limits.broken(metrics), "constraints": limits.excess(metrics)}
        if state != "failed":
            record["values"] = [result["objective"], *values_of(metrics, self.plan.objectives)[1:]]
            self.rungs.note(trial.number, int(result["images_seen"]), record["values"])
        # First the decision, then its effects: a driver that dies between the two leaves them to the next one.
        trial.set_user_attr("record", json.dumps(record))
        settle(self.study, trial, record)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""


def taken_reason(found: Found) -> str:
    """Why a trial is complete that was not trained."""
    return f"taken from {found.origin}, trained on all {found.reports[-1][0]:,} images"


def history_of(trial: FrozenTrial) -> dict[int, float]:
    """The first objective of a trial of a study by images seen."""
    return {seen: values[0] for seen, values in on_the_way(trial).items()}


def on_the_way(trial: FrozenTrial) -> dict[int, list[float]]:
    """The objectives of a trial of a study by images seen."""
    noted = {
        int(name.removeprefix(ON_THE_WAY)): json.loads(values)
        for name, values in trial.user_attrs.items()
        if name.startswith(ON_THE_WAY)
    }
    return noted or {seen: [value] for seen, value in trial.intermediate_values.items()}


def note(study: optuna.Study, trial: optuna.Trial, seen: int, values: Sequence[float]) -> None:
    """Tell the study the objectives of a trial on the way."""
    if len(study.directions) > 1:  # of several objectives, Optuna takes none
        trial.set_user_attr(f"{ON_THE_WAY}{seen}", json.dumps(list(values)))  # which may be infinite
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a step that is told twice after a crash is the same step
        trial.report(values[0], seen)


def settle(study: optuna.Study, trial: optuna.Trial, record: dict[str, Any]) -> None:
    """Tell the study of an end that was decided."""
    if record["state"] == "failed":
        study.tell(trial, state=TrialState.FAIL)
        return
    for name, excess in record["constraints"].items():
        trial.set_constraint(name, excess)
    if record["unhealthy"]:
        trial.set_user_attr("codebook", record["unhealthy"])  # for the eyes of whoever opens the dashboard
    note(study, trial, int(record["images_seen"]), record["values"])
    if record["state"] == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, record["values"])


class FixedList(NotPickled, Searcher):
    """A list of trials, one after the other: the replicates that confirm the best."""

    def __init__(
        self,
        plan: Plan,
        specs: list[TrialSpec],
        started: Callable[[str, TrialSpec], None],
        taken: Callable[[TrialSpec], Found | None] = lambda spec: None,
    ) -> None:
        super().__init__(metric="objective", mode="min")
        self.plan, self.specs, self.started, self.taken = plan, list(specs), started, taken

    def suggest(self, trial_id: str) -> Any:
        """The next one that needs training."""
        while self.specs:
            spec = self.specs.pop(0)
            if not self.taken(spec):
                self.started(trial_id, spec)
                return config_of(spec.experiment, spec.folder, self.plan)
        return Searcher.FINISHED

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
