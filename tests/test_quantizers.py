"""Residual codes, codes in few dimensions, codes of length 1 and FSQ: what holds for any quantiser, and their own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from vqvae_core.config import VQVAEConfig
from vqvae_core.quantize import Quantizer, VectorQuantizer, nearest
from vqvae_core.quantizers import FSQ, Projected, ResidualQuantizer, quantizer

OPTIONS: dict[str, dict[str, Any]] = {
    "grouped": {"codes_per_position": 2},
    "residual": {"codes_per_position": 3, "residual": True},
    "residual, ema": {"codes_per_position": 2, "residual": True, "quantizer": "ema"},
    "projected": {"projected_dim": 2, "codes_per_position": 2},
    "projected residual": {"projected_dim": 2, "codes_per_position": 2, "residual": True},
    "normalized": {"normalize": True},
    "normalized, ema": {"normalize": True, "quantizer": "ema", "codebook_init": "data", "restart_below": 0.3},
    "vit-vqgan": {"normalize": True, "projected_dim": 2, "codes_per_position": 2},
    "fsq": {"quantizer": "fsq", "num_codes": 30, "fsq_levels": "5,3,2"},
    "fsq, groups": {"quantizer": "fsq", "num_codes": 8, "fsq_levels": "4,2", "codes_per_position": 3},
}


def config(**fields: Any) -> VQVAEConfig:
    return VQVAEConfig(**{"num_codes": 8, "code_dim": 4, "codebook_init": "normal"} | fields)


def made(fields: dict[str, Any], z: Tensor) -> Quantizer:
    torch.manual_seed(7)
    module = quantizer(config(**fields)).train()
    module.start(z, torch.Generator().manual_seed(0))
    return module


def encoder_output(fields: dict[str, Any], batch: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, config(**fields).latent_channels, 5, 2, generator=generator)


@pytest.mark.parametrize("name", OPTIONS)
class TestAny:
    def test_decoding_is_what_forward_answers(self, name: str) -> None:
        z = encoder_output(OPTIONS[name])
        module = made(OPTIONS[name], z)
        out, chosen = module(z), config(**OPTIONS[name])
        assert out.vectors.shape == z.shape and out.vectors.dtype == torch.float32
        assert out.indices.shape == (4, chosen.codes_per_position, 5, 2) and out.indices.dtype == torch.int64
        assert int(out.indices.min()) >= 0 and int(out.indices.max()) < chosen.num_codes
        assert module.decode(out.indices).equal(out.vectors)

    def test_every_number_of_a_code_means_something(self, name: str) -> None:
        z = encoder_output(OPTIONS[name])
        module, chosen = made(OPTIONS[name], z), config(**OPTIONS[name])
        codes = torch.arange(chosen.num_codes).view(-1, 1, 1, 1).expand(-1, chosen.codes_per_position, 1, 1)
        vectors = module.decode(codes).flatten(1)
        assert len(vectors.unique(dim=0)) == chosen.num_codes

    def test_a_position_is_coded_alone(self, name: str) -> None:
        z = encoder_output(OPTIONS[name])
        module = made(OPTIONS[name], z)
        assert module(z[1:2, :, 3:4, 1:2]).indices.equal(module(z).indices[1:2, :, 3:4, 1:2])

    def test_autocast_changes_nothing(self, name: str) -> None:
        z = encoder_output(OPTIONS[name], 16).bfloat16()
        module = made(OPTIONS[name], z)
        with torch.autocast("cpu", torch.bfloat16):
            inside = module(z)
            again = module.decode(inside.indices)
        outside = module(z.float())
        assert inside.indices.equal(outside.indices) and inside.vectors.equal(outside.vectors)
        assert again.equal(outside.vectors)

    def test_gradients_arrive_at_the_encoder(self, name: str) -> None:
        z = encoder_output(OPTIONS[name]).requires_grad_()
        module = made(OPTIONS[name], z.detach())
        weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
        (gradient,) = torch.autograd.grad((module(z).vectors * weights).sum(), z)
        assert gradient.isfinite().all() and float((gradient != 0).double().mean()) > 0.5

    def test_learning_brings_codes_nearer(self, name: str) -> None:
        """A hundred steps on the same vectors, towards a target that only the codes' vectors can reach."""
        z = encoder_output(OPTIONS[name], 16)
        module = made(OPTIONS[name], z)
        ready, parameters = module.ready, [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=0.02) if parameters else None
        errors = []
        for step in range(100):
            out = module(z)
            target = torch.nn.functional.normalize(z, dim=1) if OPTIONS[name].get("normalize") else z
            error = (module.decode(out.indices) - target).pow(2).mean()
            errors.append(float(error.detach()))
            if optimizer:
                optimizer.zero_grad()
                ((out.vectors - target).pow(2).mean() + out.codebook_loss.mean()).backward()
                optimizer.step()
            module.update(torch.Generator().manual_seed(step))
        assert ready and errors[-1] < 0.95 * errors[0]


def test_residual_codes_code_what_is_left() -> None:
    fields = OPTIONS["residual"]
    z = encoder_output(fields)
    module = made(fields, z)
    assert isinstance(module, ResidualQuantizer)
    left = z.permute(0, 2, 3, 1).reshape(-1, 4)
    for number, stage in enumerate(module.stages):
        assert isinstance(stage, VectorQuantizer)
        found = nearest(left, stage.codebook[0])
        assert found.view(4, 5, 2).equal(module(z).indices[:, number])
        left = left - stage.codebook[0][found]
    torch.testing.assert_close((z - module(z).vectors).permute(0, 2, 3, 1).reshape(-1, 4), left)


def test_residual_codes_pass_the_gradient_through_once() -> None:
    z = encoder_output(OPTIONS["residual"]).requires_grad_()
    module = made(OPTIONS["residual"], z.detach())
    (gradient,) = torch.autograd.grad(module(z).vectors.sum(), z)
    assert gradient.equal(torch.ones_like(z))


def test_residual_start_looks_at_each_stage_once() -> None:
    fields = {"codes_per_position": 2, "residual": True, "codebook_init": "data", "quantizer": "ema"}
    z = encoder_output(fields, 16)
    module = made(fields, z)
    assert isinstance(module, ResidualQuantizer) and module.ready
    first, second = module.stages
    points = z.permute(0, 2, 3, 1).reshape(-1, 4)
    left = points - first.codebook[0][nearest(points, first.codebook[0])]
    for stage, source in ((first, points), (second, left)):
        assert float(torch.cdist(stage.codebook[0], source).min(1).values.max()) < 0.05
    before = [stage.usage.clone() for stage in (first, second)]
    module.update(torch.Generator())  # of nothing that was seen in training yet
    assert all(stage.usage.equal(old) for stage, old in zip((first, second), before, strict=True))


def test_normalized_codes_are_chosen_by_their_angle() -> None:
    z = encoder_output({})
    module = made({"normalize": True}, z)
    assert isinstance(module, VectorQuantizer)
    out = module(z)
    cosine = torch.nn.functional.normalize(module.codebook[0], dim=1) @ z.permute(1, 0, 2, 3).reshape(4, -1)
    assert cosine.argmax(0).view(4, 1, 5, 2).equal(out.indices)
    torch.testing.assert_close(out.vectors.norm(dim=1), torch.ones(4, 5, 2))
    assert module(1000 * z).indices.equal(out.indices)


def test_projected_codes_are_looked_up_where_they_live() -> None:
    z = encoder_output({"codes_per_position": 2})
    module = made(OPTIONS["vit-vqgan"], z)
    assert isinstance(module, Projected) and isinstance(module.inner, VectorQuantizer)
    assert module.inner.codebook.shape == (2, 8, 2)
    # The first group's codes depend on its own channels alone.
    changed = z.clone()
    changed[:, 4:] += 1
    assert module(changed).indices[:, 0].equal(module(z).indices[:, 0])
    assert not module(changed).indices[:, 1].equal(module(z).indices[:, 1])


class TestFSQ:
    LEVELS = (5, 4, 2)

    def made(self) -> FSQ:
        return FSQ(config(quantizer="fsq", num_codes=40, fsq_levels="5,4,2"))

    def test_each_dimension_is_rounded_to_its_levels(self) -> None:
        z = 3 * torch.randn(2000, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        values = self.made()(z).vectors.flatten(1)
        for dimension, count in enumerate(self.LEVELS):
            half = count // 2
            expected = torch.arange(-half, count - half) / half
            assert values[:, dimension].unique().equal(expected)

    def test_all_codes_are_a_grid_and_numbered_once(self) -> None:
        module = self.made()
        vectors = module.decode(torch.arange(40).view(40, 1, 1, 1)).flatten(1)
        grid = [[d - c // 2 for d, c in zip(digits, self.LEVELS, strict=True)] for digits in self.digits()]
        scaled = torch.tensor(grid) / torch.tensor([2, 2, 1])
        assert vectors.equal(scaled)

    def digits(self) -> list[tuple[int, ...]]:
        """Of every code, the first dimension the least significant."""
        return [digits[::-1] for digits in itertools.product(*(range(c) for c in reversed(self.LEVELS)))]

    def test_zero_is_in_the_middle_and_far_out_is_the_edge(self) -> None:
        module = self.made()
        edges = [module(torch.full((1, 3, 1, 1), far)).indices.item() for far in (-1e6, 1e6)]
        assert edges == [0, 39]
        assert module(torch.zeros(1, 3, 1, 1)).vectors.flatten()[0] == 0

    def test_there_is_nothing_to_learn(self) -> None:
        module = self.made()
        assert not list(module.parameters()) and not module.state_dict() and module.ready
        assert not module(torch.randn(2, 3, 1, 1)).commitment_loss.any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsq_levels": "8,8"}, "model.fsq_levels is '8,8'; allowed are levels whose product is model.num_codes = 8"),
        ({"fsq_levels": "8,x"}, "model.fsq_levels is '8,x'; allowed are integers >= 2"),
        ({"fsq_levels": "8,1003"}, "model.fsq_levels is '8,1003'; allowed are integers >= 2 and <= 1000"),
        ({"fsq_levels": "8,1"}, "model.fsq_levels is '8,1'; allowed are integers >= 2"),
        (
            {"fsq_levels": "4,2", "residual": True},
            "model.residual is True; allowed is false where model.quantizer is fsq",
        ),
        ({"fsq_levels": "4,2", "restart_below": 0.1}, "model.restart_below is 0.1; allowed is 0 where"),
    ],
)
def test_impossible_grids_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        config(quantizer="fsq", **fields)
    assert str(refused.value).startswith(message)
