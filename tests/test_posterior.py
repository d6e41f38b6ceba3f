"""Samples and KL divergences against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vqvae_core.likelihood import unigram_log_prior, unigram_rate
from vqvae_core.posterior import Categorical, Certain, Normal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def categorical(sharpness: float = 1.0) -> Categorical:
    return Categorical((sharpness * torch.randn(3, 2, 2, 3, 5, generator=generator(1))).log_softmax(-1))


def prior() -> Tensor:
    return unigram_log_prior(torch.randint(0, 50, (2, 5), generator=generator(2)))


class TestCategorical:
    def test_samples_come_as_often_as_they_should(self) -> None:
        posterior = Categorical(categorical().log_probs[:1])
        uniforms = torch.rand(20_000, 2, 2, 3, generator=generator())
        drawn = torch.stack([posterior.sample(u[None])[0] for u in uniforms])
        shares = torch.stack([(drawn == k).double().mean(0) for k in range(5)], -1)
        torch.testing.assert_close(shares, posterior.log_probs[0].exp().double(), rtol=0, atol=0.015)

    def test_a_uniform_number_of_almost_one_is_a_code(self) -> None:
        sure = Categorical(torch.tensor([0.0, -torch.inf, -torch.inf]).view(1, 1, 1, 1, 3))
        for number in (0.0, 0.5, 1 - 2.0**-24):
            assert int(sure.sample(torch.full((1, 1, 1, 1), number))) == 0

    def test_rates_are_the_divergences_from_the_priors(self) -> None:
        posterior, log_prior = categorical(), prior()
        q = posterior.log_probs.double().exp()
        rates = posterior.rates(log_prior)
        for b in range(3):
            uniform = unigram = 0.0
            for g in range(2):
                for y in range(2):
                    for x in range(3):
                        for k in range(5):
                            p = float(q[b, g, y, x, k])
                            uniform += p * (math.log(p) + math.log(5))
                            unigram += p * (math.log(p) - float(log_prior[g, k]))
            assert float(rates["uniform"][b]) == pytest.approx(uniform, rel=1e-5)
            assert float(rates["unigram"][b]) == pytest.approx(unigram, rel=1e-5)

    def test_the_mean_log_ratio_is_the_divergence(self) -> None:
        posterior, log_prior = Categorical(categorical().log_probs[:1]), prior()
        uniforms = torch.rand(4000, 2, 2, 3, generator=generator())
        ratios = torch.stack([posterior.log_ratio(posterior.sample(u[None]), log_prior) for u in uniforms])
        assert -float(ratios.mean()) == pytest.approx(float(posterior.rates(log_prior)["unigram"]), abs=0.15)

    def test_one_that_is_sure_pays_what_a_vq_vae_pays(self) -> None:
        posterior, log_prior = categorical(1000.0), prior()
        certain = Certain(posterior.mode(), 5)
        for name, rate in certain.rates(log_prior).items():
            torch.testing.assert_close(posterior.rates(log_prior)[name], rate, rtol=1e-4, atol=1e-4)


class TestCertain:
    def test_has_one_sample_and_pays_for_it_in_full(self) -> None:
        indices, log_prior = torch.randint(0, 5, (3, 2, 2, 3), generator=generator()), prior()
        posterior = Certain(indices, 5)
        assert posterior.sample(torch.empty(0)) is indices and posterior.mode() is indices
        rates = posterior.rates(log_prior)
        torch.testing.assert_close(rates["uniform"], torch.full((3,), 12 * math.log(5)).double())
        torch.testing.assert_close(rates["unigram"], unigram_rate(indices, log_prior))
        torch.testing.assert_close(posterior.log_ratio(indices, log_prior), -rates["unigram"])


class TestNormal:
    def posterior(self) -> Normal:
        return Normal(torch.randn(2, 4, 3, generator=generator(1)), torch.randn(2, 4, 3, generator=generator(2)))

    def test_the_divergence_is_torchs(self) -> None:
        found = self.posterior()
        q = torch.distributions.Normal(found.mean, (found.log_variance / 2).exp())
        expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
        torch.testing.assert_close(found.kl(), expected)
        torch.testing.assert_close(found.rates(None)["normal"], expected.double())

    def test_the_log_ratio_is_torchs(self) -> None:
        found = self.posterior()
        z = found.sample(torch.rand(2, 4, 3, generator=generator(3)))
        q = torch.distributions.Normal(found.mean, (found.log_variance / 2).exp())
        expected = (torch.distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
        torch.testing.assert_close(found.log_ratio(z, None), expected.double(), rtol=1e-5, atol=1e-5)

    def test_samples_have_its_moments_and_its_gradient(self) -> None:
        mean, log_variance = torch.tensor([[0.5]]).requires_grad_(), torch.tensor([[-1.0]]).requires_grad_()
        uniforms = torch.rand(50_000, 1, generator=generator())
        z = Normal(mean.expand(50_000, 1), log_variance.expand(50_000, 1)).sample(uniforms)
        assert float(z.detach().mean()) == pytest.approx(0.5, abs=0.01)
        assert float(z.detach().var()) == pytest.approx(math.exp(-1), rel=0.02)
        z.mean().backward()
        assert mean.grad is not None and float(mean.grad) == pytest.approx(1, abs=1e-5)

    def test_zero_and_almost_one_are_finite(self) -> None:
        found = Normal(torch.zeros(1, 2), torch.zeros(1, 2)).sample(torch.tensor([[0.0, 1 - 2.0**-24]]))
        assert found.isfinite().all() and float(found.abs().min()) > 4
