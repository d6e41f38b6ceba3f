"""Models side by side in one picture: the same images through each of them, and what each draws from its own prior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis._models import Found
from vqvae_core.batches import Images
from vqvae_core.data import Dataset
from vqvae_core.hardware import choose_device, choose_precision, precision_context
from vqvae_core.image_model import ImageModel
from vqvae_core.likelihood import to_levels
from vqvae_core.metrics import calibrate
from vqvae_core.pictures import grid, reconstruct, write_picture
from vqvae_core.posterior import EDGE, Categorical

COUNT = 12  # images in a row


def draw(models: Sequence[Found], dataset: Dataset, split: str, path: Path, seed: int = 0) -> list[str]:
    """Write the picture; gives what its rows are, from the top. ``ValueError`` where a model is not one of images.

    The first row is images of the split; then a row of reconstructions for each model, then one of samples for each.
    """
    chosen = dataset.images(split)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(COUNT, len(chosen))).astype(np.int64)]
    rows, names = [chosen], [f"images of {split}"]
    drawn: list[tuple[str, NDArray[np.uint8]]] = []
    for found in models:
        model, kind = found.model, found.experiment.model.type
        if not isinstance(model, ImageModel):
            raise ValueError(f"{found.origin} is a {kind}; allowed are models of images")
        rows.append(reconstruct(model, chosen))
        names.append(f"{kind}: reconstructions")
        prior = "N(0, 1)" if model.num_codes is None else "the unigram prior, each code by itself"
        drawn.append((f"{kind}: samples of {prior}", samples(found, model, dataset, seed)))
    write_picture(grid([*rows, *(images for _, images in drawn)]), path)
    return [*names, *(name for name, _ in drawn)]


@torch.no_grad()
def samples(found: Found, model: ImageModel, dataset: Dataset, seed: int) -> NDArray[np.uint8]:
    """Images (COUNT, H, W, C) of z drawn from the prior that prices it in bits/dim."""
    device, config = choose_device(found.experiment), found.experiment.train
    precision = precision_context(device, choose_precision(found.experiment, device))
    model = model.to(device).eval()
    uniforms = torch.rand(COUNT, *model.latent_shape, generator=torch.Generator().manual_seed(seed)).to(device)
    z: Tensor
    if model.num_codes is None:
        z = torch.special.ndtri(uniforms.clamp(EDGE, 1 - EDGE))
    else:
        train = Images(dataset, "train", device)
        log_prior = calibrate(model, train, config.calibration_images, config.eval_batch, precision).log_prior
        assert log_prior is not None
        log_probs = log_prior.float()[None, :, None, None, :].expand(*uniforms.shape, -1)
        z = Categorical(log_probs.contiguous()).sample(uniforms)
    levels = to_levels(model.decode(z)).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
