"""One trial with one worker, inside a Tune actor that is reused from trial to trial."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from ray.tune import Trainable

from sweeps._images import images_on_this_node
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.models import restore
from vqvae_core.overrides import unflatten
from vqvae_core.pictures import save_picture
from vqvae_core.train import Report, fit

ERROR = "error.txt"

Result = dict[str, Any]


class StopFile:
    """The driver's word to every trial on every node that it should save and end: a file beside the trials' folders."""

    def __init__(self, sweep_folder: Path) -> None:
        self.path = sweep_folder / "stop"
        self._asked = time.monotonic()

    def __call__(self, images_seen: int) -> bool:
        """Whether to stop; looks once a second, for this is asked after every step."""
        if time.monotonic() - self._asked < 1:
            return False
        self._asked = time.monotonic()
        return self.path.exists()


def task_of(config: Mapping[str, Any]) -> tuple[Experiment, Dataset]:
    """The experiment and the images of a trial's plain configuration, on whichever machine it has come to."""
    experiment = unflatten(config["experiment"])
    return experiment, images_on_this_node(Path(config["dataset"]), experiment.data, config["fingerprint"])


def result_of(images_seen: int, metrics: Mapping[str, float], budget: int) -> Result:
    """What Tune, the searcher and the tracker are told of one report."""
    return {
        "images_seen": images_seen,
        "objective": metrics["valid/bits_per_dim"],
        "metrics": dict(metrics),
        "done": images_seen >= budget,
    }


def failure_of(error: Exception, folder: Path) -> Result:
    """What they are told of an exception; its full text is left in the trial's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR).write_text("".join(traceback.format_exception(error)))
    reason = (str(error).splitlines() or [""])[0]
    return {"failed": f"{type(error).__name__}: {reason}"[:500], "done": True}


def train(
    experiment: Experiment, dataset: Dataset, folder: Path, writes: bool = True
) -> Iterator[tuple[Report | None, Result]]:
    """Train from the last checkpoint in ``folder``, if there is one; save, then tell, at every report.

    The last report is told again first: whoever was told may have died before writing it down. When the sweep is asked
    to stop, the state of that moment is saved and ``interrupted`` is told.
    """
    keeper = Keeper(folder / "checkpoints")
    last, told = keeper.last(), keeper.reported()
    if told:
        yield None, result_of(told.images_seen, told.metrics, experiment.train.images)
    for report in fit(experiment, last.state() if last else None, dataset, StopFile(folder.parent.parent)):
        if not report.metrics:
            if writes:
                keeper.save(report.state, {}, dataset.shape)
            yield report, {"interrupted": True, "images_seen": report.images_seen, "done": False}
            return
        if writes:
            keeper.save(report.state, report.metrics, dataset.shape)
            save_picture(restore(report.state, dataset.shape), dataset, "valid", folder)
        yield report, result_of(report.images_seen, report.metrics, experiment.train.images)


class TrialActor(Trainable):
    """``fit`` as Tune wants it: a step is a report.

    A class, not a function: its actor is ready for the next trial in some 20 ms, where a function's takes a second.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; always possible, because nothing of a trial outlives it."""
        self.folder = Path(new_config["folder"])
        self.failed: Result | None = None
        try:
            self.results = train(*task_of(new_config), self.folder)
        except Exception as error:
            self.failed = failure_of(error, self.folder)
        return True

    def step(self) -> Result:
        """Train to the next report. An exception ends the trial, not the actor: the result says why."""
        if self.failed:
            return self.failed
        try:
            for _, result in self.results:
                return result
            time.sleep(0.5)  # interrupted and saved: wait for Tune to notice that the sweep stops
            return {"interrupted": True, "done": False}
        except Exception as error:
            result = failure_of(error, self.folder)
            del self.results
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial keeps its own checkpoints, which need no pickle."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: ``train`` finds the last checkpoint by itself."""
