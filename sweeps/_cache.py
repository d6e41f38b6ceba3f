"""Trials that need no training: a run of the same configuration, seed, data and code is complete in the tracker."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps._objectives import FIRST, OBJECTIVES
from sweeps._tracker import SWEEP, client_of
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import Experiment
from vqvae_core.overrides import run_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SWEEP_ID = re.compile(r"(.+)-[0-9a-f]{8}")  # name of the sweep, and what tells it from others of that name
OURS = ("train/", "valid/")  # metrics of a trial; those of test are measured again, for the winner only
MOST = 20  # runs of one key that are looked at


@dataclass(frozen=True)
class Found:
    """A complete run of the tracker that stands for a trial."""

    run_id: str  # MLflow's, of the run that was trained
    origin: str  # which run that was: ``trial 003 of beta_lr-digits``
    sweep: str  # name of the sweep that has it, trained or taken from another
    run: str  # its own name there
    reports: list[tuple[int, dict[str, float]]]  # images seen and metrics, in order


class Cache:
    """Looks for complete runs in all experiments of a tracker; ``away`` says that it cannot be reached just now.

    A tracker that does not answer has nothing: the trial is trained.
    """

    def __init__(self, uri: str, sweep_id: str, runs_folder: Path, fingerprint: str, away: Callable[[], bool]) -> None:
        self.uri, self.sweep_id, self.runs_folder, self.fingerprint = uri, sweep_id, runs_folder, fingerprint
        self.away = away
        self._client: MlflowClient | None = None

    def find(self, experiment: Experiment, run: str) -> Found | None:
        """The run that stands for ``run`` of this sweep; None when there is none, and when nobody can say."""
        if self.away():
            return None
        try:
            self._client = self._client or client_of(self.uri)
            return self._find(self._client, experiment, run)
        except Exception:  # of whatever kind the tracker's troubles are: training does not depend on it
            return None

    def _find(self, client: MlflowClient, experiment: Experiment, run: str) -> Found | None:
        everywhere = [str(e.experiment_id) for e in client.search_experiments()]
        key = run_key(experiment, self.fingerprint)
        complete = f"tags.`trial.key` = '{key}' and tags.`trial.state` = 'complete'"
        # The oldest is the one that was trained; those that were taken from it came later, and name it too.
        for candidate in client.search_runs(everywhere, complete, max_results=MOST, order_by=["start_time ASC"]):
            tags = candidate.data.tags
            if tags.get("sweep.id") == self.sweep_id and tags.get("sweep.run") in (run, SWEEP):
                continue
            reports = reports_of(client, candidate)
            if reports and reports[-1][0] >= experiment.train.images and OBJECTIVES[FIRST] in reports[-1][1]:
                name = SWEEP_ID.fullmatch(tags.get("sweep.id", ""))
                sweep = name.group(1) if name else "another program"
                run_id = candidate.info.run_id
                run = tags.get("sweep.run", run_id)
                origin = tags.get("cache.from", f"trial {run} of {sweep}")
                return Found(tags.get("cache.run", run_id), origin, sweep, run, reports)
        return None

    def bring(self, found: Found, experiment: Experiment, folder: Path) -> bool:
        """Give the trial the checkpoints and pictures of the run that stands for it, where they are on this machine.

        They are linked, not copied: nobody changes a file of a checkpoint. Without them, a winner is trained again when
        it is to be tested.
        """
        there = self.runs_folder / found.sweep / "trials" / found.run
        last = Keeper(there / "checkpoints", warn=lambda text: None).reported()
        if folder.exists() or last is None:
            return folder.exists()
        key = run_key(experiment, self.fingerprint)
        if last.images_seen < experiment.train.images or run_key(last.experiment, self.fingerprint) != key:
            return False
        with suppress(OSError):
            shutil.copytree(
                there, folder, copy_function=link, ignore=shutil.ignore_patterns("lock", ".*", "*.txt", "test_*")
            )
            return True
        shutil.rmtree(folder, ignore_errors=True)  # half of it is worse than nothing
        return False


def reports_of(client: MlflowClient, run: Run) -> list[tuple[int, dict[str, float]]]:
    """What a run told of training and validation, by images seen."""
    found: dict[int, dict[str, float]] = {}
    for name in run.data.metrics:
        if name.startswith(OURS):
            for point in client.get_metric_history(run.info.run_id, name):
                found.setdefault(point.step, {})[name] = point.value
    return sorted(found.items())


def link(source: str, target: str, **_: Any) -> str:
    """Another name for a file where its disk allows that, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
