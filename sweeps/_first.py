"""What a sweep of second stages stands on: its codes, and the run of the tracker that it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch

from sweeps._tracker import find_run
from vqvae_core.checkpoint import read
from vqvae_core.codes import codes_of
from vqvae_core.config import Experiment, SecondStageConfig
from vqvae_core.data import Dataset
from vqvae_core.overrides import flatten
from vqvae_core.second_stage import open_first

PARENT = "mlflow.parentRunId"


def encode_for(experiment: Experiment, dataset: Dataset) -> None:
    """Have the codes on disk before any trial asks for them; nothing for a model of images.

    Raises ``ValueError`` for a first stage that does not fit the images.
    """
    if isinstance(experiment.model, SecondStageConfig):
        device = torch.device("cuda" if torch.cuda.is_available() and experiment.train.device != "cpu" else "cpu")
        codes_of(open_first(experiment.model.first), dataset, device)


def tags_of_first(experiment: Experiment) -> dict[str, str]:
    """What a run's tags say of its first stage; none for a model of images."""
    return _tags(experiment.model.first) if isinstance(experiment.model, SecondStageConfig) else {}


@cache
def _tags(checkpoint: str) -> dict[str, str]:
    first = open_first(checkpoint)
    settings = {**flatten(first.experiment), "out": f"runs/{Path(checkpoint).parent.name}"}
    return {
        "first.checkpoint": checkpoint,
        "first.key": first.key,
        "first.stage": first.experiment.model.type,
        "first.images_seen": str(read(Path(checkpoint)).images_seen),
        "first.settings": json.dumps(settings),
    }


def share_one(experiments: Iterable[Experiment]) -> bool:
    """Whether all of them stand on the same first stage, or on none."""
    return len({tags_of_first(experiment).get("first.key") for experiment in experiments}) == 1


def parent_of(experiment: Experiment, uri: str) -> dict[str, str]:
    """The tags that make a sweep the child of its VQ-VAE's run, where the tracker has that run."""
    model = experiment.model
    if not isinstance(model, SecondStageConfig):
        return {}
    # A trial keeps its checkpoints in <sweep>/trials/<run>/checkpoints; other runs are not in the tracker.
    checkpoint = Path(model.first)
    if checkpoint.parents[2].name != "trials":
        return {}
    sweep, run = checkpoint.parents[3].name, checkpoint.parents[1].name
    found = find_run(uri, run, re.compile(re.escape(sweep) + "-[0-9a-f]{8}"))
    return {PARENT: found, "first.run": found} if found else {}
