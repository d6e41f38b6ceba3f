"""The Optuna study of a sweep: made once, continued by the same command, never mixed with another."""

from __future__ import annotations

import json
import uuid
import warnings
from dataclasses import replace

import optuna
from optuna.study import StudyDirection

from sweeps._objectives import LABELS
from sweeps._plan import Plan
from vqvae_core.overrides import difference


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The database of all studies; several drivers may write it at once. ``ValueError`` when it cannot be opened."""
    try:
        if url.startswith("sqlite:"):
            return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        return optuna.storages.get_storage(url)
    except Exception as error:  # a driver that is not installed, a server that is away, a folder that is not there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"--storage is {url!r}, which cannot be opened ({reason})") from None


def fresh_name(plan: Plan, storage: optuna.storages.BaseStorage) -> Plan:
    """The plan under the first name that no study has: ``name-2``, ``name-3`` ..."""
    taken = {summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    name, number = plan.name, 2
    while name in taken:
        name, number = f"{plan.name}-{number}", number + 1
    return replace(plan, name=name, folder=plan.folder.with_name(name))


def open_study(plan: Plan, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The study of the plan's name, made if there is none.

    Raises ``ValueError`` with the difference when a study of that name asked something else.
    """
    names = {summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)}
    directions = [StudyDirection.MINIMIZE] * len(plan.objectives)
    study = optuna.create_study(storage=storage, study_name=plan.name, directions=directions, load_if_exists=True)
    identity = plan.identity()
    if plan.name in names and "identity" in study.user_attrs:
        changed = difference(json.loads(study.user_attrs["identity"]), json.loads(json.dumps(identity)))
        if changed:
            raise ValueError(
                f"the sweep {plan.name} was begun with other settings ({changed}); give --name for another sweep, "
                f"or --fresh to start over under a new name"
            )
    else:
        study.set_user_attr("identity", json.dumps(identity))
        study.set_user_attr("sweep.id", f"{plan.name}-{uuid.uuid4().hex[:8]}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([LABELS[name] for name in plan.objectives])  # on the axes of optuna-dashboard
    return study
