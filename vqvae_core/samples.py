"""Images from a learned prior: code maps drawn from it, through the first stage's decoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.batches import mix
from vqvae_core.hierarchy_task import pictures_of
from vqvae_core.prior import Prior
from vqvae_core.sampling import Progress, sample

COLUMNS, MOST_CLASSES = 8, 10  # of a grid of samples


def seen_classes(model: Prior) -> list[int]:
    """The classes that training saw."""
    return [int(c) for c in model.pixelcnn.seen_classes[:-1].nonzero().flatten()]


def draw_maps(
    model: Prior,
    labels: list[int] | None,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    given: Tensor | None = None,
    keep: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
    incremental: bool = True,
) -> Tensor:
    """Code maps (N, G, h, w) for N labels, or ``count`` of the null class; arguments as of ``sample``."""
    _, rows, columns = model.first.latent_shape
    classes = None if labels is None else torch.tensor(labels, device=model.pixelcnn.bias.device)
    return sample(
        model.pixelcnn,
        rows,
        columns,
        count=count if labels is None else None,
        labels=classes,
        temperature=temperature,
        top_k=top_k,
        given=given,
        keep=keep,
        generator=torch.Generator().manual_seed(mix("samples", seed)),
        batch_size=batch_size,
        progress=progress,
        incremental=incremental,
    )


def sample_rows(model: Prior, seed: int = 0) -> list[NDArray[np.uint8]]:
    """A small grid of samples: a row of eight for each class, at most ten, or two rows of the null class."""
    classes = seen_classes(model)
    chosen = [classes[i] for i in np.linspace(0, len(classes) - 1, min(len(classes), MOST_CLASSES)).astype(int)]
    labels = [c for c in chosen for _ in range(COLUMNS)] if chosen else None
    images = pictures_of(model.first, draw_maps(model, labels, 2 * COLUMNS, seed=seed))
    return [images[start : start + COLUMNS] for start in range(0, len(images), COLUMNS)]
