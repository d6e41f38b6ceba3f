"""How many parameters a tracked configuration has: as noted, else counted on a model without memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

from analysis.runs import Run

NOTED = ("model/parameters", "train/parameters")
MODELS = 300  # different ones that are built to be counted; each takes milliseconds


class Counter:
    """Counts the parameters of many runs; those of the same model once. NaN where they cannot be known."""

    def __init__(self, shape: str) -> None:
        parts = shape.split("x")
        self.shape = tuple(map(int, parts)) if len(parts) == 3 and all(map(str.isdecimal, parts)) else None
        self._known: dict[tuple[tuple[str, str], ...], float] = {}

    def __call__(self, run: Run) -> float:
        """The number of parameters of a run's model."""
        noted = next((run.metrics[name] for name in NOTED if name in run.metrics), None)
        if noted is not None:
            return noted
        # What weighs a loss or tells how a codebook moves has no parameters of its own.
        model = {name: value for name, value in run.params.items() if name.startswith("model.")}
        key = tuple(sorted((name, value) for name, value in model.items() if name not in ("model.beta",)))
        if key not in self._known:
            full = self.shape is None or len(self._known) >= MODELS
            self._known[key] = math.nan if full else count(model, self.shape or (0, 0, 0))
        return self._known[key]


def count(model: Mapping[str, str], shape: tuple[int, ...]) -> float:
    """Parameters of a model for images of a shape (H, W, C); NaN for one that this version does not know."""
    try:
        return float(_built(tuple(sorted(model.items())), shape))
    except (ValueError, TypeError, ImportError, RuntimeError):
        return math.nan


@cache
def _built(model: tuple[tuple[str, str], ...], shape: tuple[int, ...]) -> int:
    import torch  # seconds, and only needed here

    from vqvae_core.config import ImageModelConfig
    from vqvae_core.models import build
    from vqvae_core.overrides import unflatten

    height, width, channels = shape
    config = unflatten(dict(model)).model
    if not isinstance(config, ImageModelConfig):
        raise ValueError(f"a {config.type} is not built without the VQ-VAE that it stands on")
    with torch.device("meta"):
        network = build(config, (height, width, channels))
    return sum(parameter.numel() for parameter in network.parameters())
