"""A state on disk: weights as safetensors, configuration as JSON, the rest loadable without running code from the file.

A checkpoint is a folder that appears whole or not at all, and whose files are checked when it is read.
"""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors

from vqvae_core.config import Experiment
from vqvae_core.files import sha256, whole_folder
from vqvae_core.overrides import flatten, from_json
from vqvae_core.restore import restore
from vqvae_core.trainable import State, Trainable

WEIGHTS, CONFIG, TRAINING, MANIFEST = "model.safetensors", "experiment.json", "training.pt", "checkpoint.json"
FIRST = "first"  # folder with the weights and the configuration of the VQ-VAE that a second stage stands on


Told = tuple[int, dict[str, float]]  # a report: images seen, metrics


class Damaged(ValueError):
    """A checkpoint whose files are not those that were written."""


def save(
    folder: Path, state: State, metrics: Mapping[str, float], shape: tuple[int, int, int], reports: Sequence[Told] = ()
) -> None:
    """Write a report's state and metrics as ``folder``, which must not exist; ``shape`` is the images' (H, W, C).

    ``reports`` are the run's reports so far. On a full disk it is the ``OSError`` that says so, and nothing is left.
    """
    rest = io.BytesIO()
    torch.save({name: value for name, value in state.items() if name not in ("model", "experiment", FIRST)}, rest)
    with whole_folder(folder) as temporary:
        _save_model(temporary, state)
        if FIRST in state:
            (temporary / FIRST).mkdir()
            _save_model(temporary / FIRST, state[FIRST])
        (temporary / TRAINING).write_bytes(rest.getbuffer())
        manifest = {
            "images_seen": state["images_seen"],
            "shape": list(shape),
            "metrics": dict(metrics),
            "reports": [[seen, told] for seen, told in reports],
            "files": {
                str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(temporary.rglob("*.*"))
            },
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _save_model(folder: Path, state: State) -> None:
    # Through memory: the library's own writer hides a full disk behind an error of its own.
    (folder / WEIGHTS).write_bytes(
        as_safetensors({name: tensor.contiguous() for name, tensor in state["model"].items()})
    )
    (folder / CONFIG).write_text(json.dumps(state["experiment"], indent=1))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole."""

    folder: Path
    images_seen: int
    metrics: dict[str, float]
    experiment: Experiment
    shape: tuple[int, int, int]
    reports: list[Told]  # all of the run up to here, in order

    def state(self) -> State:
        """What ``fit`` continues from."""
        rest = torch.load(self.folder / TRAINING, weights_only=True, map_location="cpu")
        return {**rest, **self._models()}

    def model(self) -> Trainable:
        """The model in evaluation mode."""
        return restore(self._models(), self.shape)

    def _models(self) -> State:
        """The part of the state that makes the model."""
        state: State = {"model": load_file(self.folder / WEIGHTS), "experiment": flatten(self.experiment)}
        if (self.folder / FIRST).exists():
            first = self.folder / FIRST
            config = json.loads((first / CONFIG).read_text())
            state[FIRST] = {"model": load_file(first / WEIGHTS), "experiment": config, "shape": list(self.shape)}
        return state


def read(folder: Path) -> Checkpoint:
    """Open a checkpoint; ``Damaged`` names the file that is missing or was changed."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        height, width, channels = manifest["shape"]
        files, images_seen, metrics = dict(manifest["files"]), int(manifest["images_seen"]), dict(manifest["metrics"])
        reports = [(int(seen), dict(told)) for seen, told in manifest.get("reports", [])]
    except OSError:
        raise Damaged(f"{folder} is no checkpoint: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{folder / MANIFEST} is damaged: its content is not what was written") from None
    for name, entry in files.items():
        path = folder / name
        if not path.exists():
            raise Damaged(f"{path} is missing")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise Damaged(f"{path} is damaged: its content is not what was written")
    try:
        experiment = from_json((folder / CONFIG).read_text())
    except ValueError as error:  # whole, but of another version of this program
        raise ValueError(f"{folder / CONFIG}: {error}") from None
    if metrics and not reports:  # of a version that did not keep them
        reports = [(images_seen, metrics)]
    return Checkpoint(folder, images_seen, metrics, experiment, (height, width, channels), reports)


def say(warning: str) -> None:
    """Tell whoever looks on."""
    print(f"warning: {warning}", flush=True)


class Keeper:
    """The checkpoints of one run in one folder: the last two, and the ``best`` best by a metric.

    The last but one is there for the day on which the last one is found damaged. Names are ``at-<images seen>``, so
    that their order needs no clock. ``warn`` is told of what is found damaged.
    """

    def __init__(
        self, folder: Path, metric: str = "valid/bits_per_dim", best: int = 1, warn: Callable[[str], None] = say
    ) -> None:
        self.folder, self.metric, self.kept_best, self.warn = folder, metric, best, warn

    def save(self, state: State, metrics: Mapping[str, float], shape: tuple[int, int, int]) -> Path:
        """Write a checkpoint, then delete those that are neither among the last two nor the best.

        Without ``metrics``, as after an interruption, the checkpoint stands for no report and is never the best.
        """
        target = self.folder / f"at-{state['images_seen']:012d}"
        if target.exists():  # of an earlier attempt at the same step, whose numbers are the same
            shutil.rmtree(target)
        reports = self._reports_before(target)
        if metrics:
            reports.append((state["images_seen"], dict(metrics)))
        save(target, state, metrics, shape, reports)
        scores = {path: self._score(path) for path in self.found()}
        keep = {*list(scores)[-2:], *sorted(scores, key=scores.__getitem__)[: self.kept_best]}
        for path in set(scores) - keep:
            shutil.rmtree(path, ignore_errors=True)
        return target

    def found(self) -> list[Path]:
        """Checkpoint folders, oldest first."""
        return sorted(self.folder.glob("at-*"))

    def last(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; damaged ones are named on the way and passed over."""
        for left in self.folder.glob(".at-*.tmp"):  # of a process that was killed while it saved
            shutil.rmtree(left, ignore_errors=True)
        for path in reversed(self.found()):
            try:
                return read(path)
            except Damaged as error:
                self.warn(f"{error}; the checkpoint before it is used")
        return None

    def reported(self) -> Checkpoint | None:
        """The newest whole checkpoint that stands for a report, None if there is none."""
        for path in reversed(self.found()):
            try:
                checkpoint = read(path)
            except Damaged:  # named by ``last``
                continue
            if checkpoint.metrics:
                return checkpoint
        return None

    def best(self) -> Checkpoint | None:
        """The whole checkpoint with the least metric."""
        for path in sorted(self.found(), key=self._score):
            try:
                return read(path)
            except Damaged as error:
                self.warn(f"{error}; the next best is used")
        return None

    def _reports_before(self, target: Path) -> list[Told]:
        """The run's reports up to the checkpoint before ``target``."""
        for path in reversed([path for path in self.found() if path.name < target.name]):
            try:
                return [(seen, told) for seen, told in json.loads((path / MANIFEST).read_text())["reports"]]
            except (OSError, ValueError, KeyError, TypeError):  # damaged, which ``last`` has said
                continue
        return []

    def _score(self, path: Path) -> float:
        try:
            score = float(json.loads((path / MANIFEST).read_text())["metrics"][self.metric])
        except (OSError, ValueError, KeyError, TypeError):
            return math.inf
        return math.inf if math.isnan(score) else score
