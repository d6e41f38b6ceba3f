"""What happens in Tune, noted on the board, in the journal and on the screen."""

from __future__ import annotations

import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Callback
from ray.tune.experiment import Trial

from sweeps._board import Board, Row, verdict
from sweeps._cache import Cache, Found
from sweeps._display import Display
from sweeps._first import tags_of_first
from sweeps._journal import Journal
from sweeps._objectives import FIRST, OBJECTIVES
from sweeps._plan import Plan, point_text
from sweeps._search import NotPickled, TrialSpec, taken_reason
from sweeps._trial import shown_of
from vqvae_core.overrides import flatten, run_key

if TYPE_CHECKING:
    from sweeps._execute import StopFlag

# Exit statuses of a sweep that ends before its last trial does.
INTERRUPTED = 130  # it was asked to stop, as any program that is ended by Ctrl-C
NO_ROOM = 1  # a disk is full
NOTHING = 1  # no trial came to its end
SPENT = 0  # its budget is used up, which is what was asked for

PROJECT = Path(__file__).resolve().parents[1]


class Events(NotPickled, Callback):
    """Tune's callbacks; ``started`` is for the searcher, which alone knows what a trial is."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        journal: Journal,
        display: Display,
        stop: StopFlag,
        stage: str,
        cache: Cache | None = None,
    ) -> None:
        self.plan, self.board, self.journal, self.display = plan, board, journal, display
        self.stop, self.stage, self.cache = stop, stage, cache
        self.interrupted: set[str] = set()  # trials that have saved because the sweep stops
        self.stopped_for: dict[str, str] = {}  # Tune's name of a trial -> why it was stopped, if not by ASHA
        self._specs: dict[str, TrialSpec] = {}

    def started(self, trial_id: str, spec: TrialSpec) -> None:
        """The searcher has chosen a trial."""
        self._specs[trial_id] = spec
        self._begin(spec)

    def taken(self, spec: TrialSpec) -> Found | None:
        """The run that stands for a trial, if the tracker has one; the trial is then over, and told."""
        if self.cache is None or (found := self.cache.find(spec.experiment, spec.run)) is None:
            return None
        self._begin(spec, {"cache.run": found.run_id, "cache.from": found.origin})
        self.cache.bring(found, spec.experiment, spec.folder)
        for seen, metrics in found.reports:
            self.board.report(
                spec.run,
                {"images_seen": seen, "objective": metrics.get(OBJECTIVES[FIRST], math.inf), "metrics": metrics},
            )
            self.journal.add("report", spec.run, step=seen, metrics=metrics)
        row = self.board.rows[spec.run]
        row.taken, row.unhealthy = found.origin, self.plan.limits.broken(row.metrics)
        self._end(spec, "complete", taken_reason(found), {"cache.from": found.origin})
        return found

    def _begin(self, spec: TrialSpec, further: Mapping[str, str] | None = None) -> None:
        experiment = spec.experiment
        self.board.rows[spec.run] = Row(
            spec.run, spec.origin, spec.point, experiment.seed, spec.parent, experiment.train.images
        )
        tags = {
            "trial.key": run_key(experiment, self.plan.data_fingerprint),
            "seed": str(experiment.seed),
            "stage": self.stage,
            "point.origin": spec.origin,
            "mlflow.note.content": note(spec),
            **self.plan.data_tags,
            **tags_of_first(experiment),
            **code_tags(),
            **(further or {}),
        }
        config = flatten(experiment)
        params = {**spec.point, **config}
        self.journal.add("start", spec.run, name=spec.run, parent=spec.parent, tags=tags, params=params, config=config)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        row = self.board.rows[self._specs[trial.trial_id].run]
        row.began = time.monotonic()
        self.display.changed(row, "start")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        run = self._specs[trial.trial_id].run
        for note in result.get("notes", ()):
            self.display.say(f"trial {run}: {note}")
        if "failed" in result:
            return
        if "halt" in result:
            self.stop.ask(result["halt"], NO_ROOM)
        if "interrupted" in result:
            self.interrupted.add(trial.trial_id)
            return
        if trial.trial_id in self.stopped_for:
            result["stopped_for"] = self.stopped_for[trial.trial_id]  # from now on part of the trial's last result
        row = self.board.report(run, result)
        row.unhealthy = self.plan.limits.broken(result["metrics"])
        if self.journal.add("report", run, step=result["images_seen"], metrics=result["metrics"]):
            trial.run_metadata.num_failures = 0  # only deaths without progress count against it
            self.display.changed(row, "report")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        run = self._specs[trial.trial_id].run
        self.display.say(f"trial {run}: {death(trial)}; it is started again")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        row = self.board.rows[self._specs[trial.trial_id].run]
        self._end(self._specs[trial.trial_id], *verdict(trial.last_result, row.budget))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        times = self.plan.restarts + 1
        reason = f"{death(trial)}, {times} times without getting further"[:500]
        self._end(self._specs[trial.trial_id], "failed", reason)

    def all_interrupted(self) -> bool:
        """Whether every trial that runs has saved."""
        running = {trial_id for trial_id, spec in self._specs.items() if self.board.rows[spec.run].state == "running"}
        return running <= self.interrupted

    def close(self) -> None:
        """After Tune has ended: whatever still runs was stopped with the sweep, and says so until it is continued."""
        for spec in self._specs.values():
            row = self.board.rows[spec.run]
            if row.state == "running":
                reason = f"{self.stop.cause}; it had seen {row.images_seen:,} images or more"
                self.board.end(spec.run, "stopped", reason)
                tags = {"status.reason": reason, "trial.state": "stopped"}
                self.journal.add("end", spec.run, state="stopped", tags=tags)

    def _end(self, spec: TrialSpec, state: str, reason: str, further: Mapping[str, str] | None = None) -> None:
        row = self.board.end(spec.run, state, reason)
        for path in shown_of(spec.folder) if state != "stopped" else ():
            self.journal.add("artifact", spec.run, path=str(path))
        tags = {"status.reason": reason, "trial.state": state, "mlflow.note.content": note(spec, reason)}
        tags |= further or {}
        self.journal.add("end", spec.run, state=state, tags=tags)
        self.display.changed(row, "end")


def note(spec: TrialSpec, reason: str = "running") -> str:
    """What a reader of the tracker's pages is told of a trial: its point, who proposed it, and how it ended."""
    return f"{point_text(spec.point)} ({spec.origin}): {reason}"


def death(trial: Trial) -> str:
    """What a trial's process died of, in one line."""
    try:
        error = cloudpickle.loads(Path(trial.pickled_error_file or "").read_bytes())
    except Exception:  # it has left none, or one that cannot be read here
        error = None
    if isinstance(error, RayActorError):
        return "its process was killed, or its machine was lost"
    if isinstance(error, OutOfMemoryError):
        return "its process was killed because its machine ran out of memory"
    lines = [line for line in str(trial.get_error() or "its process died").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "its process died"


def command() -> str:
    """What the user typed, in one line."""
    return shlex.join(["python", program(), *sys.argv[1:]])


def program() -> str:
    """The file that was started, as seen from the project's folder."""
    path = Path(sys.argv[0]).absolute()
    if path.is_relative_to(PROJECT):
        return str(path.relative_to(PROJECT))
    return f"{path.parent.name}/{path.name}"


@cache
def hardware() -> str:
    """The driver's machine in a few words: ``2 x AMD EPYC, 24 GiB`` and its GPUs."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join([f"{os.cpu_count()} x {model}", *gpus])


@cache
def code_tags() -> dict[str, str]:
    """Commit of the code and whether it was changed since; ``unknown`` outside a checkout."""

    def git(*words: str) -> str | None:
        folder = Path(__file__).parent
        try:
            answer = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    source = {"mlflow.source.name": program(), "mlflow.source.type": "LOCAL"}
    return {"mlflow.source.git.commit": commit or "unknown", "git.dirty": dirty, **source}
