"""Pictures of reconstructions show what the model answers, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import made_up_images
from PIL import Image

from vqvae_core.config import VQVAEConfig
from vqvae_core.data import Dataset
from vqvae_core.likelihood import to_levels, to_unit
from vqvae_core.models import build
from vqvae_core.pictures import grid, reconstruct, save_reconstructions
from vqvae_core.vqvae import VQVAE


def model_for(dataset: Dataset) -> VQVAE:
    torch.manual_seed(0)
    return build(VQVAEConfig(hidden=8, residual_blocks=1, num_codes=16, code_dim=4, batch_norm=True), dataset.shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_has_every_image_in_its_place(channels: int) -> None:
    rows = [made_up_images(3, (4, 6, channels)), made_up_images(2, (4, 6, channels), seed=1)]
    picture = np.asarray(grid(rows, gap=2, least_width=1))
    assert picture.shape[:2] == (4 + 2 + 4, 6 + 2 + 6 + 2 + 6)
    picture = picture.reshape(10, 22, channels)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            np.testing.assert_array_equal(picture[6 * y : 6 * y + 4, 8 * x : 8 * x + 6], image)
    assert (picture[4:6] == 255).all() and (picture[6:, 16:] == 255).all()  # gaps, and where there is no image


def test_a_small_grid_is_enlarged_without_smoothing() -> None:
    images = made_up_images(2, (4, 4, 1))
    small, large = (np.asarray(grid([images], least_width=width)) for width in (1, 100))
    assert large.shape == (40, 100)
    np.testing.assert_array_equal(large[::10, ::10], small)


def test_a_reconstruction_is_the_decoded_code(made_up_rgb: Dataset) -> None:
    model, images = model_for(made_up_rgb), made_up_rgb.images("valid")[:3]
    found = reconstruct(model, images)
    assert found.shape == images.shape and found.dtype == np.uint8 and not model.training
    with torch.no_grad():
        mean = model(to_unit(torch.tensor(images).permute(0, 3, 1, 2))).mean
    expected = to_levels(mean).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_a_picture_holds_originals_over_reconstructions(made_up_rgb: Dataset, tmp_path: Path) -> None:
    model = model_for(made_up_rgb)
    save_reconstructions(model, made_up_rgb, "valid", tmp_path / "picture.png", count=3)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    chosen = made_up_rgb.images("valid")[[0, 10, 20]]
    expected = grid([chosen, reconstruct(model, chosen)])
    with Image.open(tmp_path / "picture.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    save_reconstructions(model, made_up_rgb, "test", tmp_path / "all.png", count=99)  # there are five
