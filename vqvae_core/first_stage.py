"""The trained model that a second stage stands on: its codes are the data, its decoder makes images of samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vqvae_core.categorical import CategoricalModel
from vqvae_core.config import CategoricalConfig, Experiment, VQVAEConfig
from vqvae_core.models import build
from vqvae_core.overrides import flatten, unflatten
from vqvae_core.trainable import State
from vqvae_core.vqvae import VQVAE


@dataclass(frozen=True)
class FirstStage:
    """A model of discrete codes in evaluation mode, and the experiment that trained it.

    A dVAE's or VIMCO's codes are the likeliest ones of an image: ``CategoricalModel.be_certain``.
    """

    experiment: Experiment
    model: VQVAE | CategoricalModel

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """G, h, w of one image's codes."""
        return self.model.latent_shape

    @property
    def num_latents(self) -> int:
        """M, codes of one image."""
        return math.prod(self.latent_shape)

    @property
    def num_codes(self) -> int:
        """K, values of a code."""
        return self.model.config.num_codes

    @property
    def dims(self) -> int:
        """Values in one image."""
        height, width, channels = self.model.shape
        return height * width * channels

    @cached_property
    def key(self) -> str:
        """A hash of configuration and weights: equal codes are to be expected from equal keys."""
        config = self.model.config
        digest = hashlib.sha256(repr((config, self.model.shape)).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def state(self) -> State:
        """Itself as a part of a second stage's state."""
        return {
            "experiment": flatten(self.experiment),
            "shape": list(self.model.shape),
            "model": {name: tensor.cpu() for name, tensor in self.model.state_dict().items()},
        }


def first_stage(state: Mapping[str, Any]) -> FirstStage:
    """The first stage that ``FirstStage.state`` was of."""
    experiment = unflatten(state["experiment"])
    config = experiment.model
    if not isinstance(config, VQVAEConfig | CategoricalConfig):
        raise ValueError(
            f"model.first is a {config.type}; allowed is a vqvae, dvae or vimco, whose codes a second stage learns"
        )
    height, width, channels = state["shape"]
    model = build(config, (height, width, channels))
    if isinstance(model, CategoricalModel):
        model.be_certain()
    model.load_state_dict(state["model"])
    return FirstStage(experiment, model.eval().requires_grad_(False))
