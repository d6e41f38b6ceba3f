"""One trial with one worker, inside a Tune actor that is reused from trial to trial."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ray.tune import Trainable

from sweeps._images import images_on_this_node
from vqvae_core.checkpoint import Checkpoint, Keeper, read
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.distributed import from_first, rank
from vqvae_core.files import is_full
from vqvae_core.overrides import unflatten
from vqvae_core.pictures import save_picture
from vqvae_core.restore import restore
from vqvae_core.train import Report, fit

ERROR = "error.txt"
PATIENCE = 120.0  # seconds for the process that trained a trial before, and was killed or lost, to be gone

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


def failure_of(error: BaseException, folder: Path) -> Result:
    """What they are told of an exception; its full text is left in the trial's folder."""
    if is_full(error):
        # The disk is no fault of the trial's: the sweep stops, and goes on from here when there is room.
        return {"halt": f"{error.strerror}: {error.filename or folder}", "interrupted": True, "done": False}
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR).write_text("".join(traceback.format_exception(error)))
    reason = (str(error).splitlines() or [""])[0]
    return {"failed": f"{type(error).__name__}: {reason}"[:500], "done": True}


def shown_of(folder: Path) -> list[Path]:
    """What the tracker is given of a trial that is over: its pictures, and what it failed of."""
    return [*sorted(folder.glob("*.png")), *folder.glob(ERROR)]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only process that trains in a trial's folder: the one before us may be dying, or cut off from its driver.

    The lock goes with the process that holds it. Raises ``ValueError`` when it is still held after ``PATIENCE``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise ValueError(f"another process still trains in {folder}; end it, then give the same command") from None
    except NotImplementedError:  # a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def last_checkpoint(keeper: Keeper) -> Checkpoint | None:
    """The newest whole checkpoint; the first worker looks, so that all of a group continue from the same one."""
    found = keeper.last() if rank() == 0 else None
    name = from_first(found.folder.name if found else None)
    return found or (read(keeper.folder / name) if name else None)


def train(
    experiment: Experiment, dataset: Dataset, folder: Path, writes: bool = True, keep: int = 1
) -> Generator[tuple[Report | None, Result], None, None]:
    """Train from the last checkpoint in ``folder``, if there is one; save, then tell, at every report.

    All reports up to there are told again first: whoever was told may have died before writing them down. When the
    sweep is asked to stop, the state of that moment is saved and ``interrupted`` is told. The first result carries
    ``notes`` on where the trial continues and which checkpoints were found damaged.
    """
    with alone_in(folder) if writes else nullcontext():
        notes: list[str] = []
        keeper = Keeper(folder / "checkpoints", best=keep, warn=notes.append)
        last = last_checkpoint(keeper)
        if last:
            notes.append(f"continues at {last.images_seen:,} images")
        first = {"notes": notes} if notes else {}
        for seen, metrics in last.reports if last else []:
            yield None, {**result_of(seen, metrics, experiment.train.images), **first}
            first = {}
        for report in fit(experiment, last.state() if last else None, dataset, StopFile(folder.parent.parent)):
            if writes:
                keeper.save(report.state, report.metrics, dataset.shape)
            if not report.metrics:
                yield report, {"interrupted": True, "images_seen": report.images_seen, "done": False}
                return
            if writes:
                save_picture(restore(report.state, dataset.shape), dataset, "valid", folder)
            yield report, {**result_of(report.images_seen, report.metrics, experiment.train.images), **first}
            first = {}


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
            self.results = train(*task_of(new_config), self.folder, keep=new_config.get("keep", 1))
        except Exception as error:
            self.failed = failure_of(error, self.folder)
        return True

    def step(self) -> Result:
        """Train to the next report. An exception ends the trial, not the actor: the result says why."""
        if self.failed:
            if "halt" in self.failed:  # told before: wait for Tune to notice that the sweep stops
                time.sleep(0.5)
            return self.failed
        try:
            for _, result in self.results:
                if result["done"]:
                    self.results.close()  # and with it, nobody else is kept out of the trial's folder
                return result
            time.sleep(0.5)  # interrupted and saved: wait for Tune to notice that the sweep stops
            return {"interrupted": True, "done": False}
        except Exception as error:
            self.failed = failure_of(error, self.folder)
        # Only now is the exception gone, and with it the frames that held the model.
        del self.results
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.failed

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial keeps its own checkpoints, which need no pickle."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: ``train`` finds the last checkpoint by itself."""
