"""A model of images: an encoder to q(z | x), a decoder from z, and a head that prices the image.

Every model here has the same encoder, decoder and head; they differ in what z is and how it is trained.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvae_core.config import ImageModelConfig
from vqvae_core.convolutions import SHRINK, decoder, encoder
from vqvae_core.heads import MeanHead, head
from vqvae_core.posterior import Posterior
from vqvae_core.trainable import Loss, Trainable


@dataclass(frozen=True, kw_only=True)
class Output(Loss):
    """What a model answers in training for a batch of images."""

    mean: Tensor  # (B, C, H, W) float32: the reconstruction, on the scale of [-1, 1]
    squared_error: Tensor  # (B,): mean squared error per dimension, on images in [-1, 1]


class ImageModel(Trainable):
    """For images of a shape (H, W, C); H and W are multiples of 4.

    ``latent_shape`` is that of one image's z: codes (G, h, w), or a vector (L,) or map (L, h, w) of real numbers.
    ``num_codes`` is K, or None where z is not made of codes.
    """

    latent_shape: tuple[int, ...]
    num_codes: int | None = None
    stochastic = True  # whether q(z | x) has more than one z

    def __init__(
        self, config: ImageModelConfig, shape: tuple[int, int, int], encoder_channels: int, decoder_channels: int
    ) -> None:
        super().__init__()
        height, width, channels = shape
        if height % SHRINK or width % SHRINK:
            raise ValueError(
                f"images are {width} x {height} pixels; allowed are multiples of {SHRINK}, "
                f"the factor by which the encoder shrinks them"
            )
        self.config, self.shape = config, shape
        self.map_shape = (height // SHRINK, width // SHRINK)
        self.head = head(config, channels)
        bounded = config.output == "tanh" and isinstance(self.head, MeanHead)
        # In the order in which an image passes them, which is that in which their weights are drawn.
        self.encoder = encoder(config, channels, encoder_channels)
        self.build_latent()
        self.decoder = decoder(config, self.head.channels, decoder_channels, nn.Tanh() if bounded else nn.Identity())

    @abstractmethod
    def build_latent(self) -> None:
        """Make what lies between encoder and decoder, and set ``latent_shape``."""

    @abstractmethod
    def posterior(self, images: Tensor) -> Posterior:
        """q(z | x) of images (B, C, H, W) in [-1, 1]."""

    @abstractmethod
    def embed(self, z: Tensor) -> Tensor:
        """The decoder's input (B, ., h, w) for latents (B, *latent_shape)."""

    def raw(self, z: Tensor) -> Tensor:
        """What the head reads for latents (B, *latent_shape)."""
        out: Tensor = self.decoder(self.embed(z))
        return out

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """The likeliest latents (B, *latent_shape) of images (B, C, H, W) in [-1, 1]."""
        return self.posterior(images).mode()

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Reconstructions (B, C, H, W) in [-1, 1] of latents (B, *latent_shape)."""
        return self.head.mean(self.raw(z)).clamp(-1, 1)

    def output(self, raw: Tensor, images: Tensor, terms: dict[str, Tensor], loss: Tensor) -> Output:
        """A training answer: distortion per dimension plus ``loss``, the sum of the weighted ``terms``; all (B,)."""
        on_errors = self.config.trains_on_errors
        with torch.set_grad_enabled(on_errors and torch.is_grad_enabled()):
            mean = self.head.mean(raw)
            squared_error = (mean - images).pow(2).flatten(1).mean(1)
        parts = {"mse": squared_error}
        if not on_errors:
            parts["distortion"] = self.head.distortion(raw, images)
        distortion = squared_error if on_errors else parts["distortion"]
        return Output(distortion + loss, parts | terms, mean=mean, squared_error=squared_error)
