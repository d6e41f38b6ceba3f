"""The VQ-VAE that a sweep of second stages stands on: its codes, and the run of the tracker that it comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from sweeps._tracker import find_run
from vqvae_core.codes import codes_of
from vqvae_core.config import Experiment, SecondStageConfig
from vqvae_core.data import Dataset
from vqvae_core.overrides import flatten
from vqvae_core.second_stage import open_first

PARENT = "mlflow.parentRunId"


def encode_for(experiment: Experiment, dataset: Dataset) -> dict[str, str]:
    """Have the codes on disk before any trial asks for them, and give the tags of all runs that stand on them.

    Empty for a model of images. Raises ``ValueError`` for a first stage that does not fit the images.
    """
    model = experiment.model
    if not isinstance(model, SecondStageConfig):
        return {}
    first = open_first(model.first)
    device = torch.device("cuda" if torch.cuda.is_available() and experiment.train.device != "cpu" else "cpu")
    codes_of(first, dataset, device)
    tags = {"first.checkpoint": model.first, "first.key": first.key, "first.stage": first.experiment.model.type}
    settings = {**flatten(first.experiment), "out": f"runs/{Path(model.first).parent.name}"}
    return tags | {"first.settings": json.dumps(settings)}


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
