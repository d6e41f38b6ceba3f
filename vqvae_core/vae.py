"""A VAE with a Gaussian latent: a vector for the whole image, as in the report, or one at each position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vqvae_core.config import VAEConfig
from vqvae_core.image_model import ImageModel, Output
from vqvae_core.likelihood import at_least_float32
from vqvae_core.posterior import Normal


class VAE(ImageModel):
    """Encoder to a mean and a log variance, decoder from a sample (Kingma and Welling 2014)."""

    config: VAEConfig

    def __init__(self, config: VAEConfig, shape: tuple[int, int, int]) -> None:
        channels = config.latent_dim if config.latent_map else config.hidden
        super().__init__(config, shape, 2 * channels if config.latent_map else channels, channels)
        self.noise = self.latent_shape

    def build_latent(self) -> None:
        """For a vector, linear layers from the encoder's map and to the decoder's; a map needs none."""
        L = self.config.latent_dim
        self.latent_shape = (L, *self.map_shape) if self.config.latent_map else (L,)
        if not self.config.latent_map:
            features = self.config.hidden * math.prod(self.map_shape)
            self.to_latent, self.from_latent = nn.Linear(features, 2 * L), nn.Linear(L, features)

    def posterior(self, images: Tensor) -> Normal:
        features = self.encoder(images)
        if not self.config.latent_map:
            features = self.to_latent(features.relu().flatten(1))
        mean, log_variance = at_least_float32(features).chunk(2, 1)
        return Normal(mean, log_variance)

    def embed(self, z: Tensor) -> Tensor:
        if self.config.latent_map:
            return z
        features: Tensor = self.from_latent(z)
        return features.unflatten(1, (self.config.hidden, *self.map_shape))

    def forward(self, images: Tensor, uniforms: Tensor) -> Output:
        """The negative ELBO per dimension of images (B, C, H, W) in [-1, 1]; uniform numbers (B, *latent_shape).

        With a scale that is fitted later the squared errors stand for the likelihood: the report's loss, in which the
        decoder's variance is 1/2.
        """
        posterior = self.posterior(images)
        raw = self.raw(posterior.sample(uniforms))
        kl = posterior.kl() / math.prod(self.shape)
        return self.output(raw, images, {"kl": kl}, kl)

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] of latents from the prior."""
        z = torch.randn(count, *self.latent_shape, generator=generator)
        return self.decode(z.to(next(self.parameters()).device))
