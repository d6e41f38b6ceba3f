"""Models whose encoder answers a distribution over the codes at every position: what VIMCO and dVAE share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqvae_core.config import CategoricalConfig
from vqvae_core.image_model import ImageModel
from vqvae_core.likelihood import at_least_float32
from vqvae_core.posterior import Categorical, Certain


class CategoricalModel(ImageModel):
    """An encoder to logits, a table of K vectors for each of G codes at a position, and the decoder."""

    config: CategoricalConfig
    latent_shape: tuple[int, int, int]
    num_codes: int

    def __init__(self, config: CategoricalConfig, shape: tuple[int, int, int]) -> None:
        G = config.codes_per_position
        super().__init__(config, shape, G * config.num_codes, G * config.code_dim)
        self.num_codes = config.num_codes

    def build_latent(self) -> None:
        """The table of the codes' vectors."""
        G, K, D = self.config.codes_per_position, self.config.num_codes, self.config.code_dim
        self.latent_shape = (G, *self.map_shape)
        self.table = nn.Parameter(torch.randn(G, K, D))

    def log_probs(self, images: Tensor) -> Tensor:
        """log q(z | x): (B, G, h, w, K), at least in float32."""
        logits = at_least_float32(self.encoder(images)).unflatten(1, (-1, self.num_codes))  # B G K h w
        return logits.permute(0, 1, 3, 4, 2).log_softmax(-1)

    def posterior(self, images: Tensor) -> Categorical | Certain:
        log_probs = self.log_probs(images)
        return Categorical(log_probs) if self.stochastic else Certain(log_probs.argmax(-1), self.num_codes)

    def be_certain(self) -> None:
        """From now on q(z | x) is its likeliest z alone, the code of an image, as a VQ-VAE has it.

        -log p(x) <= -log p(x | z) - log p(z) for every z: distortion plus rate stays an upper bound.
        """
        self.stochastic = False

    def embed(self, z: Tensor) -> Tensor:
        """The table's vectors (B, G * D, h, w) for codes (B, G, h, w)."""
        vectors = torch.stack([table[codes] for table, codes in zip(self.table, z.unbind(1), strict=True)], 1)
        return vectors.permute(0, 1, 4, 2, 3).flatten(1, 2)

    def mix(self, weights: Tensor) -> Tensor:
        """Mixed vectors (B, G * D, h, w) for weights (B, G, h, w, K) of the codes."""
        return torch.einsum("bghwk,gkd->bgdhw", weights, self.table).flatten(1, 2)
