"""Training a second VQ-VAE, and what is left of an image that went through both."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.batches import mix
from vqvae_core.codes import CodeMaps, Codes
from vqvae_core.config import Experiment, HierarchyConfig
from vqvae_core.distributed import rank, sum_over_workers, world_size
from vqvae_core.first_stage import FirstStage
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.likelihood import bits_per_dim, to_levels, uniform_rate, unigram_log_prior, unigram_rate
from vqvae_core.sampling import sample
from vqvae_core.trainable import Batch, State

FOREGROUND = 32  # grey levels by which a value differs from the background where something else is seen


class HierarchyTask:
    """Training a second VQ-VAE: examples are code maps."""

    def __init__(self, experiment: Experiment, config: HierarchyConfig, codes: Codes, device: torch.device) -> None:
        self.config, self.codes = experiment.train, codes
        self.fingerprint = codes.fingerprint
        self.model = Hierarchy(config, codes.first).to(device)
        self.maps = CodeMaps(codes, "train", device)
        self.count = len(self.maps)
        if config.rare_weight:
            self.model.weigh(_counts(codes).to(device))

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Code maps (B, G, h, w)."""
        return (self.maps.take(numbers),)

    def evaluate(self) -> dict[str, float]:
        """Bits of the validation images, and what the second stage keeps of them."""
        return evaluate(self.model, self.codes, "valid", self.config.eval_batch, self.config.calibration_images)

    def carried(self) -> State:
        """The first stage, so that a checkpoint alone makes images."""
        return {"first": self.codes.first.state()}


@torch.no_grad()
def evaluate(model: Hierarchy, codes: Codes, split: str, batch: int, calibration_images: int) -> dict[str, float]:
    """Metrics of a whole split; each worker reads its share, and every worker gets the result.

    ``rate_prior`` prices the code maps: the decoder's nats given the M codes, plus the M codes under their unigram
    prior (alone: ``rate_top``). ``information`` is how many bits dearer an image's map is when the decoder is given
    another image's codes: what it uses of them. ``perplexity`` and ``codes_used`` are of the M codebooks.
    """
    assert not model.training
    device = model.pixelcnn.bias.device
    log_prior = _calibrate(model, codes, calibration_images, batch, device)
    maps = CodeMaps(codes, split, device)
    sums = torch.zeros(4, dtype=torch.float64, device=device)  # images, nats given own codes, others' codes, of codes
    counts = torch.zeros_like(log_prior)
    own_share = np.arange(rank(), len(maps), world_size())
    for start in range(0, len(own_share), batch):
        numbers = own_share[start : start + batch]
        indices, others = maps.take(numbers), maps.take((numbers + len(maps) // 2) % len(maps))
        top = model.encode(indices)
        own, shuffled = model.nll(indices, top), model.nll(indices, model.encode(others))
        sums += torch.stack([own.new_tensor(len(own)), own.sum(), shuffled.sum(), unigram_rate(top, log_prior).sum()])
        counts += _histogram(top, model.config.num_codes)
    count, own_sum, shuffled_sum, top_sum = sum_over_workers(sums).tolist()
    shares = sum_over_workers(counts) / counts.sum(1, keepdim=True)
    dims = codes.first.dims
    metrics = codes.first_metrics(split)
    rate = bits_per_dim(own_sum + top_sum, count * dims)
    return {
        **metrics,
        "bits_per_dim": metrics["distortion"] + rate,
        "rate_prior": rate,
        "rate_top": bits_per_dim(top_sum, count * dims),
        "bits_per_code": bits_per_dim(own_sum, count * codes.first.num_latents),
        "information": bits_per_dim(shuffled_sum - own_sum, count),
        "information_most": bits_per_dim(uniform_rate(math.prod(model.code_shape), model.config.num_codes), 1),
        "perplexity": math.exp(float(torch.special.entr(shares).sum(1).mean())),
        "codes_used": float((shares > 0).sum(1).double().mean()),
        **kept(model, codes, split),
    }


def second_reconstruction(model: Hierarchy, indices: Tensor, seed: int = 0) -> Tensor:
    """A code map (B, G, h, w) drawn for each of some code maps, given what the second stage keeps of it."""
    rows, columns = indices.shape[2:]
    condition = model.condition_of(model.encode(indices))
    generator = torch.Generator().manual_seed(mix("second", seed))
    return sample(model.pixelcnn, rows, columns, condition=condition, generator=generator)


def pictures_of(first: FirstStage, indices: Tensor) -> NDArray[np.uint8]:
    """Images (N, H, W, C) that code maps (N, G, h, w) stand for."""
    own = next(first.model.parameters()).device
    levels = [to_levels(first.model.decode(part.to(own))).round().clamp(0, 255) for part in indices.split(64)]
    return torch.cat(levels).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def kept(model: Hierarchy, codes: Codes, split: str) -> dict[str, float]:
    """What is left of some images of a split, the same on every worker.

    The background is the median training image; foreground is where an image differs from it, such as players, score
    and clock. The foreground error is the squared error there relative to that of the background itself: 0 is perfect,
    1 is as if nothing but background were there.
    """
    images = codes.dataset.images(split)
    chosen = np.linspace(0, len(images) - 1, min(model.config.pictures, len(images))).astype(np.int64)
    train = codes.dataset.images("train")
    some = train[np.linspace(0, len(train) - 1, min(len(train), 301)).astype(np.int64)]
    background = np.median(some, axis=0)
    indices = torch.from_numpy(codes.indices(split)[chosen].astype(np.int64))
    originals = images[chosen].astype(np.float64)
    drawn = second_reconstruction(model, indices.to(model.pixelcnn.bias.device))
    foreground = np.abs(originals - background).max(-1, keepdims=True) > FOREGROUND
    missing = ((originals - background) ** 2 * foreground).sum()
    found = {}
    for name, maps in (("first", indices), ("second", drawn)):
        error = (originals - pictures_of(codes.first, maps)) ** 2
        found[f"{name}_mse"] = float(error.mean()) / 127.5**2  # on images in [-1, 1]
        if missing:
            found[f"{name}_foreground_error"] = float((error * foreground).sum() / missing)
    return found


def _calibrate(model: Hierarchy, codes: Codes, count: int, batch: int, device: torch.device) -> Tensor:
    """The unigram prior (M, K) of the second stage's codes, from some training maps, the same on every worker."""
    maps = CodeMaps(codes, "train", device)
    chosen = np.linspace(0, len(maps) - 1, min(count, len(maps))).astype(np.int64)
    parts = np.array_split(chosen, -(-len(chosen) // batch))
    counts = [_histogram(model.encode(maps.take(numbers)), model.config.num_codes) for numbers in parts]
    return unigram_log_prior(torch.stack(counts).sum(0))


def _histogram(codes: Tensor, num_codes: int) -> Tensor:
    """How often each value is there: (B, G, h, w) -> (G, K) float64."""
    flat = codes.transpose(0, 1).flatten(1)
    counts = torch.zeros(len(flat), num_codes, dtype=torch.float64, device=codes.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))


def _counts(codes: Codes) -> Tensor:
    """The first stage's codes in training: (G, K1)."""
    array = codes.indices("train")
    counts = [np.bincount(array[:, g].reshape(-1), minlength=codes.first.num_codes) for g in range(array.shape[1])]
    return torch.from_numpy(np.stack(counts))
