"""q(z | x), what an encoder says of an image: a sample of it, and its price under a prior.

A sample is decided by uniform numbers, one a latent, which the caller draws: so a seed gives the same samples on any
device, however many workers share a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from vqvae_core.likelihood import unigram_rate

EDGE = 2.0**-24  # how near a uniform number comes to 0 and 1 where a normal one is made of it


class Posterior(Protocol):
    """The distributions of a batch of B images; a latent z is (B, *L)."""

    @property
    def prior(self) -> str:
        """Name of the one that prices z in ``bits_per_dim``."""
        ...

    @property
    def mean_squares(self) -> dict[str, Tensor]:
        """Of vectors that a model wants watched, by name, each (B,)."""
        ...

    def mode(self) -> Tensor:
        """The likeliest z, (B, *L)."""
        ...

    def sample(self, uniforms: Tensor) -> Tensor:
        """A z for uniform numbers (B, *L) in [0, 1)."""
        ...

    def rates(self, log_prior: Tensor | None) -> dict[str, Tensor]:
        """KL(q || p) in nats per image, (B,), by the prior's name; ``log_prior`` is the unigram one, (G, K)."""
        ...

    def log_ratio(self, z: Tensor, log_prior: Tensor | None) -> Tensor:
        """log p(z) - log q(z | x) of a sample, in nats per image, (B,), under ``prior``."""
        ...


@dataclass(frozen=True)
class Certain:
    """All mass on one code at each position, as in a VQ-VAE: KL(q || p) is -log p."""

    indices: Tensor  # (B, G, h, w) int64
    num_codes: int
    mean_squares: dict[str, Tensor] = field(default_factory=dict)
    prior: str = "unigram"

    def mode(self) -> Tensor:
        return self.indices

    def sample(self, uniforms: Tensor) -> Tensor:
        return self.indices

    def rates(self, log_prior: Tensor | None) -> dict[str, Tensor]:
        assert log_prior is not None
        latents = self.indices[0].numel()
        uniform = log_prior.new_full((len(self.indices),), latents * math.log(self.num_codes))
        return {"uniform": uniform, "unigram": unigram_rate(self.indices, log_prior)}

    def log_ratio(self, z: Tensor, log_prior: Tensor | None) -> Tensor:
        return -self.rates(log_prior)[self.prior]


@dataclass(frozen=True)
class Categorical:
    """A distribution over the K codes at each position, independent of the others."""

    log_probs: Tensor  # (B, G, h, w, K) float32
    mean_squares: dict[str, Tensor] = field(default_factory=dict)
    prior: str = "unigram"

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def sample(self, uniforms: Tensor) -> Tensor:
        """The code at which the cumulative probability passes the uniform number."""
        cumulative = self.log_probs.exp().cumsum(-1)
        total = cumulative[..., -1:]
        at = torch.minimum(uniforms[..., None] * total, total.nextafter(torch.zeros_like(total)))
        return torch.searchsorted(cumulative, at, right=True)[..., 0]

    def rates(self, log_prior: Tensor | None) -> dict[str, Tensor]:
        rates = {"uniform": kl_from_uniform(self.log_probs).double()}
        if log_prior is not None:
            ratio = self.log_probs.double() - log_prior[:, None, None, :]
            rates["unigram"] = (self.log_probs.double().exp() * ratio).flatten(1).sum(1)
        return rates

    def log_ratio(self, z: Tensor, log_prior: Tensor | None) -> Tensor:
        assert log_prior is not None
        return -unigram_rate(z, log_prior) - log_prob(self.log_probs, z).double()


@dataclass(frozen=True)
class Normal:
    """Independent Gaussians; the prior is N(0, 1) in every dimension."""

    mean: Tensor  # (B, *L) float32
    log_variance: Tensor  # (B, *L) float32
    mean_squares: dict[str, Tensor] = field(default_factory=dict)
    prior: str = "normal"

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, uniforms: Tensor) -> Tensor:
        """mean + sigma * Phi^-1(u), through which gradients pass."""
        normal = torch.special.ndtri(uniforms.to(self.mean.dtype).clamp(EDGE, 1 - EDGE))
        return self.mean + (self.log_variance / 2).exp() * normal

    def kl(self) -> Tensor:
        """Kingma and Welling (2014), appendix B, summed over all latent dimensions: (B,)."""
        terms = self.mean.pow(2) + self.log_variance.exp() - 1 - self.log_variance
        return terms.flatten(1).sum(1) / 2

    def rates(self, log_prior: Tensor | None) -> dict[str, Tensor]:
        return {"normal": self.kl().double()}

    def log_ratio(self, z: Tensor, log_prior: Tensor | None) -> Tensor:
        # The normalising constants of the two Gaussians cancel, up to the variance.
        log_q = -((z - self.mean).pow(2) / self.log_variance.exp() + self.log_variance) / 2
        return (-z.pow(2) / 2 - log_q).double().flatten(1).sum(1)


def kl_from_uniform(log_probs: Tensor) -> Tensor:
    """KL(q || uniform) of distributions (B, ..., K), summed over all positions: (B,)."""
    terms = log_probs.exp() * log_probs
    return terms.flatten(1).sum(1) + log_probs[0, ..., 0].numel() * math.log(log_probs.shape[-1])


def log_prob(log_probs: Tensor, z: Tensor) -> Tensor:
    """log q(z | x) of codes (B, G, h, w) under (B, G, h, w, K), summed over positions: (B,)."""
    return log_probs.gather(-1, z[..., None]).flatten(1).sum(1)
