"""Pictures of what a model does: originals over their reconstructions, samples in rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vqvae_core.data import Dataset
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.hierarchy_task import pictures_of, second_reconstruction
from vqvae_core.image_model import ImageModel
from vqvae_core.likelihood import to_levels, to_unit
from vqvae_core.prior import Prior
from vqvae_core.samples import sample_rows
from vqvae_core.trainable import Trainable


def grid(rows: list[NDArray[np.uint8]], gap: int = 2, least_width: int = 640) -> Image.Image:
    """Rows of images, each (N, H, W, C) uint8 with C 1 or 3, as one picture, enlarged without smoothing."""
    count = max(len(row) for row in rows)
    height, width, channels = rows[0].shape[1:]
    canvas = np.full((len(rows) * (height + gap) - gap, count * (width + gap) - gap, channels), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas[..., 0] if channels == 1 else canvas)
    scale = max(1, round(least_width / picture.width))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


@torch.no_grad()
def reconstruct(model: ImageModel, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, H, W, C) uint8 through the codes and back."""
    model.eval()
    device = next(model.parameters()).device
    unit = to_unit(torch.tensor(images, device=device).permute(0, 3, 1, 2))
    levels = to_levels(model.decode(model.encode(unit))).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def save_reconstructions(model: ImageModel, dataset: Dataset, split: str, path: Path, count: int = 10) -> None:
    """Write a PNG with ``count`` images, evenly spread over a split, above their reconstructions."""
    images = dataset.images(split)
    chosen = images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64)]
    write_picture(grid([chosen, reconstruct(model, chosen)]), path)


def save_picture(model: Trainable, dataset: Dataset, split: str, folder: Path, prefix: str = "") -> Path:
    """Write into a folder the PNG that shows what a model does, and give its path.

    Of a prior: samples. Of a second VQ-VAE: originals, what the first makes of them, and what the second leaves.
    """
    match model:
        case ImageModel():
            path = folder / f"{prefix}reconstructions.png"
            save_reconstructions(model, dataset, split, path)
        case Prior():
            path = folder / f"{prefix}samples.png"
            write_picture(grid(sample_rows(model)), path)
        case Hierarchy():
            path = folder / f"{prefix}reconstructions.png"
            write_picture(grid(both_reconstructions(model, dataset, split)), path)
        case _:
            raise TypeError(f"no picture is known for a {type(model).__name__}")
    return path


def both_reconstructions(
    model: Hierarchy, dataset: Dataset, split: str, count: int = 8, seed: int = 0
) -> list[NDArray[np.uint8]]:
    """Rows: images evenly spread over a split, their first and their second reconstructions."""
    device = model.pixelcnn.bias.device
    images = dataset.images(split)
    chosen = images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64)]
    first = model.first
    indices = first.model.encode(to_unit(torch.tensor(chosen).permute(0, 3, 1, 2))).to(device)
    return [chosen, pictures_of(first, indices), pictures_of(first, second_reconstruction(model, indices, seed))]


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    picture.save(temporary, "PNG")
    temporary.replace(path)
