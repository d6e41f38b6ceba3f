"""What the tests of second stages share: a small first stage on any images, and small second ones on it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vqvae_core.checkpoint import Keeper
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import PRESETS, tiny
from vqvae_core.train import Report, fit

SMALL = {
    "prior": {"model.layers": 2, "model.hidden": 8, "model.head": 8, "model.dropout": 0.1},
    "hierarchy": {
        "model.hidden": 8,
        "model.residual_blocks": 1,
        "model.num_codes": 8,
        "model.code_dim": 4,
        "model.layers": 2,
        "model.decoder_hidden": 4,
        "model.head": 8,
        "model.pictures": 4,
    },
}
KINDS = tuple(SMALL)


def train_first(images: Dataset, base: Experiment | None = None, **overrides: Any) -> Path:
    keeper = Keeper(images.folder.parent / "first")
    small = {"data.name": images.name, "data.root": str(images.folder.parent), "train.images": 64}
    small |= {"train.calibration_images": 32, "train.eval_batch": 8, "model.codes_per_position": 2}
    for report in fit(with_overrides(base or tiny(), small | overrides), dataset=images):
        keeper.save(report.state, report.metrics, images.shape)
    return keeper.folder


def second(kind: str, images: Dataset, first: Path, **overrides: Any) -> Experiment:
    """A small second stage of 48 images, with a report after each 16."""
    train = {"train.images": 48, "train.eval_every": 16, "train.batch_size": 8, "train.eval_batch": 8}
    data = {"data.name": images.name, "data.root": str(images.folder.parent), "model.first": str(first)}
    base = PRESETS[f"digits_{kind}"]()
    return with_overrides(base, {**data, **SMALL[kind], **train, "train.precision": "float32", **overrides})


def last(reports: Iterable[Report]) -> Report:
    *_, report = reports
    return report
