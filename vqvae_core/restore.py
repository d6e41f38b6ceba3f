"""From a state of ``fit`` to the trained model, of either stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqvae_core.config import HierarchyConfig, PriorConfig
from vqvae_core.first_stage import first_stage
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.models import build
from vqvae_core.overrides import unflatten
from vqvae_core.prior import Prior
from vqvae_core.trainable import Trainable


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
