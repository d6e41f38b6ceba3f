"""Bits per dimension that are likelihoods: the probability mass of integer pixels, and the cost of the codes.

Data are integers 0..255. A decoder answers a mean for every value; the mass of the integer v is that of the bin
[v - 1/2, v + 1/2] under a logistic or Gaussian of one scale, where the bins of 0 and 255 reach to infinity. This is
the only file in which nats become bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae_core.minimise import minimise

LEVELS = 256
HALF_RANGE = (LEVELS - 1) / 2  # images in [-1, 1] are level / 127.5 - 1


def bits_per_dim(nats: float, dims: float) -> float:
    """A sum of nats over all images, divided once by all their dimensions and ln 2."""
    return nats / (math.log(2) * dims)


def to_unit(levels: Tensor) -> Tensor:
    """Levels 0..255 -> [-1, 1], at least in float32."""
    return at_least_float32(levels) / HALF_RANGE - 1


def to_levels(unit: Tensor) -> Tensor:
    """[-1, 1] -> 0..255, real-valued, at least in float32."""
    return (at_least_float32(unit) + 1) * HALF_RANGE


def at_least_float32(values: Tensor) -> Tensor:
    """Values as likelihoods need them: what autocast left in 16 bits in 32."""
    return values if values.dtype == torch.float64 else values.float()


def logistic_log_mass(levels: Tensor, mean: Tensor, log_scale: Tensor | float) -> Tensor:
    """log P(v) under a discretised logistic; ``mean`` and scale in grey levels, all broadcast together.

    Salimans et al. (2017), Equation 2, in the form sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)),
    which is exact far out in the tails too.
    """
    scale = torch.as_tensor(log_scale, dtype=mean.dtype, device=mean.device).exp()
    above = (levels + 0.5 - mean) / scale
    below = (levels - 0.5 - mean) / scale
    upper = -F.softplus(-above)
    lower = -F.softplus(below)
    inside = upper + lower + torch.log(-torch.expm1(-1 / scale))
    return torch.where(levels < 0.5, upper, torch.where(levels > LEVELS - 1.5, lower, inside))


def gaussian_log_mass(levels: Tensor, mean: Tensor, log_scale: Tensor | float) -> Tensor:
    """log P(v) under a discretised Gaussian; ``mean`` and standard deviation in grey levels, all broadcast together."""
    scale = torch.as_tensor(log_scale, dtype=mean.dtype, device=mean.device).exp()
    above = (levels + 0.5 - mean) / scale
    below = (levels - 0.5 - mean) / scale
    # Phi(b) - Phi(a) = Phi(-a) - Phi(-b): take the side on which both are small; there their difference keeps its
    # digits.
    flip = above + below > 0
    high = torch.special.log_ndtr(torch.where(flip, -below, above))
    low = torch.special.log_ndtr(torch.where(flip, -above, below))
    inside = high + torch.log(-torch.expm1((low - high).clamp(max=-1e-12)))
    upper = torch.special.log_ndtr(above)
    lower = torch.special.log_ndtr(-below)
    return torch.where(levels < 0.5, upper, torch.where(levels > LEVELS - 1.5, lower, inside))


def gaussian_density_nats(mse: float, sigma: float) -> float:
    """-log density of a level's bin per dimension, in nats, under a Gaussian; ``mse`` and ``sigma`` on [-1, 1].

    The density times the bin's width of 2/255, its end bins as narrow as the others: where sigma is not wide against a
    bin, or many pixels are 0 or 255, it is no likelihood of integers, and has no lower bound.
    """
    return math.log(HALF_RANGE) + 0.5 * math.log(2 * math.pi * sigma**2) + mse / (2 * sigma**2)


LOG_MASS: dict[str, Callable[[Tensor, Tensor, Tensor | float], Tensor]] = {
    "logistic": logistic_log_mass,
    "gaussian": gaussian_log_mass,
}


def nll_per_image(kind: str, levels: Tensor, mean: Tensor, log_scale: float) -> Tensor:
    """-log P(x | z) in nats per image, (B,) float64; ``levels`` and ``mean`` are (B, ...), in grey levels."""
    return -LOG_MASS[kind](levels, mean, log_scale).flatten(1).sum(1, dtype=torch.float64)


def fit_log_scale(kind: str, levels: Tensor, mean: Tensor) -> float:
    """The log of the one scale (in grey levels) under which ``levels`` are likeliest given ``mean``.

    The likelihood has one peak in log scale between 1/50 of a level and the whole range. In float64: in float32 the
    cost is flat around the peak, and rounding errors would choose the scale's fourth digit.
    """
    levels, mean = levels.double(), mean.double()

    def cost(log_scale: float) -> float:
        return float(-LOG_MASS[kind](levels, mean, log_scale).mean())

    return minimise(cost, math.log(0.02), math.log(LEVELS), tolerance=5e-7)


def uniform_rate(num_latents: int, num_codes: int) -> float:
    """Nats that ``num_latents`` codes of one image cost under a uniform prior: M log K."""
    return num_latents * math.log(num_codes)


def unigram_log_prior(counts: Tensor) -> Tensor:
    """log p(k) of each codebook from add-one counts of training codes; counts and result are (G, K)."""
    smoothed = counts.double() + 1
    return (smoothed / smoothed.sum(-1, keepdim=True)).log()


def unigram_rate(indices: Tensor, log_prior: Tensor) -> Tensor:
    """Nats that each image's codes (B, G, H, W) cost under a prior (G, K): (B,) float64."""
    groups = torch.arange(len(log_prior), device=indices.device).view(1, -1, 1, 1)
    return -log_prior[groups, indices].flatten(1).sum(1)


def eq7(mse: float, num_latents: int, num_codes: int, num_dims: int) -> float:
    """Equation 7 of the report as printed, divided by ln 2; NOT a likelihood: a worse image scores better.

    ``mse`` is per dimension, on images in [-1, 1]. For a VAE use ``eq7_from_kl``.
    """
    return eq7_from_kl(mse, num_latents * math.log(num_codes), num_dims)


def eq7_from_kl(mse: float, kl: float, num_dims: int) -> float:
    """Equation 7 of the report with any KL in nats per image, divided by ln 2; not a likelihood."""
    nats = 0.5 * (-num_dims * math.log(2 * math.pi) - num_dims * mse) + kl
    return (nats / num_dims + math.log(128)) / math.log(2)
