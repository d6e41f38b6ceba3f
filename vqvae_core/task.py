"""What ``fit`` trains: a model, its examples, and what it is worth on held-out ones."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from vqvae_core import hierarchy_task, prior
from vqvae_core.batches import Images
from vqvae_core.codes import codes_of
from vqvae_core.config import Experiment, HierarchyConfig, ImageModelConfig, PriorConfig
from vqvae_core.data import Dataset
from vqvae_core.hardware import Precision, choose_device
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.hierarchy_task import HierarchyTask
from vqvae_core.image_model import ImageModel
from vqvae_core.metrics import calibrate, evaluate, evaluate_split
from vqvae_core.models import build
from vqvae_core.prior import Prior, PriorTask
from vqvae_core.second_stage import open_first
from vqvae_core.trainable import Batch, State, Trainable


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

    def carried(self) -> State:
        """What a checkpoint needs besides the model's own weights, and training does not change."""
        ...


def task_for(experiment: Experiment, dataset: Dataset, device: torch.device, precision: Precision) -> Task:
    """The task that an experiment's model means, with fresh weights: the one place that chooses."""
    match experiment.model:
        case ImageModelConfig() as config:
            return ImageTask(experiment, config, dataset, device, precision)
        case PriorConfig() as config:
            return PriorTask(experiment, config, codes_of(open_first(config.first), dataset, device), device)
        case HierarchyConfig() as config:
            return HierarchyTask(experiment, config, codes_of(open_first(config.first), dataset, device), device)


def evaluate_on(experiment: Experiment, model: Trainable, dataset: Dataset, split: str) -> dict[str, float]:
    """Metrics of a trained model on any split, as ``Task.evaluate`` has them for validation."""
    device, config = choose_device(experiment), experiment.train
    match model:
        case ImageModel():
            return evaluate_split(experiment, model, dataset, split)
        case Prior():
            return prior.evaluate(model.to(device), codes_of(model.first, dataset, device), split, config.eval_batch)
        case Hierarchy():
            codes = codes_of(model.first, dataset, device)
            return hierarchy_task.evaluate(model.to(device), codes, split, config.eval_batch, config.calibration_images)
        case _:
            raise TypeError(f"no metrics are known for a {type(model).__name__}")


class ImageTask:
    """A model of images: trained on them, worth the bits that held-out ones cost."""

    def __init__(
        self,
        experiment: Experiment,
        config: ImageModelConfig,
        dataset: Dataset,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.config, self.precision = experiment.train, precision
        self.fingerprint = dataset.fingerprint
        self.model = build(config, dataset.shape).to(device)
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

    def carried(self) -> State:
        """Nothing: a model of images stands on its own."""
        return {}
