"""Which class belongs to which configuration: the one place that chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqvae_core.config import HierarchyConfig, ModelConfig, PriorConfig, VQVAEConfig
from vqvae_core.first_stage import FirstStage, first_stage
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.overrides import unflatten
from vqvae_core.prior import Prior
from vqvae_core.trainable import Trainable
from vqvae_core.vqvae import VQVAE


def build(config: VQVAEConfig, shape: tuple[int, int, int]) -> VQVAE:
    """A model of images with fresh weights, for images of shape (H, W, C)."""
    return VQVAE(config, shape)


def restore(state: Mapping[str, Any], shape: tuple[int, int, int]) -> Trainable:
    """The model that a state of ``fit`` is of, in evaluation mode; ``shape`` is the images' (H, W, C)."""
    first = first_stage(state["first"]) if "first" in state else None
    model = _fresh(unflatten(state["experiment"]).model, shape, first, state["model"])
    model.load_state_dict(state["model"])
    return model.eval()


def _fresh(
    config: ModelConfig, shape: tuple[int, int, int], first: FirstStage | None, weights: Mapping[str, Any]
) -> Trainable:
    match config, first:
        case VQVAEConfig(), _:
            return build(config, shape)
        case PriorConfig(), FirstStage():
            return Prior(config, first, num_classes=len(weights["pixelcnn.seen_classes"]) - 1)
        case HierarchyConfig(), FirstStage():
            return Hierarchy(config, first)
        case _:
            raise ValueError(f"the state of a {config.type} lacks the first stage that it stands on")
