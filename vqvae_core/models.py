"""Which class belongs to which configuration: the one place that chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

from vqvae_core.config import (
    DVAEConfig,
    HierarchyConfig,
    ImageModelConfig,
    PriorConfig,
    VAEConfig,
    VIMCOConfig,
    VQVAEConfig,
)
from vqvae_core.dvae import DVAE
from vqvae_core.first_stage import first_stage
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.image_model import ImageModel
from vqvae_core.overrides import unflatten
from vqvae_core.prior import Prior
from vqvae_core.trainable import Trainable
from vqvae_core.vae import VAE
from vqvae_core.vimco import VIMCO
from vqvae_core.vqvae import VQVAE


@overload
def build(config: VQVAEConfig, shape: tuple[int, int, int]) -> VQVAE: ...
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


def restore(state: Mapping[str, Any], shape: tuple[int, int, int]) -> Trainable:
    """The model that a state of ``fit`` is of, in evaluation mode; ``shape`` is the images' (H, W, C)."""
    config, weights = unflatten(state["experiment"]).model, state["model"]
    model: Trainable
    match config:
        case PriorConfig():
            classes = len(weights["pixelcnn.seen_classes"]) - 1
            model = Prior(config, first_stage(state["first"]), classes)
        case HierarchyConfig():
            model = Hierarchy(config, first_stage(state["first"]))
        case _:
            model = build(config, shape)
    model.load_state_dict(weights)
    return model.eval()
