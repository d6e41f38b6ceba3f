"""The report's VQ-VAE (Section 2): strided encoder, quantiser, mirrored decoder, and the loss of Equation 6."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae_core.config import VQVAEConfig
from vqvae_core.image_model import ImageModel
from vqvae_core.image_model import Output as ImageOutput
from vqvae_core.posterior import Certain
from vqvae_core.quantizers import quantizer
from vqvae_core.trainable import Batch


@dataclass(frozen=True, kw_only=True)
class Output(ImageOutput):
    """What the model answers for a batch of images."""

    indices: Tensor  # (B, G, h, w) int64
    latents: Tensor  # (B, ., h, w): the encoder's outputs, without a gradient
    codes: Tensor  # (B, ., h, w): what stands for them, without a gradient


class VQVAE(ImageModel):
    """Encoder, quantiser and decoder for images of a shape (H, W, C); H and W are multiples of 4."""

    config: VQVAEConfig
    latent_shape: tuple[int, int, int]
    num_codes: int
    stochastic = False

    def __init__(self, config: VQVAEConfig, shape: tuple[int, int, int]) -> None:
        super().__init__(config, shape, config.latent_channels, config.latent_channels)
        self.num_codes = config.num_codes

    def build_latent(self) -> None:
        """The quantiser."""
        self.latent_shape = (self.config.codes_per_position, *self.map_shape)
        self.quantizer = quantizer(self.config)

    @property
    def num_latents(self) -> int:
        """M of Equation 7: codes of one image."""
        groups, height, width = self.latent_shape
        return groups * height * width

    def forward(self, images: Tensor) -> Output:
        """Equation 6 for images (B, C, H, W) in [-1, 1].

        Each of its three terms is a mean over its own dimensions, as in the report's code, so that beta weighs the
        same whatever the image's size. The first is the squared error, or the nats of a likelihood that is learned.
        """
        latents = self.encoder(images)
        quantized = self.quantizer(latents)
        raw = self.decoder(quantized.vectors)
        terms = {"codebook": quantized.codebook_loss, "commitment": quantized.commitment_loss}
        out = self.output(raw, images, terms, quantized.codebook_loss + self.config.beta * quantized.commitment_loss)
        return Output(
            **vars(out), indices=quantized.indices, latents=latents.detach(), codes=quantized.vectors.detach()
        )

    def posterior(self, images: Tensor) -> Certain:
        """The nearest codes of images (B, C, H, W) in [-1, 1]."""
        latents = self.encoder(images)
        quantized = self.quantizer(latents)
        squares = {"latent": latents, "code": quantized.vectors}
        mean_squares = {name: vectors.double().pow(2).flatten(1).mean(1) for name, vectors in squares.items()}
        return Certain(quantized.indices, self.config.num_codes, mean_squares)

    def embed(self, z: Tensor) -> Tensor:
        """The vectors of codes (B, G, h, w)."""
        vectors: Tensor = self.quantizer.decode(z)
        return vectors

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Before the first step: a codebook among the first batch's encoder outputs, if the configuration says so."""
        if not self.quantizer.ready:
            with torch.no_grad():
                self.quantizer.start(self.encoder(batch[0]), generator)

    def after_step(self, generator: torch.Generator) -> None:
        """After each optimiser step: moving averages and dead codes."""
        self.quantizer.update(generator)
