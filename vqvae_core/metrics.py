"""What a model is worth on a whole split: sums over all images and all workers, divided once."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.batches import Images, mix
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.distributed import rank, sum_over_workers, world_size
from vqvae_core.hardware import Precision, choose_device, choose_precision, precision_context
from vqvae_core.image_model import ImageModel
from vqvae_core.likelihood import (
    LOG_MASS,
    bits_per_dim,
    eq7_from_kl,
    fit_log_scale,
    nll_per_image,
    to_levels,
    to_unit,
    unigram_log_prior,
)

FIT_VALUES = 1 << 18  # pixel values that the scale is fitted on: enough for three digits, whatever the images
BOUNDS = (1, 10, 50)  # samples S of the bounds L_S
BOUND_IMAGES = 256  # held-out images that the bounds are measured on: 50 decodings each


@dataclass(frozen=True)
class Calibration:
    """What a likelihood needs besides the model, fitted on training images only."""

    log_scale: float | None  # of the decoder's distribution, in grey levels; None where the model has its own
    log_prior: Tensor | None  # (G, K) unigram prior of the codes; None where there are none


def noise_for(model: ImageModel, numbers: NDArray[np.int64], sample: int = 0) -> Tensor:
    """Uniform numbers that decide a sample of z for each image of a split: the same whoever reads it, and when."""
    if not model.stochastic:
        return torch.empty(0)
    own = [
        torch.rand(model.latent_shape, generator=torch.Generator().manual_seed(mix("sample", int(number), sample)))
        for number in numbers
    ]
    return torch.stack(own).to(next(model.parameters()).device)


@torch.no_grad()
def calibrate(model: ImageModel, images: Images, count: int, batch: int, precision: Precision) -> Calibration:
    """Fit one scale and count the codes on ``count`` training images, the same on every worker and at every call."""
    assert not model.training
    count = min(count, len(images))
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(mix("calibration")))[:count].numpy()
    dims = math.prod(model.shape)
    per_image = max(1, min(dims, FIT_VALUES // count))
    where = torch.randperm(dims, generator=torch.Generator().manual_seed(mix("pixels")))[:per_image].to(images.device)
    counts = _no_counts(model, images.device)
    fits = model.config.trains_on_errors
    if not fits and counts is None:
        return Calibration(None, None)
    levels, means = [], []
    for numbers in np.array_split(np.sort(chosen), -(-count // batch)):
        own = images.levels(numbers)
        with precision():
            z = model.posterior(to_unit(own)).sample(noise_for(model, numbers))
            raw = model.raw(z) if fits else None
        if raw is not None:
            levels.append(own.flatten(1)[:, where].float())
            means.append(to_levels(model.head.mean(raw)).flatten(1)[:, where])
        if counts is not None:
            _count(counts, z)
    log_scale = fit_log_scale(model.config.likelihood, torch.cat(levels), torch.cat(means)) if fits else None
    return Calibration(log_scale, None if counts is None else unigram_log_prior(counts))


@torch.no_grad()
def evaluate(
    model: ImageModel, images: Images, calibration: Calibration, batch: int, precision: Precision
) -> dict[str, float]:
    """Metrics of a whole split; each worker reads its share, and every worker gets the result.

    ``bits_per_dim`` is ``distortion`` plus one rate: that under the unigram prior of the training codes, or under
    N(0, 1) where z is real. A rate is KL(q || p), in closed form; where q(z | x) has more than one z, the distortion
    is that of one sample of it (so the sum is the ELBO, S = 1), and ``eq7`` takes the KL from the uniform prior.
    ``mse`` is per dimension on images in [-1, 1]; ``psnr`` is of that mean, in dB. ``perplexity`` and ``codes_used``
    are per codebook, over the histogram of the whole split; ``dead_codes`` is the share of codes that no image of it
    uses. ``latent_rms`` and ``code_rms`` are root mean squares of the encoder's outputs and of the codes in their
    place: the space that they live in has no scale of its own, and in a codebook that goes wrong they grow without
    end. ``scale`` is the decoder's where it was fitted, in grey levels.
    """
    assert not model.training
    sums: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64, device=images.device))
    counts = _no_counts(model, images.device)
    log_prior = None if calibration.log_prior is None else calibration.log_prior.to(images.device)
    own_share = np.arange(rank(), len(images), world_size())
    prior = ""
    # A worker without an image asks one of another's: all must know the same names.
    parts = np.array_split(own_share, range(batch, len(own_share), batch)) if len(own_share) else [np.zeros(1, int)]
    for numbers in parts:
        mine = float(len(own_share) > 0)
        levels = images.levels(numbers)
        unit = to_unit(levels)
        with precision():
            posterior = model.posterior(unit)
            z = posterior.sample(noise_for(model, numbers))
            raw = model.raw(z)
        squared_error = (model.head.mean(raw) - unit).double().pow(2).flatten(1).mean(1)
        values = {
            "images": torch.ones_like(squared_error),
            "distortion": model.head.nll(raw, levels, calibration.log_scale),
            "mse": squared_error,
            **{f"rate_{name}": rate for name, rate in posterior.rates(log_prior).items()},
            **{f"{name}_rms": value for name, value in posterior.mean_squares.items()},
        }
        for name, value in values.items():
            sums[name] = sums[name] + mine * value.double().sum()
        if counts is not None and mine:
            _count(counts, z)
        prior = posterior.prior
    totals = dict(zip(sums, sum_over_workers(torch.stack(list(sums.values()))).tolist(), strict=True))
    count, dims = totals.pop("images"), math.prod(model.shape)
    found = {
        name: bits_per_dim(total, count * dims) if name.startswith(("distortion", "rate_")) else total / count
        for name, total in totals.items()
    }
    found |= {name: math.sqrt(value) for name, value in found.items() if name.endswith("_rms")}
    kl = totals.get("rate_uniform", totals[f"rate_{prior}"]) / count
    found["bits_per_dim"] = found["distortion"] + found[f"rate_{prior}"]
    found["eq7"] = eq7_from_kl(found["mse"], kl, dims)
    found["psnr"] = 10 * math.log10(4 / found["mse"]) if found["mse"] else math.inf
    if calibration.log_scale is not None:
        found["scale"] = math.exp(calibration.log_scale)
    return found | (_code_use(sum_over_workers(counts)) if counts is not None else {})


@torch.no_grad()
def bounds(
    model: ImageModel, images: Images, calibration: Calibration, batch: int, precision: Precision
) -> dict[str, float]:
    """L_S in bits/dim for S = 1, 10 and 50, as ``bits_per_dim_s<S>``, on ``bound_images`` images of a split.

    log 1/S sum_s p(x | z_s) p(z_s) / q(z_s | x), under the prior of ``bits_per_dim``; S = 1 is an estimate of the ELBO,
    and the more samples, the tighter the bound. Where q(z | x) has one z, all are the ELBO and nothing is answered.
    """
    assert not model.training
    if not model.stochastic:
        return {}
    chosen = np.linspace(0, len(images) - 1, min(BOUND_IMAGES, len(images))).astype(np.int64)
    log_prior = None if calibration.log_prior is None else calibration.log_prior.to(images.device)
    dims, sums = math.prod(model.shape), torch.zeros(len(BOUNDS), dtype=torch.float64, device=images.device)
    own_share = chosen[rank() :: world_size()]
    for start in range(0, len(own_share), batch):
        numbers = own_share[start : start + batch]
        levels = images.levels(numbers)
        with precision():
            posterior = model.posterior(to_unit(levels))
        log_weights = []
        for sample in range(max(BOUNDS)):
            z = posterior.sample(noise_for(model, numbers, sample))
            with precision():
                raw = model.raw(z)
            nll = model.head.nll(raw, levels, calibration.log_scale)
            log_weights.append(posterior.log_ratio(z, log_prior) - nll)
        w = torch.stack(log_weights, 1)
        # Every image's S are the first S of the same samples: the bounds differ by S alone.
        sums += torch.stack([-(w[:, :S].logsumexp(1) - math.log(S)).sum() for S in BOUNDS])
    totals = sum_over_workers(sums).tolist()
    found = {
        f"bits_per_dim_s{S}": bits_per_dim(total, len(chosen) * dims) for S, total in zip(BOUNDS, totals, strict=True)
    }
    return {**found, "bound_images": float(len(chosen))}


def evaluate_split(experiment: Experiment, model: ImageModel, dataset: Dataset, split: str) -> dict[str, float]:
    """Metrics of a trained model on any split, calibrated on training images as during training, and its bounds.

    Beside them ``unigram_pixels``, the bits/dim that no model at all would need: what to beat.
    """
    device = choose_device(experiment)
    precision = precision_context(device, choose_precision(experiment, device))
    model = model.to(device).eval()
    config = experiment.train
    train, held_out = Images(dataset, "train", device), Images(dataset, split, device)
    calibration = calibrate(model, train, config.calibration_images, config.eval_batch, precision)
    found = evaluate(model, held_out, calibration, config.eval_batch, precision)
    found |= bounds(model, held_out, calibration, config.eval_batch, precision)
    return {**found, "unigram_pixels": unigram_pixel_bits(train, held_out)}


def mean_image_bits(train: Images, images: Images, likelihood: str = "logistic") -> float:
    """Bits/dim of a decoder that always answers the mean training image, with its best scale: what to beat."""
    likelihood = likelihood if likelihood in LOG_MASS else "logistic"
    mean = torch.from_numpy(np.asarray(train.array).mean(0, dtype=np.float64)).float().permute(2, 0, 1).to(train.device)
    some = np.linspace(0, len(train) - 1, min(len(train), max(1, FIT_VALUES // mean.numel()))).astype(np.int64)
    log_scale = fit_log_scale(likelihood, train.levels(some).float(), mean)
    nats = 0.0
    for numbers in np.array_split(np.arange(len(images)), -(-len(images) // 256)):
        nats += float(nll_per_image(likelihood, images.levels(numbers).float(), mean, log_scale).sum())
    return bits_per_dim(nats, len(images) * mean.numel())


def unigram_pixel_bits(train: Images, images: Images) -> float:
    """Bits/dim of a code for single values that knows how often each level comes, from add-one counts in training.

    It sees neither the image nor the place: a model that learns less than this has learned nothing.
    """
    counts, held_out = (np.zeros(256, np.int64) for _ in range(2))
    for into, source in ((counts, train), (held_out, images)):
        for numbers in np.array_split(np.arange(len(source)), -(-len(source) // 4096)):
            into += np.bincount(source.array[numbers].reshape(-1), minlength=256)
    log_p = np.log((counts + 1) / (counts + 1).sum())
    return bits_per_dim(float(-(held_out * log_p).sum()), float(held_out.sum()))


def _no_counts(model: ImageModel, device: torch.device) -> Tensor | None:
    """Zeros (G, K), one for each code of each codebook; None where z is not made of codes."""
    if model.num_codes is None:
        return None
    return torch.zeros(model.latent_shape[0], model.num_codes, dtype=torch.float64, device=device)


def _count(counts: Tensor, z: Tensor) -> None:
    """Add codes (B, G, h, w) to their counts (G, K)."""
    flat = z.transpose(0, 1).flatten(1)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype))


def _code_use(counts: Tensor) -> dict[str, float]:
    """How a split's codes are used, of counts (G, K)."""
    shares = counts / counts.sum(1, keepdim=True)
    codes_used = float((shares > 0).sum(1).double().mean())
    return {
        "perplexity": math.exp(float(torch.special.entr(shares).sum(1).mean())),
        "codes_used": codes_used,
        "dead_codes": 1 - codes_used / counts.shape[1],
    }
