"""The Optuna study of a sweep: made once, continued by the same command, never mixed with another."""

from __future__ import annotations

import errno
import functools
import json
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import InterfaceError, OperationalError

from sweeps._objectives import LABELS
from sweeps._plan import Plan
from vqvae_core.overrides import difference, first_line

PATIENCE = 900.0  # seconds for a database that is locked or away


class PatientStorage(RDBStorage):
    """A database that may be locked or away for a while: whoever asks it waits, and training goes on meanwhile.

    Raises ``ValueError`` when it has not come back after ``PATIENCE``, ``OSError`` when its disk is full.
    """


def patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the storage, each of which is one transaction, tried until the database takes it."""

    @functools.wraps(method)
    def call(self: RDBStorage, *args: Any, **kwargs: Any) -> Any:
        began, told = time.monotonic(), False
        where = self.engine.url.render_as_string()  # without the password
        while True:
            try:
                return method(self, *args, **kwargs)
            except StorageInternalError as error:
                cause = error.__cause__
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise
                reason = str(cause.orig).splitlines()[0]
                if "is full" in reason:
                    raise OSError(errno.ENOSPC, reason, where) from None
                if time.monotonic() - began > PATIENCE:
                    raise ValueError(f"the study in {where} cannot be reached ({reason})") from None
                if not told:
                    print(f"warning: the study in {where} cannot be reached ({reason}); waiting", file=sys.stderr)
                told = True
                time.sleep(1)

    return call


for _name in (*BaseStorage.__abstractmethods__, "_create_new_trial", "_get_trials", "_set_trial_param"):
    setattr(PatientStorage, _name, patient(getattr(RDBStorage, _name)))


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """The database of all studies; several drivers may write it at once. ``ValueError`` when it cannot be opened."""
    try:
        # A short time-out, for sqlite does not look at signals while it waits; and a look whether the server still
        # knows a connection before it is used.
        sqlite = url.startswith("sqlite:")
        return PatientStorage(url, {"connect_args": {"timeout": 5}} if sqlite else {"pool_pre_ping": True})
    except Exception as error:  # a driver that is not installed, a server that is away, a folder that is not there
        reason = first_line(error)
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
    if plan.name in names and "identity" in study.user_attrs:
        check_identity(plan, study)
    else:
        study.set_user_attr("sweep.id", f"{plan.name}-{uuid.uuid4().hex[:8]}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([LABELS[name] for name in plan.objectives])  # on the axes of optuna-dashboard
        study.set_user_attr("identity", json.dumps(plan.identity()))  # last: whoever has one has the others too
    return study


def check_identity(plan: Plan, study: optuna.Study) -> None:
    """``ValueError`` with the difference when a study of the plan's name asked something else.

    Of a plan whose images are not there yet, they are not compared.
    """
    before = json.loads(study.user_attrs["identity"])
    now = json.loads(json.dumps(plan.identity()))
    if not plan.data_fingerprint:
        before["data"] = now["data"]
    if changed := difference(before, now):
        raise ValueError(
            f"the sweep {plan.name} was begun with other settings ({changed}); give --name for another sweep, "
            f"or --fresh to start over under a new name"
        )
