"""The learned prior as an experiment: a gated PixelCNN on the codes of a VQ-VAE, worth the bits that it saves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.codes import CodeMaps, Codes
from vqvae_core.config import Experiment, PriorConfig
from vqvae_core.data.folder import NO_LABEL
from vqvae_core.distributed import rank, sum_over_workers, world_size
from vqvae_core.first_stage import FirstStage
from vqvae_core.likelihood import bits_per_dim
from vqvae_core.pixelcnn import PixelCNN
from vqvae_core.trainable import Batch, Loss, State, Trainable


class Prior(Trainable):
    """A PixelCNN over a first stage's codes, given an image's class or the null class.

    Labels are integers (B,), ``NO_LABEL`` for an image whose class is not given. The first stage is at hand for the
    images that samples stand for; its weights are not this model's.
    """

    def __init__(self, config: PriorConfig, first: FirstStage, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.__dict__["first"] = first  # past torch, which would make its weights ours
        # Whose class is hidden, the batch's own numbers say, so that it does not depend on the workers' share.
        network = replace(config, null_rate=0.0)
        self.noise = (1,) if config.null_rate else ()
        self.pixelcnn = PixelCNN(network, first.num_codes, first.latent_shape[0], num_classes)

    @property
    def first(self) -> FirstStage:
        """The VQ-VAE whose codes these are."""
        found: FirstStage = self.__dict__["first"]
        return found

    def mark_seen(self, labels: Tensor) -> None:
        """Say which classes training uses, the null class among them where it does."""
        given = labels[labels != NO_LABEL]
        if len(given):
            self.pixelcnn.mark_seen(given)
        if len(given) < len(labels):
            self.pixelcnn.mark_seen(None)

    def known(self, labels: Tensor) -> Tensor:
        """Labels with ``NO_LABEL`` in the place of classes that training never saw."""
        seen = self.pixelcnn.seen_classes[:-1]
        if not len(seen):
            return torch.full_like(labels, NO_LABEL)
        return torch.where((labels != NO_LABEL) & seen[labels.clamp(min=0)], labels, NO_LABEL)

    def forward(self, indices: Tensor, labels: Tensor, numbers: Tensor | None = None) -> Loss:
        """Nats per code of code maps (B, G, h, w); labels as the data have them, some hidden by their numbers."""
        if numbers is not None:
            labels = labels.masked_fill(numbers[:, 0] < self.config.null_rate, NO_LABEL)
        null = self.pixelcnn.num_classes  # in training the null class is chosen by its row
        nats = self.pixelcnn.nll(indices, torch.where(labels == NO_LABEL, null, labels) if null else None)
        return Loss(nats / indices[0].numel())

    def class_nats(self, trained_on: Tensor) -> Tensor:
        """What it costs to say each class, none being the last: (classes + 1,) nats, by add-one counts of labels (N,).

        A distribution over the classes that training saw; infinite for others, which are never given.
        """
        null, seen = self.pixelcnn.num_classes, self.pixelcnn.seen_classes
        given = self.known(trained_on.to(seen.device))
        counts = torch.bincount(torch.where(given == NO_LABEL, null, given), minlength=null + 1)
        smoothed = torch.where(seen, counts.double() + 1, 0)
        return -(smoothed / smoothed.sum()).log()

    @torch.no_grad()
    def nll(self, indices: Tensor, labels: Tensor) -> Tensor:
        """Nats of each code map, (B,), in evaluation mode; classes that training never saw count as none."""
        labels = self.known(labels)
        nats = indices.new_empty(len(indices), dtype=torch.float64)
        for given in (True, False):
            chosen = (labels != NO_LABEL) == given
            if chosen.any():
                classes = labels[chosen] if given else None
                nats[chosen] = self.pixelcnn.nll(indices[chosen], classes).double()
        return nats


class PriorTask:
    """Training a prior: examples are code maps with their classes."""

    def __init__(self, experiment: Experiment, config: PriorConfig, codes: Codes, device: torch.device) -> None:
        self.experiment, self.config, self.codes, self.device = experiment, config, codes, device
        self.fingerprint = codes.fingerprint
        self.model = Prior(config, codes.first, codes.num_classes).to(device)
        self.labels = torch.tensor(codes.labels("train"))
        self.maps = CodeMaps(codes, "train", device)
        self.count = len(self.maps)
        if config.null_rate < 1:
            self.model.mark_seen(self.labels)
        if config.null_rate > 0:
            self.model.pixelcnn.mark_seen(None)
        self._check_null()

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Code maps (B, G, h, w) and labels (B,)."""
        return self.maps.take(numbers), self.labels[torch.from_numpy(numbers)].to(self.device)

    def evaluate(self) -> dict[str, float]:
        """Bits of the validation images under first stage and prior."""
        return evaluate(self.model, self.codes, "valid", self.experiment.train.eval_batch)

    def carried(self) -> State:
        """The first stage, so that a checkpoint alone makes images."""
        return {"first": self.codes.first.state()}

    def _check_null(self) -> None:
        """A class that only validation or test has is priced as no class, which must have been trained then."""
        if bool(self.model.pixelcnn.seen_classes[-1]):
            return
        for split in self.codes.dataset.splits:
            labels = torch.tensor(self.codes.labels(split)).to(self.device)
            unknown = int((self.model.known(labels) == NO_LABEL).sum())
            if unknown:
                raise ValueError(
                    f"model.null_rate is 0.0; allowed is a number > 0, because {unknown:,} images of {split} have no "
                    f"class that train has"
                )


def evaluate(model: Prior, codes: Codes, split: str, batch: int) -> dict[str, float]:
    """Metrics of a whole split; each worker reads its share, and every worker gets the result.

    ``bits_per_dim`` is the first stage's ``distortion`` plus ``rate_prior``; both are of the image's values. The rates
    without a learned prior stand beside it. Computed in float32, so that a rate is that of the model which samples.

    ``rate_prior`` is the codes' rate given the image's class, and ``rate_class``, that of the class: without it the sum
    would bound -log p(x given class), which is less. ``bits_per_code`` is of the codes alone, per code;
    ``compression_uniform`` and ``compression_prior`` say how many times fewer bits than the image's 8 a value (the
    report's 42.67 in 2.2 is the former); ``known_class`` is the share of images whose class training saw.
    """
    assert not model.training
    device = model.pixelcnn.bias.device
    maps, labels = CodeMaps(codes, split, device), torch.tensor(codes.labels(split))
    of_class = model.class_nats(torch.tensor(codes.labels("train")))
    sums = torch.zeros(4, dtype=torch.float64, device=device)  # images, nats of codes, of classes, known classes
    own_share = np.arange(rank(), len(maps), world_size())
    for start in range(0, len(own_share), batch):
        numbers = own_share[start : start + batch]
        own = labels[torch.from_numpy(numbers)].to(device)
        nats, given = model.nll(maps.take(numbers), own), model.known(own)
        classes = of_class[given]  # NO_LABEL is -1, and none the last of them
        sums += torch.stack([nats.new_tensor(len(nats)), nats.sum(), classes.sum(), (given != NO_LABEL).sum()])
    count, nats_sum, class_sum, known = sum_over_workers(sums).tolist()
    metrics = codes.first_metrics(split)
    rate = bits_per_dim(nats_sum + class_sum, count * codes.first.dims)
    return {
        **metrics,
        "bits_per_dim": metrics["distortion"] + rate,
        "rate_prior": rate,
        "rate_class": bits_per_dim(class_sum, count * codes.first.dims),
        "bits_per_code": bits_per_dim(nats_sum, count * codes.first.num_latents),
        "compression_uniform": 8 / metrics["rate_uniform"],
        "compression_prior": 8 / rate if rate else math.inf,  # 0 where the first stage's codes are all the same
        "known_class": known / count,
    }
