"""What a model is worth on a whole split: sums over all images and all workers, divided once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqvae_core.batches import Images, mix
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.distributed import rank, sum_over_workers, world_size
from vqvae_core.hardware import Precision, choose_device, choose_precision, precision_context
from vqvae_core.likelihood import (
    bits_per_dim,
    eq7,
    fit_log_scale,
    nll_per_image,
    to_levels,
    to_unit,
    uniform_rate,
    unigram_log_prior,
    unigram_rate,
)
from vqvae_core.vqvae import VQVAE

FIT_VALUES = 1 << 18  # pixel values that the scale is fitted on: enough for three digits, whatever the images


@dataclass(frozen=True)
class Calibration:
    """What a likelihood needs besides the model, fitted on training images only."""

    log_scale: float  # of the decoder's distribution, in grey levels
    log_prior: Tensor  # (G, K) unigram prior of the codes


@torch.no_grad()
def calibrate(model: VQVAE, images: Images, count: int, batch: int, precision: Precision) -> Calibration:
    """Fit one scale and count the codes on ``count`` training images, the same on every worker and at every call."""
    assert not model.training
    count = min(count, len(images))
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(mix("calibration")))[:count].numpy()
    dims = math.prod(model.shape)
    per_image = max(1, min(dims, FIT_VALUES // count))
    where = torch.randperm(dims, generator=torch.Generator().manual_seed(mix("pixels")))[:per_image].to(images.device)
    groups, num_codes = model.latent_shape[0], model.config.num_codes
    counts = torch.zeros(groups, num_codes, dtype=torch.int64, device=images.device)
    levels, means = [], []
    for numbers in np.array_split(np.sort(chosen), -(-count // batch)):
        own = images.levels(numbers)
        with precision():
            out = model(to_unit(own))
        levels.append(own.flatten(1)[:, where].float())
        means.append(to_levels(out.mean).flatten(1)[:, where])
        flat = out.indices.transpose(0, 1).flatten(1)
        counts.scatter_add_(1, flat, torch.ones_like(flat))
    log_scale = fit_log_scale(model.config.likelihood, torch.cat(levels), torch.cat(means))
    return Calibration(log_scale, unigram_log_prior(counts))


@torch.no_grad()
def evaluate(
    model: VQVAE, images: Images, calibration: Calibration, batch: int, precision: Precision
) -> dict[str, float]:
    """Metrics of a whole split; each worker reads its share, and every worker gets the result.

    ``bits_per_dim`` is ``distortion`` plus the rate under the unigram prior. ``mse`` is per dimension on images in
    [-1, 1]; ``psnr`` is of that mean, in dB. ``perplexity`` and ``codes_used`` are per codebook, over the histogram of
    the whole split; ``dead_codes`` is the share of codes that no image of it uses. ``latent_rms`` and ``code_rms`` are
    root mean squares of the encoder's outputs and of the codes in their place: the space that they live in has no scale
    of its own, and in a codebook that goes wrong they grow without end. ``scale`` is the decoder's, in grey levels.
    """
    assert not model.training
    groups, num_codes = model.latent_shape[0], model.config.num_codes
    # Images, nats of pixels, squared error, nats of codes, mean squares of latents and codes.
    sums = torch.zeros(6, dtype=torch.float64, device=images.device)
    counts = torch.zeros(groups, num_codes, dtype=torch.float64, device=images.device)
    log_prior = calibration.log_prior.to(images.device)
    own_share = np.arange(rank(), len(images), world_size())
    for start in range(0, len(own_share), batch):
        levels = images.levels(own_share[start : start + batch])
        with precision():
            out = model(to_unit(levels))
        nll = nll_per_image(model.config.likelihood, levels.float(), to_levels(out.mean), calibration.log_scale)
        rate = unigram_rate(out.indices, log_prior)
        error = out.squared_error.double().sum()
        latent, code = (vectors.double().pow(2).flatten(1).mean(1).sum() for vectors in (out.latents, out.codes))
        sums += torch.stack([rate.new_tensor(len(levels)), nll.sum(), error, rate.sum(), latent, code])
        flat = out.indices.transpose(0, 1).flatten(1)
        counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))
    count, nll_sum, error_sum, rate_sum, latent_sum, code_sum = sum_over_workers(sums).tolist()
    shares = sum_over_workers(counts) / counts.sum(1, keepdim=True)
    entropy = float(torch.special.entr(shares).sum(1).mean())
    codes_used = float((shares > 0).sum(1).double().mean())
    dims = math.prod(model.shape)
    mse = error_sum / count
    distortion = bits_per_dim(nll_sum, count * dims)
    rate_unigram = bits_per_dim(rate_sum, count * dims)
    return {
        "bits_per_dim": distortion + rate_unigram,
        "distortion": distortion,
        "rate_unigram": rate_unigram,
        "rate_uniform": bits_per_dim(uniform_rate(model.num_latents, num_codes), dims),
        "eq7": eq7(mse, model.num_latents, num_codes, dims),
        "mse": mse,
        "psnr": 10 * math.log10(4 / mse) if mse else math.inf,
        "perplexity": math.exp(entropy),
        "codes_used": codes_used,
        "dead_codes": 1 - codes_used / num_codes,
        "latent_rms": math.sqrt(latent_sum / count),
        "code_rms": math.sqrt(code_sum / count),
        "scale": math.exp(calibration.log_scale),
    }


def evaluate_split(experiment: Experiment, model: VQVAE, dataset: Dataset, split: str) -> dict[str, float]:
    """Metrics of a trained model on any split, calibrated on training images as during training."""
    device = choose_device(experiment)
    precision = precision_context(device, choose_precision(experiment, device))
    model = model.to(device).eval()
    config = experiment.train
    train = Images(dataset, "train", device)
    calibration = calibrate(model, train, config.calibration_images, config.eval_batch, precision)
    return evaluate(model, Images(dataset, split, device), calibration, config.eval_batch, precision)


def mean_image_bits(train: Images, images: Images, likelihood: str = "logistic") -> float:
    """Bits/dim of a decoder that always answers the mean training image, with its best scale: what to beat."""
    mean = torch.from_numpy(np.asarray(train.array).mean(0, dtype=np.float64)).float().permute(2, 0, 1).to(train.device)
    some = np.linspace(0, len(train) - 1, min(len(train), max(1, FIT_VALUES // mean.numel()))).astype(np.int64)
    log_scale = fit_log_scale(likelihood, train.levels(some).float(), mean)
    nats = 0.0
    for numbers in np.array_split(np.arange(len(images)), -(-len(images) // 256)):
        nats += float(nll_per_image(likelihood, images.levels(numbers).float(), mean, log_scale).sum())
    return bits_per_dim(nats, len(images) * mean.numel())
