"""Trained models to draw from: the best of a kind in the tracker, or a checkpoint that the user names."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.runs import Query, Run, find_runs, read_artifact, shown
from vqvae_core.checkpoint import CONFIG, FIRST, MANIFEST, WEIGHTS, Checkpoint, Damaged, read
from vqvae_core.config import DataConfig
from vqvae_core.data import Dataset, prepare
from vqvae_core.data.prepare import folder_of
from vqvae_core.overrides import from_json
from vqvae_core.second_stage import find_checkpoint

FILES = (WEIGHTS, CONFIG, MANIFEST, f"{FIRST}/{WEIGHTS}", f"{FIRST}/{CONFIG}")  # of a checkpoint, in the tracker
TRIED = 20  # runs without weights that are passed over; only a sweep's winner leaves them


@dataclass(frozen=True)
class Found:
    """A checkpoint and where it is from."""

    checkpoint: Checkpoint
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
        if found := checkpoint_of(uri, run):
            return Found(found, f"run {run.id} ({run.experiment}, {run.name}) of {shown(uri)}", run.commit)
    return None


def checkpoint_of(uri: str, run: Run) -> Checkpoint | None:
    """A run's checkpoint, as far as a model needs it; None where the tracker does not have it whole."""
    manifest = read_artifact(uri, run, f"checkpoint/{MANIFEST}")
    if manifest is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="vqsweep-"))
    for name in FILES:
        content = read_artifact(uri, run, f"checkpoint/{name}")
        if content is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    if not (folder / WEIGHTS).exists() or not (folder / CONFIG).exists():
        return None
    content = json.loads(manifest)
    height, width, channels = content["shape"]
    experiment = from_json((folder / CONFIG).read_text())
    return Checkpoint(folder, content["images_seen"], content["metrics"], experiment, (height, width, channels))


def in_folder(where: str) -> Found:
    """The checkpoint that a path or a run's name means; ``ValueError`` when there is none, or none that is whole."""
    try:
        checkpoint = read(find_checkpoint(where, "--checkpoint"))
    except Damaged as error:
        raise ValueError(f"--checkpoint: {error}") from None
    return Found(checkpoint, str(where), "unknown")


def images_for(found: Found, root: Path | None) -> Dataset:
    """The images that a model was trained on; ``ValueError`` when they are not on this machine and cannot be had."""
    data: DataConfig = found.checkpoint.experiment.data
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
