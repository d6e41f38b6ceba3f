"""VIMCO's estimate against the exact gradient of a model small enough to enumerate."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vqvae_core.config import VIMCOConfig
from vqvae_core.models import build
from vqvae_core.posterior import Categorical, log_prob
from vqvae_core.vimco import VIMCO, bound, leave_one_out, objective

# One position, three codes, two samples: 9 outcomes.
TINY = VIMCOConfig(hidden=4, residual_blocks=1, num_codes=3, code_dim=2, samples=2, likelihood="logistic")


def tiny(**fields: int) -> VIMCO:
    torch.manual_seed(0)
    model = build(replace(TINY, **fields), (4, 4, 1))
    assert isinstance(model, VIMCO)
    return model.double()


def images(count: int = 1) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double() * 2 - 1


def outcomes(model: VIMCO, x: Tensor) -> list[tuple[tuple[int, ...], Tensor, Tensor]]:
    """Every tuple of samples of one image: the codes, the uniform numbers that give them, and log q of the tuple."""
    M, S, K = math.prod(model.latent_shape), model.config.samples, model.num_codes
    log_probs = model.log_probs(x).double()[0].reshape(M, K)
    edges = torch.cat([torch.zeros(M, 1), log_probs.detach().exp().cumsum(-1)], -1)
    middles = (edges[:, 1:] + edges[:, :-1]) / 2  # M K
    found = []
    for codes in itertools.product(range(K), repeat=S * M):
        at = torch.tensor(codes).view(S, M)
        uniforms = torch.stack([middles[m, at[:, m]] for m in range(M)], 1)
        log_q = sum(log_probs[m, at[s, m]] for s in range(S) for m in range(M))
        assert isinstance(log_q, Tensor)
        found.append((codes, uniforms.view(1, S, *model.latent_shape), log_q))
    return found


def exact_loss(model: VIMCO, x: Tensor) -> Tensor:
    """-E[L_S] per dimension over all outcomes, whose gradient autograd knows in full."""
    total = torch.zeros((), dtype=torch.float64)
    for codes, _, log_q in outcomes(model, x):
        z = torch.tensor(codes).view(1, model.config.samples, *model.latent_shape)
        log_probs = model.log_probs(x)
        weights = []
        for own in z.unbind(1):
            likelihood = -model.head.nll(model.raw(own), (x + 1) * 127.5)[0]
            weights.append(likelihood - own.numel() * math.log(model.num_codes) - log_prob(log_probs, own)[0])
        total = total + log_q.exp() * bound(torch.stack(weights)[None])[0]
    return -total / 16


def gradients(model: VIMCO) -> list[Tensor]:
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return found


@pytest.mark.parametrize("fields", [{}, {"codes_per_position": 2}, {"samples": 3}, {"samples_at_once": 1}])
def test_the_expected_estimate_is_the_exact_gradient(fields: dict[str, int]) -> None:
    model, x = tiny(**fields), images()
    # Levels between integers would be rounded by the loss.
    x = ((x + 1) * 127.5).round() / 127.5 - 1
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(2)  # a q that is far from even
    exact_loss(model, x).backward()
    exact = gradients(model)
    value = torch.zeros((), dtype=torch.float64)
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for _, uniforms, log_q in outcomes(model, x):
        loss = model(x, uniforms).loss[0]
        loss.backward()
        share = log_q.detach().exp()
        value += share * loss.detach()
        for total, gradient in zip(expected, gradients(model), strict=True):
            total += share * gradient
    assert float(value) == pytest.approx(float(exact_loss(model, x).detach()), rel=1e-9)
    for ours, theirs, (name, _) in zip(expected, exact, model.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    assert any(gradient.abs().max() > 1e-4 for gradient in exact)


def test_leaving_one_out_is_the_bound_with_the_others_geometric_mean() -> None:
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).double() * 3
    found = leave_one_out(weights)
    for b in range(4):
        for s in range(5):
            others = [float(weights[b, t]) for t in range(5) if t != s]
            mean = sum(others) / 4
            by_hand = math.log(sum(math.exp(w) for w in [*others, mean]) / 5)
            assert float(found[b, s]) == pytest.approx(by_hand)


def test_log_weights_that_differ_by_hundreds_of_nats_stay_numbers() -> None:
    weights = torch.tensor([[-70_000.0, -70_900.0, -69_100.0], [-torch.inf, 0.0, -3.0]])
    log_q = torch.zeros(2, 3, requires_grad=True)
    value = objective(weights, log_q)
    assert value.isfinite().all() and float(value[0].detach()) == pytest.approx(-69_100 - math.log(3), abs=0.01)
    (gradient,) = torch.autograd.grad(value.sum(), log_q)
    assert gradient[0].isfinite().all()


def test_the_value_is_the_bound() -> None:
    joint, log_q = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)).double().unbind(0)
    torch.testing.assert_close(objective(joint, log_q), ((joint - log_q).exp().mean(1)).log())


def test_samples_a_few_at_a_time_are_the_samples_at_once() -> None:
    losses, found = [], []
    x, uniforms = images(3), torch.rand(3, 5, 1, 1, 1, generator=torch.Generator().manual_seed(2)).double()
    for at_once in (0, 1, 2, 5):
        model = tiny(samples=5, samples_at_once=at_once)
        loss = model(x, uniforms).loss
        loss.sum().backward()
        losses.append(loss.detach())
        found.append(gradients(model))
    for loss, own in zip(losses[1:], found[1:], strict=True):
        torch.testing.assert_close(loss, losses[0])
        torch.testing.assert_close(own, found[0])


def test_fewer_samples_at_once_keep_less_for_the_gradient() -> None:
    """Bytes that the graph holds on to between forward and backward."""

    def kept(at_once: int) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model = tiny(samples=20, samples_at_once=at_once)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(images(2), torch.rand(2, 20, 1, 1, 1)).loss
        assert loss.requires_grad
        return sum(sizes.values())

    assert kept(2) < kept(0) / 3


def test_a_sample_of_codes_is_priced_by_its_own_probability() -> None:
    model, x = tiny(), images(2)
    posterior = model.posterior(x)
    assert isinstance(posterior, Categorical)
    torch.testing.assert_close(
        posterior.log_probs.exp().sum(-1), torch.ones(2, 1, 1, 1).to(posterior.log_probs), rtol=1e-6, atol=1e-6
    )
