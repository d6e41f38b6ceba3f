"""The puzzles' own measurements, small: what they call the report's way computes what the report's code computes."""

from __future__ import annotations

import torch
from made_up import made_up_images
from torch import nn

from sweeps.puzzles.definitions import ANSWERS, blurred
from sweeps.puzzles.in_place import InPlaceResidual, looked_at, the_reports_blocks
from sweeps.puzzles.memory import WAYS
from vqvae_core import convolutions
from vqvae_core.config import VQVAEConfig
from vqvae_core.likelihood import to_unit
from vqvae_core.models import build
from vqvae_core.quantize import nearest


def config() -> VQVAEConfig:
    return VQVAEConfig(hidden=8, code_dim=8, num_codes=16, residual_blocks=2, codebook_init="normal")


def test_the_reports_block_is_the_one_whose_first_relu_works_in_place() -> None:
    torch.manual_seed(0)
    block = InPlaceResidual(config())
    x = torch.randn(2, 8, 4, 4)
    literally = nn.Sequential(nn.ReLU(inplace=True), *list(block.block)[1:])
    rewritten = x.clone()
    with torch.no_grad():
        expected = rewritten + literally(rewritten)  # x is rewritten before it is added, as in modules.py
        swapped = literally(other := x.clone()) + other
        assert torch.equal(block(x), swapped)
        assert torch.equal(rewritten, x.relu()) and torch.equal(block(x), expected)


def test_blocks_are_the_reports_only_inside() -> None:
    ours = convolutions.Residual
    with the_reports_blocks():
        model = build(config(), (8, 8, 1))
    assert convolutions.Residual is ours
    assert sum(isinstance(part, InPlaceResidual) for part in model.modules()) == 4
    assert not any(isinstance(part, InPlaceResidual) for part in build(config(), (8, 8, 1)).modules())


def test_a_code_below_zero_is_seen_by_our_decoder_and_not_by_the_reports() -> None:
    images = to_unit(torch.tensor(made_up_images(8, (8, 8, 1))).permute(0, 3, 1, 2))
    wide = VQVAEConfig(hidden=64, code_dim=64)  # as in the puzzle: its codes are small, so that blocks can lift them
    torch.manual_seed(0)
    ours = looked_at(build(wide, (8, 8, 1)), images)
    with the_reports_blocks():
        torch.manual_seed(0)
        theirs = looked_at(build(wide, (8, 8, 1)), images)
    assert all(0 < found["codes/not_positive"] < 1 for found in (ours, theirs))
    assert theirs["codes/not_positive_without_gradient"] == 1
    assert theirs["codes/rectified_changes_output"] == 0 < ours["codes/rectified_changes_output"]
    assert ours["codes/not_positive_without_gradient"] < 0.8


def test_all_ways_to_search_find_the_same_codes() -> None:
    x, e = torch.randn(50, 6), torch.randn(16, 6)
    found = [eval(way, {"x": x, "e": e, "nearest": nearest}) for way in WAYS.values()]
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_a_blurred_image_has_the_mean_and_less_contrast() -> None:
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    soft = blurred(images)
    assert soft.shape == images.shape and float(soft.std()) < float(images.std()) / 2
    assert torch.allclose(soft[:, :, 4, 4], images[:, :, 2:7, 2:7].mean((2, 3)), atol=1e-6)
    constant = torch.full((1, 1, 8, 8), 0.3)
    assert torch.allclose(blurred(constant), constant)
    assert set(ANSWERS) == {"the model", "the model, blurred", "a grey image"}
