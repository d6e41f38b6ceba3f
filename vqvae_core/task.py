"""What ``fit`` trains: a model, its examples, and what it is worth on held-out ones."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vqvae_core.batches import Images
from vqvae_core.config import Experiment, ImageModelConfig
from vqvae_core.data import Dataset
from vqvae_core.hardware import Precision
from vqvae_core.metrics import calibrate, evaluate
from vqvae_core.models import build
from vqvae_core.trainable import Batch, Trainable


class Task(Protocol):
    """One kind of training; the loop itself (order, steps, reports, continuation) is the same for all.

    Building one seeds nothing and trains nothing; the caller has seeded torch for the weights.
    """

    count: int  # training examples
    fingerprint: str  # of the examples: a state continues only on those that it has seen

    @property
    def model(self) -> Trainable:
        """Called with what ``batch`` gives."""
        ...

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Training examples by number, on the model's device."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Metrics of the validation split, by their names without ``valid/``; ``bits_per_dim`` is among them.

        Every worker reads its share and gets the whole's result. The model is in evaluation mode.
        """
        ...


def task_for(experiment: Experiment, dataset: Dataset, device: torch.device, precision: Precision) -> Task:
    """The task that an experiment's model means, with fresh weights: the one place that chooses."""
    match experiment.model:
        case ImageModelConfig():
            return ImageTask(experiment, dataset, device, precision)


class ImageTask:
    """A model of images: trained on them, worth the bits that held-out ones cost."""

    def __init__(self, experiment: Experiment, dataset: Dataset, device: torch.device, precision: Precision) -> None:
        self.config, self.precision = experiment.train, precision
        self.fingerprint = dataset.fingerprint
        self.model = build(experiment.model, dataset.shape).to(device)
        self.train_images, self.valid_images = Images(dataset, "train", device), Images(dataset, "valid", device)
        self.count = len(self.train_images)

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Images (B, C, H, W) in [-1, 1]."""
        return (self.train_images.unit(numbers),)

    def evaluate(self) -> dict[str, float]:
        """Distortion and rate of the validation images, with the scale and the unigram prior fitted on train."""
        config = self.config
        calibration = calibrate(
            self.model, self.train_images, config.calibration_images, config.eval_batch, self.precision
        )
        return evaluate(self.model, self.valid_images, calibration, config.eval_batch, self.precision)
