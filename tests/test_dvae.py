"""The dVAE: its relaxation at both ends of the temperature, its schedule, and that it is evaluated hard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vqvae_core.config import DVAEConfig, Experiment, TrainConfig
from vqvae_core.data import Dataset
from vqvae_core.dvae import DVAE
from vqvae_core.models import build
from vqvae_core.posterior import Categorical
from vqvae_core.train import fit

SMALL = DVAEConfig(hidden=8, residual_blocks=1, num_codes=5, code_dim=3, codes_per_position=2, likelihood="mixture")


def model(**fields: Any) -> DVAE:
    torch.manual_seed(0)
    made = build(replace(SMALL, **fields), (12, 8, 3))
    assert isinstance(made, DVAE)
    return made


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 12, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def uniforms(net: DVAE, count: int = 4) -> Tensor:
    return torch.rand(count, *net.noise, generator=torch.Generator().manual_seed(2))


def test_a_low_temperature_chooses_as_often_as_q_says() -> None:
    net = model()
    net.temperature = 1e-3
    log_probs = torch.tensor([0.5, 0.3, 0.1, 0.07, 0.03]).log().expand(20_000, 1, 1, 1, 5)
    weights = net.relax(log_probs, torch.rand(log_probs.shape, generator=torch.Generator().manual_seed(0)))
    assert float(weights.max(-1).values.mean()) > 0.99
    torch.testing.assert_close(weights.mean((0, 1, 2, 3)), log_probs[0, 0, 0, 0].exp(), rtol=0, atol=0.01)


def test_straight_through_is_hard_in_value_and_relaxed_in_gradient() -> None:
    hard, soft = model(straight_through=True), model()
    log_probs = hard.log_probs(images()).detach().requires_grad_()
    noise = uniforms(hard)
    values = hard.relax(log_probs, noise)
    assert values.detach().round().equal(torch.nn.functional.one_hot(values.argmax(-1), 5).float())
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(3))
    (ours,) = torch.autograd.grad((values * weights).sum(), log_probs)
    (theirs,) = torch.autograd.grad((soft.relax(log_probs, noise) * weights).sum(), log_probs)
    torch.testing.assert_close(ours, theirs)


def test_hard_weights_mix_to_the_codes_vectors() -> None:
    net = model()
    z = net.encode(images())
    one_hot = torch.nn.functional.one_hot(z, 5).float()
    torch.testing.assert_close(net.mix(one_hot), net.embed(z))


def test_temperature_falls_and_the_kls_weight_rises_until_they_are_where_they_end() -> None:
    net = model(temperature=2.0, last_temperature=0.125, annealed_by=0.5)
    seen = []
    for progress in (0.0, 0.125, 0.25, 0.5, 0.9):
        net.before_step(progress)
        seen.append((net.temperature, net.kl_weight))
    assert seen[0] == (2.0, 0.0) and seen[-1] == seen[-2] == (pytest.approx(0.125), 1.0)
    assert seen[1] == (pytest.approx(1.0), 0.25) and seen[2] == (pytest.approx(0.5), 0.5)


def test_the_loss_is_the_distortion_plus_the_weighted_divergence() -> None:
    net = model()
    net.before_step(0.2)
    out = net(images(), uniforms(net))
    torch.testing.assert_close(out.loss, out.parts["distortion"] + net.kl_weight * out.parts["kl"])
    exact = net.posterior(images()).rates(None)["uniform"].detach() / 288
    torch.testing.assert_close(out.parts["kl"].detach().double(), exact, rtol=1e-5, atol=1e-6)
    assert float(exact.max()) < net.latent_shape[0] * 6 * math.log(5) / 288


def test_it_is_evaluated_with_hard_codes() -> None:
    net = model().eval()
    posterior = net.posterior(images())
    assert isinstance(posterior, Categorical)
    z = posterior.sample(torch.rand(4, *net.latent_shape))
    assert z.dtype == torch.int64
    net.temperature = 100.0  # of no consequence
    first = net.raw(z)
    net.temperature = 0.01
    assert net.raw(z).equal(first)


def test_another_budget_is_another_run(tiny_on: Callable[..., Experiment], made_up: Dataset) -> None:
    """The schedule is a share of the budget: gone on with another, the run would be neither the one nor the other."""
    base = tiny_on()
    experiment = replace(base, model=replace(SMALL, codes_per_position=1))
    first = next(fit(experiment, dataset=made_up))
    assert isinstance(experiment.train, TrainConfig)
    longer = replace(experiment, train=replace(experiment.train, images=96))
    with pytest.raises(ValueError, match=r"another experiment's: train.images 48 -> 96"):
        next(fit(longer, first.state, made_up))
    assert [report.images_seen for report in fit(experiment, first.state, made_up)] == [32, 48]
