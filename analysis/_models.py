"""Trained models to draw from: the best of a kind in the tracker, or a checkpoint that the user names."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load

from analysis.runs import Query, Run, find_runs, read_artifact, shown
from vqvae_core.checkpoint import CONFIG, FIRST, MANIFEST, WEIGHTS, Damaged, read
from vqvae_core.config import DataConfig, Experiment, SecondStageConfig
from vqvae_core.data import Dataset, prepare
from vqvae_core.data.prepare import folder_of
from vqvae_core.overrides import from_json
from vqvae_core.restore import restore
from vqvae_core.second_stage import find_checkpoint
from vqvae_core.trainable import State, Trainable

TRIED = 20  # runs without weights that are passed over; only a sweep's winner leaves them


@dataclass(frozen=True)
class Found:
    """A trained model and where it is from."""

    model: Trainable  # in evaluation mode
    experiment: Experiment
    images_seen: int
    metrics: Mapping[str, float]  # at its last report
    origin: str  # in words, for who wants to know which run it was
    commit: str


def best_in_tracker(uri: str, dataset: str, kind: str) -> Found | None:
    """The complete run of a data set and model with the fewest bits/dim on valid whose weights the tracker has.

    Raises ``ValueError`` when the tracker cannot be read.
    """
    query = Query("FINISHED", ("valid/bits_per_dim",), tags_not={"stage": "sweep"})
    runs = [run for run in find_runs(uri, query) if (run.dataset, run.model) == (dataset, kind)]
    runs.sort(key=lambda run: (run.metrics["valid/bits_per_dim"], -run.started))
    for run in runs[:TRIED]:
        if found := tracked(uri, run):
            return found
    return None


def tracked(uri: str, run: Run) -> Found | None:
    """A run's model from the files of its checkpoint that the tracker has; None where it does not have them all."""
    files = {name: read_artifact(uri, run, f"checkpoint/{name}") for name in (MANIFEST, CONFIG, WEIGHTS)}
    manifest, config, weights = files.values()
    if manifest is None or config is None or weights is None:
        return None
    content = json.loads(manifest)
    state: State = {"experiment": json.loads(config), "model": load(weights)}
    first = [read_artifact(uri, run, f"checkpoint/{FIRST}/{name}") for name in (CONFIG, WEIGHTS)]
    if first[0] is not None and first[1] is not None:
        state[FIRST] = {"experiment": json.loads(first[0]), "model": load(first[1]), "shape": content["shape"]}
    experiment = from_json(config.decode())
    if isinstance(experiment.model, SecondStageConfig) and FIRST not in state:
        return None
    height, width, channels = content["shape"]
    return Found(
        model=restore(state, (height, width, channels)),
        experiment=experiment,
        images_seen=content["images_seen"],
        metrics=content["metrics"],
        origin=f"run {run.id} ({run.experiment}, {run.name}) of {shown(uri)}",
        commit=run.commit,
    )


def in_folder(where: str) -> Found:
    """The checkpoint that a path or a run's name means; ``ValueError`` when there is none, or none that is whole."""
    try:
        checkpoint = read(find_checkpoint(where, "--checkpoint"))
    except Damaged as error:
        raise ValueError(f"--checkpoint: {error}") from None
    seen, metrics = checkpoint.images_seen, checkpoint.metrics
    return Found(checkpoint.model(), checkpoint.experiment, seen, metrics, str(where), "unknown")


def images_for(found: Found, root: Path | None) -> Dataset:
    """The images that a model was trained on; ``ValueError`` when they are not on this machine and cannot be had."""
    data: DataConfig = found.experiment.data
    places = [root, os.environ.get("VQSWEEP_DATA"), data.root, "data"]
    for place in filter(None, places):
        here = replace(data, root=str(place))
        if (folder_of(here) / "dataset.json").exists():
            return prepare(here)
    raise ValueError(
        f"the images of {data.name} are not in {folder_of(data)}; give --data-root, where they are prepared"
    )


def bits_of(metrics: Mapping[str, float]) -> str:
    """``1.234 bits/dim``, of a checkpoint's metrics."""
    value = metrics.get("valid/bits_per_dim", math.nan)
    return f"{value:.4f} bits/dim on valid" if math.isfinite(value) else "bits/dim unknown"
