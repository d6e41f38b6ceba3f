"""The VAE: its shapes, its loss, and the two forms of its latent."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vqvae_core.config import VAEConfig
from vqvae_core.likelihood import to_unit
from vqvae_core.models import build
from vqvae_core.vae import VAE

SMALL = VAEConfig(hidden=8, residual_blocks=1, latent_dim=3)


def model(**fields: Any) -> VAE:
    torch.manual_seed(0)
    made = build(replace(SMALL, **fields), (12, 8, 3))
    assert isinstance(made, VAE)
    return made


def images(count: int = 4) -> Tensor:
    return to_unit(torch.randint(0, 256, (count, 3, 12, 8), generator=torch.Generator().manual_seed(1)))


def uniforms(net: VAE, count: int = 4) -> Tensor:
    return torch.rand(count, *net.noise, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("fields", "latent"), [({}, (3,)), ({"latent_map": True}, (3, 3, 2))])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_shapes(fields: dict[str, Any], latent: tuple[int, ...], batch_norm: bool) -> None:
    net = model(batch_norm=batch_norm, **fields)
    assert net.noise == net.latent_shape == latent and net.num_codes is None
    assert net.encode(images()).shape == (4, *latent)
    assert net.decode(net.encode(images())).shape == (4, 3, 12, 8)
    out = net(images(), uniforms(net))
    for term in (out.loss, out.squared_error, *out.parts.values()):
        assert term.shape == (4,)
    assert net.draw(5, torch.Generator().manual_seed(0)).shape == (5, 3, 12, 8)


@pytest.mark.parametrize("fields", [{}, {"latent_map": True}, {"likelihood": "mixture"}, {"scale": "channel"}])
def test_the_loss_is_the_negative_elbo(fields: dict[str, Any]) -> None:
    net, dims = model(**fields), 288
    out = net(images(), uniforms(net))
    posterior = net.posterior(images())
    raw = net.raw(posterior.sample(uniforms(net)))
    # The KL is summed over all latent dimensions, be they a vector or a map.
    kl = posterior.rates(None)["normal"]
    if not fields or "latent_map" in fields:  # the report's: squared errors are nats at variance 1/2
        distortion = (net.head.mean(raw) - images()).pow(2).flatten(1).sum(1)
    else:
        distortion = net.head.nll(raw, ((images() + 1) * 127.5).round())
    torch.testing.assert_close(out.loss.double(), (distortion.double() + kl) / dims, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.parts["kl"].double(), kl / dims)


def test_squared_errors_are_the_nats_of_variance_a_half() -> None:
    x, mean = images(), images().flip(0)
    density = torch.distributions.Normal(mean.double(), math.sqrt(0.5)).log_prob(x.double()).flatten(1).sum(1)
    constant = -288 / 2 * math.log(math.pi)
    torch.testing.assert_close(constant - density, (x - mean).double().pow(2).flatten(1).sum(1))


def test_every_parameter_learns() -> None:
    for fields in ({}, {"latent_map": True}):
        net = model(**fields)
        net(images(), uniforms(net)).loss.mean().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name
