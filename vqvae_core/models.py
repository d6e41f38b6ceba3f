"""Which class belongs to which configuration: the one place that chooses."""

from __future__ import annotations

from vqvae_core.config import ModelConfig, VQVAEConfig
from vqvae_core.vqvae import VQVAE


def build(config: ModelConfig, shape: tuple[int, int, int]) -> VQVAE:
    """A model with fresh weights, for images of shape (H, W, C)."""
    match config:
        case VQVAEConfig():
            return VQVAE(config, shape)
