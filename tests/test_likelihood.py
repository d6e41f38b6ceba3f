"""Bits/dim are likelihoods: masses of integers that sum to one, priced without mercy at the edges."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vqvae_core
from vqvae_core.likelihood import (
    LOG_MASS,
    bits_per_dim,
    eq7,
    eq7_from_kl,
    fit_log_scale,
    gaussian_density_nats,
    gaussian_log_mass,
    logistic_log_mass,
    nll_per_image,
    to_levels,
    to_unit,
    uniform_rate,
    unigram_log_prior,
    unigram_rate,
)

KINDS = list(LOG_MASS)
ALL_LEVELS = torch.arange(256, dtype=torch.float64)


def gaussian_residuals(count: int = 100_000, mse: float = 0.0136) -> tuple[Tensor, Tensor]:
    """Means in mid-range and levels around them, with an exact mean squared error on [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    mean = 100 + 50 * torch.rand(count, dtype=torch.float64, generator=generator)
    noise = torch.randn(count, dtype=torch.float64, generator=generator)
    noise = (noise - noise.mean()) / noise.std(correction=0)
    levels = (mean + noise * math.sqrt(mse) * 127.5).round()
    return levels, mean


class TestMasses:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("mean", [-300.0, -0.3, 0.0, 17.3, 127.5, 254.6, 255.0, 600.0])
    @pytest.mark.parametrize("scale", [0.02, 0.4, 5.0, 60.0, 256.0])
    def test_of_all_levels_sum_to_one(self, kind: str, mean: float, scale: float) -> None:
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-6)):
            masses = LOG_MASS[kind](ALL_LEVELS.to(dtype), torch.full((256,), mean, dtype=dtype), math.log(scale)).exp()
            assert float(masses.sum()) == pytest.approx(1, abs=tolerance)
            assert float(masses.min()) >= 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_differences_of_the_distribution_function(self, kind: str) -> None:
        scale = 7.0
        mean = torch.linspace(-20, 275, 50, dtype=torch.float64)[:, None]

        def below(x: Tensor) -> Tensor:
            return torch.sigmoid(x / scale) if kind == "logistic" else 0.5 * torch.special.erfc(-x / scale / 2**0.5)

        upper = torch.where(ALL_LEVELS == 255, 1.0, below(ALL_LEVELS + 0.5 - mean))
        lower = torch.where(ALL_LEVELS == 0, 0.0, below(ALL_LEVELS - 0.5 - mean))
        masses = LOG_MASS[kind](ALL_LEVELS, mean, math.log(scale)).exp()
        torch.testing.assert_close(masses, upper - lower, rtol=1e-6, atol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_stay_finite_and_fall_with_the_distance(self, kind: str, dtype: torch.dtype) -> None:
        levels = torch.arange(256, dtype=dtype)
        for mean in (-1000.0, 0.0, 128.0, 255.0, 1000.0):
            mass = LOG_MASS[kind](levels[1:255], torch.full((254,), mean, dtype=dtype), math.log(0.02))
            assert mass.isfinite().all()
            far = (levels[1:255] - mean).abs().argsort(stable=True)
            falls = mass[far].diff() <= mass[far][1:].abs() * 1e-6
            assert falls.all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_symmetric(self, kind: str) -> None:
        mean = torch.linspace(-10, 265, 23, dtype=torch.float64)[:, None]
        masses = LOG_MASS[kind](ALL_LEVELS, mean, math.log(3.0))
        mirrored = LOG_MASS[kind](255 - ALL_LEVELS, 255 - mean, math.log(3.0))
        torch.testing.assert_close(masses, mirrored)

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_float32_are_those_of_float64(self, kind: str) -> None:
        mean = torch.linspace(0, 255, 40)[:, None]
        for scale in (0.5, 14.9, 80.0):
            exact = LOG_MASS[kind](ALL_LEVELS, mean.double(), math.log(scale))
            found = LOG_MASS[kind](ALL_LEVELS.float(), mean, math.log(scale)).double()
            torch.testing.assert_close(found, exact, rtol=2e-4, atol=2e-4)

    def test_a_tensor_of_scales_broadcasts(self) -> None:
        scales = torch.tensor([1.0, 10.0], dtype=torch.float64)[:, None]
        both = logistic_log_mass(ALL_LEVELS, torch.full((2, 1), 100.0, dtype=torch.float64), scales.log())
        one = logistic_log_mass(ALL_LEVELS, torch.tensor([100.0], dtype=torch.float64), math.log(10))
        torch.testing.assert_close(both[1], one)


class TestUniformDecoder:
    def test_costs_eight_bits(self) -> None:
        nats = 10 * 3072 * math.log(256)
        assert bits_per_dim(nats, 10 * 3072) == pytest.approx(8, abs=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_shape_at_its_widest_beats_it_on_uniform_noise(self, kind: str) -> None:
        levels = ALL_LEVELS.repeat(4, 1)
        mean = torch.full_like(levels, 127.5)
        scale = fit_log_scale(kind, levels, mean)
        bits = bits_per_dim(float(nll_per_image(kind, levels, mean, scale).sum()), levels.numel())
        assert 8 < bits < 8.3


class TestReportedNumbers:
    """Section 1 of our notes on the report: its Table 1, and what its mean squared errors are worth."""

    @pytest.mark.parametrize(
        ("mse", "latents", "dims", "table"),
        [(0.0135, 64, 3072, 5.852), (0.0218, 49, 784, 6.221), (0.0121, 49, 784, 6.228)],
    )
    def test_equation_7_gives_the_reports_table_1(self, mse: float, latents: int, dims: int, table: float) -> None:
        assert eq7(mse, latents, 512, dims) == pytest.approx(table, abs=5e-4)

    def test_equation_7_as_it_is_printed(self) -> None:
        mse, kl, dims = 0.02, 33.0, 784
        printed = -dims / 2 * math.log(2 * math.pi) - dims * mse / 2 + kl
        assert eq7_from_kl(mse, kl, dims) == pytest.approx((printed / dims + math.log(128)) / math.log(2))
        assert eq7(mse, 49, 512, dims) == pytest.approx(eq7_from_kl(mse, 49 * math.log(512), dims))

    def test_equation_7_scores_a_worse_image_better(self) -> None:
        assert eq7(0.2, 64, 512, 3072) < eq7(0.0136, 64, 512, 3072)

    def test_gaussian_residuals_of_the_reports_size(self) -> None:
        mse = 0.0136
        one = math.log2(127.5) + 0.5 * math.log2(2 * math.pi) + mse / 2 / math.log(2)
        best = math.log2(127.5) + 0.5 * math.log2(2 * math.pi * math.e * mse)
        assert (round(one, 3), round(best, 3)) == (8.330, 5.941)
        assert bits_per_dim(gaussian_density_nats(mse, 1.0), 1) == pytest.approx(one)
        assert bits_per_dim(gaussian_density_nats(mse, math.sqrt(mse)), 1) == pytest.approx(best)
        levels, mean = gaussian_residuals(mse=mse)
        # sigma 1 on [-1, 1] is 127.5 levels: absurdly wide, and worse than the uniform code.
        wide = -gaussian_log_mass(levels, mean, math.log(127.5)).mean() / math.log(2)
        # The tails beyond 0 and 255 belong to the edge levels, so the other levels' masses are those of the density.
        assert float(wide) == pytest.approx(8.330, abs=2e-3)
        discrete = -gaussian_log_mass(levels, mean, fit_log_scale("gaussian", levels, mean)).mean() / math.log(2)
        assert float(discrete) == pytest.approx(5.943, abs=3e-3)
        logistic = -logistic_log_mass(levels, mean, fit_log_scale("logistic", levels, mean)).mean() / math.log(2)
        assert float(logistic) == pytest.approx(5.958, abs=5e-3)


class TestScale:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("spread", [0.05, 1.0, 12.0, 70.0])
    def test_is_the_best_of_a_fine_grid(self, kind: str, spread: float) -> None:
        generator = torch.Generator().manual_seed(1)
        mean = 255 * torch.rand(3000, dtype=torch.float64, generator=generator)
        noise = torch.randn(3000, dtype=torch.float64, generator=generator)
        levels = (mean + spread * noise).round().clamp(0, 255)

        def cost(log_scale: float) -> float:
            return float(-LOG_MASS[kind](levels, mean, log_scale).mean())

        found = fit_log_scale(kind, levels, mean)
        best = min((cost(s), s) for s in np.linspace(math.log(0.02), math.log(256), 500))
        assert cost(found) <= best[0] + 1e-6
        assert found == pytest.approx(best[1], abs=0.02)

    def test_recovers_the_gaussians(self) -> None:
        levels, mean = gaussian_residuals(mse=(12.0 / 127.5) ** 2)
        assert math.exp(fit_log_scale("gaussian", levels, mean)) == pytest.approx(12.0, rel=0.01)

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_a_perfect_reconstruction_is_the_least(self, kind: str) -> None:
        levels = ALL_LEVELS.repeat(3, 1)
        scale = fit_log_scale(kind, levels, levels)
        assert math.exp(scale) == pytest.approx(0.02, rel=0.01)
        assert float(nll_per_image(kind, levels, levels, scale).sum()) < 1e-3


class TestPerImage:
    @pytest.mark.parametrize("kind", KINDS)
    def test_sums_over_all_dimensions_of_each_image(self, kind: str) -> None:
        levels = torch.randint(0, 256, (3, 2, 4, 5), generator=torch.Generator().manual_seed(0))
        mean = 255 * torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(1))
        nll = nll_per_image(kind, levels.float(), mean, 2.0)
        assert nll.shape == (3,) and nll.dtype == torch.float64
        by_hand = [-float(LOG_MASS[kind](levels[b].double(), mean[b].double(), 2.0).sum()) for b in range(3)]
        assert nll.tolist() == pytest.approx(by_hand, rel=1e-5)

    def test_levels_and_unit_are_each_others_inverse(self) -> None:
        levels = torch.arange(256, dtype=torch.uint8)
        unit = to_unit(levels)
        assert unit.dtype == torch.float32 and float(unit[0]) == -1 and float(unit[255]) == 1
        assert to_levels(unit).round().to(torch.uint8).equal(levels)
        torch.testing.assert_close(to_levels(unit), levels.float(), rtol=0, atol=2e-5)


class TestRates:
    def test_a_uniform_prior_costs_m_log_k(self) -> None:
        # 8 x 8 codes of 512 on 3072 dimensions: 0.1875 bits/dim; 8 x 8 x 10: ten times as many.
        assert bits_per_dim(uniform_rate(64, 512), 3072) == pytest.approx(0.1875)
        assert bits_per_dim(uniform_rate(640, 512), 3072) == pytest.approx(1.875)

    def test_a_unigram_prior_is_add_one_counts_per_codebook(self) -> None:
        counts = torch.tensor([[3, 0, 1], [0, 0, 0]])
        expected = torch.tensor([[4 / 7, 1 / 7, 2 / 7], [1 / 3] * 3], dtype=torch.float64)
        torch.testing.assert_close(unigram_log_prior(counts).exp(), expected)

    def test_unigram_rate_adds_up_each_images_codes(self) -> None:
        generator = torch.Generator().manual_seed(0)
        log_prior = torch.rand(2, 7, dtype=torch.float64, generator=generator).log_softmax(1)
        indices = torch.randint(0, 7, (3, 2, 4, 5), generator=generator)
        by_hand = [
            -sum(float(log_prior[g, indices[b, g, y, x]]) for g in range(2) for y in range(4) for x in range(5))
            for b in range(3)
        ]
        assert unigram_rate(indices, log_prior).tolist() == pytest.approx(by_hand)

    def test_a_unigram_prior_of_even_counts_costs_what_the_uniform_one_does(self) -> None:
        log_prior = unigram_log_prior(torch.full((2, 16), 5))
        indices = torch.randint(0, 16, (1, 2, 3, 3))
        assert float(unigram_rate(indices, log_prior)) == pytest.approx(uniform_rate(18, 16))


def test_nats_become_bits_in_one_file_only() -> None:
    package = Path(vqvae_core.__file__).parent
    users = [p.name for p in package.rglob("*.py") if "math.log(2)" in p.read_text() or "log2(" in p.read_text()]
    assert users == ["likelihood.py"]
