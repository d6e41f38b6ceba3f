"""Which class belongs to which configuration: the one place that chooses."""

from __future__ import annotations

from typing import overload

from vqvae_core.config import DVAEConfig, ModelConfig, VAEConfig, VIMCOConfig, VQVAEConfig
from vqvae_core.dvae import DVAE
from vqvae_core.image_model import ImageModel
from vqvae_core.vae import VAE
from vqvae_core.vimco import VIMCO
from vqvae_core.vqvae import VQVAE


@overload
def build(config: VQVAEConfig, shape: tuple[int, int, int]) -> VQVAE: ...
@overload
def build(config: ModelConfig, shape: tuple[int, int, int]) -> ImageModel: ...
def build(config: ModelConfig, shape: tuple[int, int, int]) -> ImageModel:
    """A model with fresh weights, for images of shape (H, W, C)."""
    match config:
        case VQVAEConfig():
            return VQVAE(config, shape)
        case VAEConfig():
            return VAE(config, shape)
        case VIMCOConfig():
            return VIMCO(config, shape)
        case DVAEConfig():
            return DVAE(config, shape)
