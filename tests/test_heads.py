"""Every head gives probabilities of integers, means that are theirs, and gradients that training can use."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vqvae_core.config import ImageModelConfig
from vqvae_core.heads import Head, MeanHead, head
from vqvae_core.likelihood import LEVELS, LOG_MASS, bits_per_dim, to_levels, to_unit

HEADS: dict[str, dict[str, Any]] = {
    "logistic, fitted": {"likelihood": "logistic"},
    "gaussian, fitted": {"likelihood": "gaussian"},
    "logistic, global": {"likelihood": "logistic", "scale": "global"},
    "gaussian, channel": {"likelihood": "gaussian", "scale": "channel"},
    "categorical": {"likelihood": "categorical"},
    "mixture": {"likelihood": "mixture"},
    "mixture of one": {"likelihood": "mixture", "mixture_components": 1},
}


def made(name: str, channels: int = 3) -> tuple[Head, float | None]:
    """A head, and the log scale that it must be told."""
    module = head(ImageModelConfig(**HEADS[name]), channels)
    return module, 1.5 if isinstance(module, MeanHead) and module.fitted else None


def raw_for(module: Head, count: int = 2, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(count, module.channels, 3, 4, generator=torch.Generator().manual_seed(1))


def levels_for(count: int = 2, channels: int = 3) -> Tensor:
    return torch.randint(0, LEVELS, (count, channels, 3, 4), generator=torch.Generator().manual_seed(2))


def masses(module: Head, raw: Tensor, log_scale: float | None) -> Tensor:
    """P of each level: (256, B, C, H, W) float64."""
    shape = (len(raw), 3, *raw.shape[2:])
    with torch.no_grad():
        return torch.stack(
            [module.log_mass(raw, torch.full(shape, v, dtype=raw.dtype), log_scale).double().exp() for v in range(256)]
        )


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_the_masses_of_all_levels_sum_to_one(name: str, spread: float) -> None:
    module, log_scale = made(name)
    exact = masses(module.double(), raw_for(module, spread=spread).double(), log_scale).sum(0)
    torch.testing.assert_close(exact, torch.ones_like(exact), rtol=0, atol=1e-6)
    single = masses(module.float(), raw_for(module, spread=spread), log_scale).sum(0)
    torch.testing.assert_close(single, torch.ones_like(single), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["categorical", "mixture"])
def test_the_mean_is_that_of_the_masses(name: str) -> None:
    module, _ = made(name)
    raw = raw_for(module).double()
    if name == "mixture":  # its components' means and scales well inside the range, where cut tails shift nothing
        raw = raw.unflatten(1, (3, 3, 5))
        raw[:, :, 1] *= 0.03
        raw[:, :, 2] = -2
        raw = raw.flatten(1, 3)
    expected = (masses(module.double(), raw, None) * torch.arange(256.0).double().view(-1, 1, 1, 1, 1)).sum(0)
    torch.testing.assert_close(to_levels(module.mean(raw)), expected, rtol=0, atol=0.02)


def test_equal_logits_cost_eight_bits_exactly() -> None:
    module, _ = made("categorical")
    nats = module.nll(torch.zeros(2, module.channels, 3, 4), levels_for())
    assert [bits_per_dim(float(n), 36) for n in nats] == [pytest.approx(8.0, abs=1e-6)] * 2


@pytest.mark.parametrize("name", HEADS)
def test_nll_sums_over_an_images_values(name: str) -> None:
    module, log_scale = made(name)
    raw, levels = raw_for(module), levels_for()
    found = module.nll(raw, levels, log_scale)
    assert found.dtype == torch.float64 and found.shape == (2,)
    by_hand = -module.log_mass(raw, levels.float(), log_scale).double()
    torch.testing.assert_close(found, by_hand.flatten(1).sum(1))


@pytest.mark.parametrize("name", HEADS)
def test_what_training_minimises_is_the_nll_or_the_squared_error(name: str) -> None:
    module, _ = made(name)
    raw, levels = raw_for(module), levels_for()
    images = to_unit(levels)
    found = module.distortion(raw, images)
    if name.endswith("fitted"):
        torch.testing.assert_close(found, (raw - images).pow(2).flatten(1).mean(1))
    else:
        torch.testing.assert_close(found.double(), module.nll(raw, levels) / 36, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0])
def test_gradients_are_finite_however_wrong_the_decoder_is(name: str, spread: float) -> None:
    module, _ = made(name)
    raw = raw_for(module, spread=spread).requires_grad_()
    edges = torch.tensor([0, 255]).repeat(18).view(1, 3, 3, 4).expand(2, -1, -1, -1)
    for levels in (levels_for(), edges):
        for gradient in torch.autograd.grad(
            module.distortion(raw, to_unit(levels)).sum(), [raw, *module.parameters()], retain_graph=True
        ):
            assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize(("name", "count"), [("logistic, global", 1), ("gaussian, channel", 3)])
def test_a_learned_scale_finds_the_best_one(name: str, count: int) -> None:
    module, _ = made(name)
    assert isinstance(module, MeanHead) and module.log_scale is not None and module.log_scale.numel() == count
    generator = torch.Generator().manual_seed(3)
    mean = torch.full((64, 3, 8, 8), 0.1)
    spreads = torch.tensor([3.0, 3.0, 3.0] if count == 1 else [2.0, 5.0, 12.0])[:, None, None]
    levels = (to_levels(mean) + spreads * torch.randn(mean.shape, generator=generator)).round().clamp(0, 255)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        module.distortion(mean, to_unit(levels)).mean().backward()
        optimizer.step()
    found = module.log_scale.detach().flatten()
    for channel in range(count):
        own = slice(None) if count == 1 else channel

        def cost(log_scale: float, own: Any = own) -> float:
            return -float(LOG_MASS[module.kind](levels[:, own], to_levels(mean[:, own]), log_scale).mean())

        best = float(found[channel])
        assert cost(best) <= min(cost(best - 0.03), cost(best + 0.03))
        assert module.kind == "logistic" or math.exp(best) == pytest.approx(float(spreads[channel]), rel=0.05)


def test_a_mixture_can_be_sure_of_an_edge_and_of_what_lies_between() -> None:
    """What one scale cannot: black to the bit beside grey that is uncertain, as in digits on paper."""
    module, _ = made("mixture", channels=1)
    raw = torch.zeros(1, 3, 5, 1, 1)
    raw[:, 0, 0] = 20.0  # all weight on the first component
    raw[:, 1, 0] = -3.0  # far below black
    raw[:, 2] = -5.0
    black = module.log_mass(raw.flatten(1, 2), torch.zeros(1, 1, 1, 1)).exp()
    assert float(black) == pytest.approx(1, abs=1e-6)
