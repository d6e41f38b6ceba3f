"""From ``model.first`` to the model that it means."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from vqvae_core.checkpoint import MANIFEST, Damaged, Keeper, read
from vqvae_core.config import Experiment, ImageModelConfig, SecondStageConfig
from vqvae_core.first_stage import FirstStage, first_stage

ALLOWED = "allowed is a checkpoint's folder, or the folder or name of a run or a sweep"


def runs_folder() -> Path:
    """Where runs and sweeps are looked for by their names."""
    return Path(os.environ.get("VQSWEEP_RUNS") or "runs")


def pinned(experiment: Experiment) -> Experiment:
    """The experiment with ``model.first`` as the absolute path of one checkpoint; others as they are.

    Where it is empty, it means the run ``<data set>_vqvae``. Raises ``ValueError`` where there is no such checkpoint.
    """
    model = experiment.model
    if not isinstance(model, SecondStageConfig):
        return experiment
    where = model.first or f"{experiment.data.name}_vqvae"
    try:
        found = find_checkpoint(where)
    except ValueError:
        if model.first:
            raise
        raise ValueError(f"model.first is not given and there is no {runs_folder() / where}; {ALLOWED}") from None
    return replace(experiment, model=replace(model, first=str(found)))


def find_checkpoint(where: str, name: str = "model.first") -> Path:
    """The checkpoint that a text means: itself, the best one of a run, or the best one of a sweep's best trial.

    ``name`` is what a ``ValueError`` calls the text.
    """
    for folder in (Path(where), runs_folder() / where):
        if (folder / MANIFEST).is_file():
            return folder.absolute()
        # A run keeps its checkpoints in its own folder, a sweep in those of its trials.
        best = [Keeper(run).best() for run in (folder, *sorted(folder.glob("trials/*/checkpoints")))]
        if found := [checkpoint for checkpoint in best if checkpoint is not None]:
            return min(found, key=lambda c: c.metrics.get("valid/bits_per_dim", float("inf"))).folder.absolute()
    raise ValueError(f"{name} is {where!r}, where there is no checkpoint; {ALLOWED}")


def image_model_of(experiment: Experiment) -> ImageModelConfig:
    """The configuration of the model that makes the images: the experiment's own, or its first stage's."""
    model = experiment.model
    return open_first(model.first).model.config if isinstance(model, SecondStageConfig) else model


def open_first(where: str) -> FirstStage:
    """The model that a text means, in evaluation mode; ``ValueError`` where it is none of discrete codes."""
    folder = find_checkpoint(where)
    try:
        checkpoint = read(folder)
    except Damaged as error:
        raise ValueError(f"model.first: {error}") from None
    return first_stage({**checkpoint.state(), "shape": checkpoint.shape})
