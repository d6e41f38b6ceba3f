"""From a decoder's output to the probability of an image: one head for each likelihood, the same for every model.

Whatever the head, an image's price is the probability mass of its integers 0..255 (``vqvae_core.likelihood``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_core.config import ImageModelConfig
from vqvae_core.likelihood import (
    HALF_RANGE,
    LEVELS,
    LOG_MASS,
    at_least_float32,
    logistic_log_mass,
    to_levels,
    to_unit,
)

FIRST_SCALE = 25.0  # grey levels, of a scale that is learned: about what a model that has just begun is wrong by
# Of a mixture's components: sharper says no more of an integer, wider is even already; beyond, gradients explode.
LOG_SCALES = (-2.5, 7.0)


class Head(nn.Module, ABC):
    """How a decoder's output ``raw`` (B, ``channels``, H, W) prices images (B, C, H, W)."""

    channels: int  # that the decoder must answer

    @abstractmethod
    def mean(self, raw: Tensor) -> Tensor:
        """The expected image (B, C, H, W), float32 on the scale of [-1, 1]."""

    @abstractmethod
    def log_mass(self, raw: Tensor, levels: Tensor, log_scale: float | None = None) -> Tensor:
        """log P of every integer level: (B, C, H, W) float32; ``log_scale`` is a fitted one, in grey levels."""

    def nll(self, raw: Tensor, levels: Tensor, log_scale: float | None = None) -> Tensor:
        """-log P(x | z) in nats per image, (B,) float64."""
        return -self.log_mass(raw, levels.float(), log_scale).flatten(1).sum(1, dtype=torch.float64)

    def distortion(self, raw: Tensor, images: Tensor) -> Tensor:
        """What training minimises for images (B, C, H, W) in [-1, 1], per dimension: (B,), in nats."""
        return -self.log_mass(raw, to_levels(images).round()).flatten(1).mean(1)


class MeanHead(Head):
    """The decoder answers a mean; around it a discretised logistic or Gaussian of a scale fitted later, or learned."""

    def __init__(self, config: ImageModelConfig, channels: int) -> None:
        super().__init__()
        self.channels, self.kind, self.fitted = channels, config.likelihood, config.scale == "fitted"
        self.log_scale: Tensor | None = None
        if not self.fitted:
            count = channels if config.scale == "channel" else 1
            self.log_scale = nn.Parameter(torch.full((count, 1, 1), math.log(FIRST_SCALE)))

    def mean(self, raw: Tensor) -> Tensor:
        return at_least_float32(raw)

    def log_mass(self, raw: Tensor, levels: Tensor, log_scale: float | None = None) -> Tensor:
        assert (log_scale is None) != self.fitted
        scale = log_scale if self.log_scale is None else self.log_scale
        assert scale is not None
        return LOG_MASS[self.kind](levels, to_levels(raw), scale)

    def distortion(self, raw: Tensor, images: Tensor) -> Tensor:
        """With a scale that is fitted later, the squared error: nats, but for a constant, at variance 1/2."""
        if not self.fitted:
            return super().distortion(raw, images)
        return (self.mean(raw) - images).pow(2).flatten(1).mean(1)


class CategoricalHead(Head):
    """A softmax over the 256 levels of every value."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels * LEVELS

    def mean(self, raw: Tensor) -> Tensor:
        shares = self._logits(raw).softmax(2)
        return to_unit(torch.einsum("bclhw,l->bchw", shares, torch.arange(LEVELS).to(shares)))

    def log_mass(self, raw: Tensor, levels: Tensor, log_scale: float | None = None) -> Tensor:
        logits = self._logits(raw)
        return -F.cross_entropy(logits.transpose(1, 2), levels.long(), reduction="none")

    @staticmethod
    def _logits(raw: Tensor) -> Tensor:
        return at_least_float32(raw).unflatten(1, (-1, LEVELS))  # B C 256 H W


class MixtureHead(Head):
    """A mixture of discretised logistics for every value (Salimans et al. 2017, Equation 2), each value by itself."""

    def __init__(self, config: ImageModelConfig, channels: int) -> None:
        super().__init__()
        self.components = config.mixture_components
        self.channels = channels * 3 * self.components
        # Where the components begin: spread over the range, or all of them would learn the same.
        spread = torch.linspace(-1, 1, self.components + 2)[1:-1]
        self.first_means: Tensor
        self.register_buffer("first_means", spread[:, None, None], persistent=False)

    def mean(self, raw: Tensor) -> Tensor:
        weights, means, _ = self._components(raw)
        return to_unit((weights.softmax(2) * means).sum(2).clamp(0, LEVELS - 1))

    def log_mass(self, raw: Tensor, levels: Tensor, log_scale: float | None = None) -> Tensor:
        weights, means, log_scales = self._components(raw)
        return (weights.log_softmax(2) + logistic_log_mass(levels[:, :, None], means, log_scales)).logsumexp(2)

    def _components(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the weights, means and log scales in grey levels, each (B, C, components, H, W)."""
        weights, means, log_scales = at_least_float32(raw).unflatten(1, (-1, 3, self.components)).unbind(2)
        means = to_levels(means + self.first_means)
        return weights, means, (log_scales + math.log(HALF_RANGE / 10)).clamp(*LOG_SCALES)


def head(config: ImageModelConfig, channels: int) -> Head:
    """The head of a configuration, for images of C channels."""
    match config.likelihood:
        case "categorical":
            return CategoricalHead(channels)
        case "mixture":
            return MixtureHead(config, channels)
        case _:
            return MeanHead(config, channels)
