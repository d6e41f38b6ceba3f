"""Sweeps as their studies and checkpoints hold them, read only: for whoever comes after the sweep."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps._board import Board, Row
from sweeps._finish import best_group
from sweeps._journal import begun
from sweeps._plan import absolute_sqlite
from sweeps._resume import STATES, row_of
from sweeps._search import history_of
from sweeps._space import LIST, TPE
from sweeps._study import open_storage
from vqvae_core.checkpoint import Checkpoint, Keeper
from vqvae_core.config import Experiment
from vqvae_core.overrides import unflatten

FIELD = re.compile(r"(data|model|train)\.")  # what a sweep's identity has of its experiment


@dataclass(frozen=True)
class Past:
    """One sweep: what it asked, and what it knows."""

    name: str
    sweep: str  # the sweep file's name
    sweep_id: str
    base: Experiment
    fingerprint: str  # of its images
    folder: Path  # where its checkpoints are
    board: Board
    begun: str  # date and time of the first trial
    study: optuna.Study
    values: dict[str, dict[int, float]]  # trial -> images seen -> valid/bits_per_dim

    @property
    def experiment_name(self) -> str:
        """The tracker's experiment."""
        return f"{self.base.data.name}/{self.sweep}"

    def row(self, run: str | None = None) -> Row:
        """A trial or a replicate by its name, else the winner; ``ValueError`` when there is none."""
        if run is None:
            best = best_group(self.board)
            if best is None:
                raise ValueError(f"no trial of the sweep {self.name} is complete: it has no winner yet")
            return best
        if run not in self.board.rows:
            raise ValueError(f"--trial is {run!r}; allowed is one of {', '.join(self.board.rows)}")
        return self.board.rows[run]

    def checkpoint(self, run: str) -> Checkpoint:
        """The checkpoint that a run was ranked by; ``ValueError`` when it is not on this machine."""
        found = Keeper(self.trial_folder(run) / "checkpoints").reported()
        if found is None:
            raise ValueError(
                f"{self.trial_folder(run)} has no whole checkpoint; --out is the folder that the sweep was given"
            )
        return found

    def trial_folder(self, run: str) -> Path:
        """Where a run's checkpoints and pictures are."""
        return self.folder / "trials" / run


def existing_storage(url: str) -> optuna.storages.BaseStorage | None:
    """The storage at a URL, None when it holds nothing yet: Optuna would make its tables there.

    Raises ``ValueError`` when it cannot be opened.
    """
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).exists():
        return None
    if not url.startswith("redis"):
        from sqlalchemy import create_engine, inspect

        try:
            engine = create_engine(url)
            try:
                if not inspect(engine).has_table("studies"):
                    return None
            finally:
                engine.dispose()
        except Exception:  # a missing driver, a server that is away: said by the next line
            pass
    return open_storage(url)


def storage_url(given: str | None) -> str:
    """The studies that a user means: the flag, else ``$VQSWEEP_STORAGE``, else the file in this folder."""
    from sweeps._settings import DEFAULT_STORAGE

    return absolute_sqlite(given or os.environ.get("VQSWEEP_STORAGE") or DEFAULT_STORAGE)


def runs_folder(given: Path | None) -> Path:
    """Where sweeps keep checkpoints: the flag, else ``$VQSWEEP_RUNS``, else ``runs``."""
    return (given or Path(os.environ.get("VQSWEEP_RUNS") or "runs")).absolute()


def find_all(url: str, runs: Path) -> list[Past]:
    """Every sweep that a storage holds, oldest first."""
    storage = existing_storage(url)
    if storage is None:
        return []
    found = []
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        if "identity" in study.user_attrs:  # else it is a study of somebody else's
            found.append(past_of(study, runs / name))
    return sorted(found, key=lambda past: (past.begun, past.name))


def find_one(name: str, url: str, runs: Path) -> Past:
    """The sweep of a name; ``ValueError`` that names those that there are."""
    storage = existing_storage(url)
    names = optuna.get_all_study_names(storage) if storage else []
    if storage is None or name not in names:
        there = ", ".join(sorted(names)) or "none"
        raise ValueError(f"there is no sweep {name!r} in {shown(url)}; there are: {there}")
    study = optuna.load_study(study_name=name, storage=storage)
    if "identity" not in study.user_attrs:
        raise ValueError(f"the study {name!r} in {shown(url)} is not one of ours")
    return past_of(study, runs / name)


def past_of(study: optuna.Study, folder: Path) -> Past:
    """A study and the folder of its checkpoints as a sweep."""
    attributes = study.user_attrs
    identity: dict[str, Any] = json.loads(attributes["identity"])
    base = base_of(identity)
    trials = study.get_trials(deepcopy=False)
    started = [trial.datetime_start for trial in trials if trial.datetime_start]
    first = min(started, default=begun(folder))  # a list of runs has no trials in the study
    return Past(
        name=study.study_name,
        sweep=identity["sweep"],
        sweep_id=attributes.get("sweep.id", ""),
        base=base,
        fingerprint=identity["data"],
        folder=folder,
        board=board_of(trials, base, folder, json.loads(attributes.get("tested", "{}"))),
        begun=first.isoformat(" ", "minutes") if first else "",
        study=study,
        values={f"{trial.number:03d}": history_of(trial) for trial in trials},
    )


def base_of(identity: dict[str, Any]) -> Experiment:
    """The experiment that a sweep's trials have in common; where its images lie is not part of it."""
    return unflatten({name: value for name, value in identity.items() if name == "seed" or FIELD.match(name)})


def board_of(trials: list[FrozenTrial], base: Experiment, folder: Path, tested: dict[str, dict[str, float]]) -> Board:
    """Trials from the study, replicates from their checkpoints."""
    board = Board(len(trials), 1)
    for trial in trials:
        if trial.state in STATES:
            row = row_of(trial, base)
        elif trial.state == TrialState.RUNNING:
            row = running_row(trial, base)
        else:
            continue
        board.rows[row.run] = row
    for path in sorted((folder / "trials").glob("*")):
        last = None if path.name in board.rows else Keeper(path / "checkpoints").reported()
        if last:
            board.rows[path.name] = row_of_checkpoint(path.name, last, board)
    for run, metrics in tested.items():
        if run in board.rows:
            board.rows[run].metrics = {**board.rows[run].metrics, **metrics}
    return board


def row_of_checkpoint(run: str, last: Checkpoint, board: Board) -> Row:
    """A run that the study does not know: the replicate of a trial, or one of a sweep that is a list of runs."""
    parent = board.rows.get(run.rpartition("-seed-")[0])
    budget = last.experiment.train.images
    return Row(
        run=run,
        origin=f"trial {parent.run}" if parent else LIST,
        point=parent.point if parent else {},
        seed=last.experiment.seed,
        parent=parent.run if parent else "sweep",
        budget=budget,
        state="complete" if last.images_seen >= budget else "running",
        images_seen=last.images_seen,
        value=last.metrics["valid/bits_per_dim"],
        metrics=last.metrics,
    )


def running_row(trial: FrozenTrial, base: Experiment) -> Row:
    """A trial that is not over, or that a killed driver left."""
    values = history_of(trial)
    seen = max(values, default=0)
    return Row(
        run=f"{trial.number:03d}",
        origin=trial.user_attrs.get("origin", TPE),
        point=dict(trial.params),
        seed=base.seed,
        parent="sweep",
        budget=base.train.images,
        state="running",
        images_seen=seen,
        value=values.get(seen, math.inf),
    )


def shown(url: str) -> str:
    """A database's URL as it may be printed: without its password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", url)
