"""Which model of images belongs to which configuration: the one place that chooses."""

from __future__ import annotations

from typing import overload

from vqvae_core.categorical import CategoricalModel
from vqvae_core.config import (
    CategoricalConfig,
    DVAEConfig,
    ImageModelConfig,
    VAEConfig,
    VIMCOConfig,
    VQVAEConfig,
)
from vqvae_core.dvae import DVAE
from vqvae_core.image_model import ImageModel
from vqvae_core.vae import VAE
from vqvae_core.vimco import VIMCO
from vqvae_core.vqvae import VQVAE


@overload
def build(config: VQVAEConfig, shape: tuple[int, int, int]) -> VQVAE: ...
@overload
def build(config: VQVAEConfig | CategoricalConfig, shape: tuple[int, int, int]) -> VQVAE | CategoricalModel: ...
@overload
def build(config: ImageModelConfig, shape: tuple[int, int, int]) -> ImageModel: ...
def build(config: ImageModelConfig, shape: tuple[int, int, int]) -> ImageModel:
    """A model of images with fresh weights, for images of shape (H, W, C)."""
    match config:
        case VQVAEConfig():
            return VQVAE(config, shape)
        case VAEConfig():
            return VAE(config, shape)
        case VIMCOConfig():
            return VIMCO(config, shape)
        case DVAEConfig():
            return DVAE(config, shape)
        case _:
            raise TypeError(f"there is no model for a {type(config).__name__}")
