"""The quantiser against brute force, its gradients against what they must be, and its codebook's life."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vqvae_core import quantize
from vqvae_core.config import VQVAEConfig
from vqvae_core.quantize import VectorQuantizer, nearest


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(**fields: Any) -> VectorQuantizer:
    torch.manual_seed(7)
    chosen = {"num_codes": 8, "code_dim": 3, "codebook_init": "normal"} | fields
    return VectorQuantizer(VQVAEConfig(**chosen)).train()


def encoder_output(groups: int = 1, dim: int = 3, batch: int = 4, height: int = 5, width: int = 2) -> Tensor:
    return torch.randn(batch, groups * dim, height, width, generator=generator(1))


def explicit_squared_distances(vectors: Tensor, codes: Tensor) -> Tensor:
    return torch.stack([(vector - codes.double()).pow(2).sum(1) for vector in vectors.double()])  # N K


class TestNearest:
    @pytest.mark.parametrize(("n", "k", "d"), [(1, 2, 1), (257, 5, 3), (1000, 512, 64), (300, 2, 256)])
    def test_equals_explicit_differences(self, n: int, k: int, d: int) -> None:
        vectors, codes = torch.randn(n, d, generator=generator(2)), torch.randn(k, d, generator=generator(3))
        assert nearest(vectors, codes).equal(explicit_squared_distances(vectors, codes).argmin(1))

    def test_cutting_into_pieces_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        vectors, codes = torch.randn(100, 4, generator=generator(2)), torch.randn(7, 4, generator=generator(3))
        whole = nearest(vectors, codes)
        for tile in ((1, 7), (33, 2), (99, 6), (100, 1)):
            monkeypatch.setitem(quantize.TILE, "cpu", tile)
            assert nearest(vectors, codes).equal(whole)

    @pytest.mark.parametrize("columns", [512, 6, 24])
    def test_equal_codes_give_the_lowest_index(self, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(quantize.TILE, "cpu", (512, columns))
        codes = torch.randn(6, 5, generator=generator(3)).repeat(40, 1)
        assert int(nearest(torch.randn(500, 5, generator=generator(2)), codes).max()) < 6

    def test_a_common_offset_costs_no_digits(self) -> None:
        # Without centring, |e|^2 ~ 1e6 rounds away the differences: up to half of the indices are wrong.
        offset = 1000.0
        vectors, codes = torch.randn(2000, 8, generator=generator(2)), torch.randn(64, 8, generator=generator(3))
        vectors, codes = vectors + offset, codes + offset
        distances = explicit_squared_distances(vectors, codes)
        found = distances.gather(1, nearest(vectors, codes)[:, None])[:, 0]
        assert float((found - distances.min(1).values).max()) < 5e-3

    def test_a_codebook_at_its_first_values_is_told_apart(self) -> None:
        # At U(-1/K, 1/K) all codes sit in a tiny ball; |x|^2 in the sum would cost the digits that tell them apart.
        codes = torch.empty(512, 64).uniform_(-1 / 512, 1 / 512, generator=generator(3))
        vectors = torch.randn(500, 64, generator=generator(2))
        assert nearest(vectors, codes).equal(explicit_squared_distances(vectors, codes).argmin(1))

    def test_no_matrix_of_all_vectors_by_all_codes_exists(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes: list[int] = []
        multiply = torch.addmm
        monkeypatch.setattr(torch, "addmm", lambda *a, **k: sizes.append((out := multiply(*a, **k)).nbytes) or out)
        # 84 x 84 images in batches of 32, where the report's code ran out of memory; the codebook may be large.
        nearest(torch.randn(32 * 21 * 21, 4), torch.randn(2048, 4))
        assert len(sizes) > 1 and max(sizes) <= 2 << 20


class TestForward:
    @pytest.mark.parametrize("groups", [1, 3])
    def test_every_position_gets_its_groups_nearest_code(self, groups: int) -> None:
        module, z = quantizer(codes_per_position=groups), encoder_output(groups)
        out = module(z)
        assert out.indices.shape == (4, groups, 5, 2) and out.indices.dtype == torch.int64
        for b in range(4):
            for g in range(groups):
                for y in range(5):
                    for x in range(2):
                        vector = z[b, 3 * g : 3 * g + 3, y, x]
                        index = int((vector.double() - module.codebook[g].double()).pow(2).sum(1).argmin())
                        assert int(out.indices[b, g, y, x]) == index
                        assert out.vectors[b, 3 * g : 3 * g + 3, y, x].equal(module.codebook[g, index])
        assert module.decode(out.indices).equal(out.vectors)

    def test_losses_are_means_over_each_image(self) -> None:
        module, z = quantizer(), encoder_output()
        out = module(z)
        by_hand = torch.stack([(z[b] - out.vectors[b]).pow(2).mean() for b in range(4)])
        torch.testing.assert_close(out.codebook_loss, by_hand)
        torch.testing.assert_close(out.commitment_loss, by_hand)

    @pytest.mark.parametrize("learns", ["gradient", "ema"])
    def test_is_float32_whatever_autocast_says(self, learns: str) -> None:
        inside, outside = (quantizer(quantizer=learns, num_codes=512, code_dim=64) for _ in range(2))
        z = encoder_output(dim=64, batch=64).bfloat16()  # 640 vectors: bfloat16 would choose others for several
        codebook = inside.codebook.detach().clone()
        with torch.autocast("cpu", torch.bfloat16):
            found = inside(z)
            inside.update(generator())
        expected = outside(z.float())
        outside.update(generator())
        vectors = z.permute(0, 2, 3, 1).reshape(-1, 64)
        exact = explicit_squared_distances(vectors, codebook[0]).argmin(1)
        assert found.indices.flatten().equal(exact) and found.vectors.dtype == torch.float32
        assert found.indices.equal(expected.indices)
        assert found.commitment_loss.equal(expected.commitment_loss)
        assert inside.codebook.equal(outside.codebook)

    def test_channels_last_input_is_the_same_input(self) -> None:
        module, z = quantizer(codes_per_position=2), encoder_output(2)
        plain, other = module(z), module(z.to(memory_format=torch.channels_last))
        assert plain.indices.equal(other.indices) and plain.vectors.equal(other.vectors)

    @pytest.mark.parametrize("learns", ["gradient", "ema", "frozen"])
    def test_changes_nothing(self, learns: str) -> None:
        module, z = quantizer(quantizer=learns), encoder_output()
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module(z)
        module.eval()(z)
        after = module.state_dict()
        assert list(before) == list(after) and all(after[name].equal(tensor) for name, tensor in before.items())


class TestGradients:
    @pytest.mark.parametrize("learns", ["gradient", "ema", "frozen"])
    def test_pass_straight_through(self, learns: str) -> None:
        module, z = quantizer(quantizer=learns), encoder_output().requires_grad_()
        weights = torch.randn(z.shape, generator=generator(5))
        (module(z).vectors * weights).sum().backward()
        assert z.grad is not None and z.grad.equal(weights)
        assert module.codebook.grad is None  # the reconstruction does not move the codebook

    def test_the_codebooks_gradient_is_an_embeddings(self) -> None:
        module, z = quantizer(), encoder_output()
        out = module(z)
        out.codebook_loss.sum().backward()
        table = module.codebook.detach()[0].clone().requires_grad_()
        looked_up = torch.nn.functional.embedding(out.indices[:, 0], table).permute(0, 3, 1, 2)
        (z - looked_up).pow(2).flatten(1).mean(1).sum().backward()
        assert module.codebook.grad is not None and table.grad is not None
        torch.testing.assert_close(module.codebook.grad[0], table.grad)
        unused = torch.ones(8, dtype=torch.bool)
        unused[out.indices.unique()] = False
        assert not module.codebook.grad[0, unused].any()

    def test_the_codebook_loss_moves_only_the_codebook(self) -> None:
        module, z = quantizer(), encoder_output().requires_grad_()
        module(z).codebook_loss.sum().backward()
        assert z.grad is None or not z.grad.any()
        assert module.codebook.grad is not None and module.codebook.grad.any()

    def test_commitment_moves_only_the_encoder(self) -> None:
        module, z = quantizer(), encoder_output().requires_grad_()
        out = module(z)
        out.commitment_loss.sum().backward()
        assert module.codebook.grad is None or not module.codebook.grad.any()
        assert z.grad is not None
        torch.testing.assert_close(z.grad, 2 * (z - out.vectors).detach() / z[0].numel())

    @pytest.mark.parametrize("learns", ["ema", "frozen"])
    def test_without_a_gradient_codebook_there_is_no_codebook_loss_and_no_parameter(self, learns: str) -> None:
        module = quantizer(quantizer=learns)
        assert not module(encoder_output()).codebook_loss.any() and not list(module.parameters())
        assert "codebook" in module.state_dict()


class TestMovingAverages:
    def test_follow_the_formula_for_two_steps(self) -> None:
        decay, dim = 0.9, 3
        module = quantizer(quantizer="ema", ema_decay=decay, codes_per_position=2)
        codebook = module.codebook.double().clone()
        usage = torch.full((2, 8), 40 / 8, dtype=torch.float64)  # 4 images of 5 x 2: the past counts as even use
        sums = codebook * usage[..., None]
        for step in range(2):
            z = encoder_output(2) * (step + 1)
            indices = module(z).indices
            module.update(generator())
            for g in range(2):
                vectors = z[:, dim * g : dim * g + dim].permute(0, 2, 3, 1).reshape(-1, dim).double()
                for k in range(8):
                    own = vectors[(indices[:, g] == k).flatten()]
                    usage[g, k] = decay * usage[g, k] + (1 - decay) * len(own)
                    sums[g, k] = decay * sums[g, k] + (1 - decay) * own.sum(0)
                    codebook[g, k] = sums[g, k] / usage[g, k]
            torch.testing.assert_close(module.usage.double(), usage, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(module.codebook.double(), codebook, rtol=1e-5, atol=1e-6)

    def test_a_step_in_parts_is_the_same_step(self) -> None:
        whole, parts = (quantizer(quantizer="ema", restart_below=0.5, ema_decay=0.5) for _ in range(2))
        for seed in range(3):
            z = encoder_output()
            whole(z)
            for number in range(2):
                parts(z[number::2])
            assert whole.update(generator(seed)) == parts.update(generator(seed))
            torch.testing.assert_close(whole.codebook, parts.codebook)
            torch.testing.assert_close(whole.usage, parts.usage)

    def test_converge_to_the_means_of_their_points(self) -> None:
        module = quantizer(quantizer="ema", ema_decay=0.5)
        z = encoder_output()
        for _ in range(200):
            module(z)
            module.update(generator())
        vectors = z.permute(0, 2, 3, 1).reshape(-1, 3)
        owner = nearest(vectors, module.codebook[0])
        for k in owner.unique():
            torch.testing.assert_close(module.codebook[0, k], vectors[owner == k].mean(0))

    def test_a_code_that_nobody_uses_stays_finite(self) -> None:
        module = quantizer(quantizer="ema", ema_decay=0.01)
        with torch.no_grad():
            module.codebook[0, 3] = 1e4
        for _ in range(50):
            module(encoder_output())
            module.update(generator())
        assert module.codebook.isfinite().all() and float(module.usage[0, 3]) < 1e-30
        assert module.codebook[0, 3].allclose(torch.tensor(1e4))

    def test_evaluation_notes_nothing(self) -> None:
        module = quantizer(quantizer="ema").eval()
        before = module.codebook.clone()
        module(encoder_output())
        assert module.update(generator()) == 0 and module.codebook.equal(before)


EVEN = 40 / 8  # tokens of a batch for each code, were all used alike


def with_dead_codes(learns: str, **fields: Any) -> VectorQuantizer:
    """The last group's codes 5, 6 and 7 lie where no encoder output is, and have not been used for long."""
    module = quantizer(quantizer=learns, ema_decay=0.99, restart_below=0.2, **fields)
    with torch.no_grad():
        module.codebook[-1, 5:] = 1e3
        module.usage.fill_(EVEN)
        module.usage[-1, 5:] = 0.01
        if learns == "ema":
            module.vector_sums.copy_(module.codebook * module.usage[..., None])
    return module


class TestRestarts:
    @pytest.mark.parametrize("learns", ["gradient", "ema"])
    def test_dead_codes_move_among_the_outputs_and_are_alive_one_step_later(self, learns: str) -> None:
        module, z = with_dead_codes(learns), encoder_output()
        module(z)
        assert module.update(generator()) == 3
        reborn = module.codebook[0, 5:].clone()
        vectors = z.permute(0, 2, 3, 1).reshape(-1, 3)
        for code in reborn:
            assert (vectors == code).all(1).any()  # one of this step's encoder outputs, exactly
        assert len(reborn.unique(dim=0)) == 3
        # From the next step on they are used, stay where they are, and are not taken for dead again.
        for step in range(20):
            assert set(range(5, 8)) <= set(module(z).indices.unique().tolist())
            assert module.update(generator(step)) == 0
            if learns == "gradient":
                assert module.codebook[0, 5:].equal(reborn)
            elif step == 0:
                assert float((module.codebook[0, 5:] - reborn).norm(dim=1).max()) < 0.05

    def test_codes_in_use_are_left_alone(self) -> None:
        module, z = with_dead_codes("gradient"), encoder_output()
        before = module.codebook.detach().clone()
        module(z)
        assert module.update(generator()) == 3
        assert module.codebook[0, :5].equal(before[0, :5])

    def test_a_code_dies_when_it_is_used_less_than_its_share(self) -> None:
        module = quantizer(ema_decay=0.5, restart_below=0.2)
        with torch.no_grad():
            module.codebook[0, 7] = 1e3
        restarted = []
        for _ in range(3):
            module(encoder_output())
            dead = module.codebook[0, 7].max() > 100
            restarted.append(module.update(generator()) > 0 and bool(dead and module.codebook[0, 7].max() < 100))
        # Usage 5 -> 2.5 -> 1.25 -> 0.625, and a fifth of an even use is 1.
        assert restarted == [False, False, True]

    def test_are_a_function_of_the_generator(self) -> None:
        def after(seed: int) -> Tensor:
            module = with_dead_codes("ema")
            for step in range(6):
                module(encoder_output())
                module.update(generator(seed + step))
            return module.codebook

        assert after(0).equal(after(0))
        assert not after(0).equal(after(100))

    def test_each_group_restarts_its_own(self) -> None:
        module, z = with_dead_codes("gradient", codes_per_position=2), encoder_output(2)
        first = module.codebook[0].detach().clone()
        module(z)
        assert module.update(generator()) == 3
        vectors = z[:, 3:].permute(0, 2, 3, 1).reshape(-1, 3)
        assert all((vectors == code).all(1).any() for code in module.codebook[1, 5:])
        assert module.codebook[0].equal(first)

    def test_more_dead_codes_than_outputs(self) -> None:
        module = quantizer(num_codes=64, restart_below=0.9, ema_decay=0.01)
        z = encoder_output(batch=1, height=2, width=2)
        module(z)
        assert module.update(generator()) >= 60
        vectors = z.permute(0, 2, 3, 1).reshape(-1, 3)
        assert (explicit_squared_distances(module.codebook[0].detach(), vectors).min(1).values == 0).sum() >= 60


class TestFirstCodes:
    def test_uniform_is_the_reports(self) -> None:
        codebook = quantizer(codebook_init="uniform", num_codes=50, code_dim=64).codebook
        assert float(codebook.detach().abs().max()) <= 1 / 50 and float(codebook.detach().std()) == pytest.approx(
            1 / 50 / 3**0.5, rel=0.05
        )

    def test_normal_has_unit_spread(self) -> None:
        codebook = quantizer(num_codes=50, code_dim=64).codebook.detach()
        assert float(codebook.std()) == pytest.approx(1, rel=0.05)

    @pytest.mark.parametrize("learns", ["gradient", "ema", "frozen"])
    def test_data_puts_each_code_at_an_output_of_its_group(self, learns: str) -> None:
        module, z = quantizer(codebook_init="data", codes_per_position=2, quantizer=learns), encoder_output(2)
        z[:, 3:] += 100
        module.start(z, generator())
        for g in range(2):
            vectors = z[:, 3 * g : 3 * g + 3].permute(0, 2, 3, 1).reshape(-1, 3)
            distances, owner = explicit_squared_distances(module.codebook[g].detach(), vectors).min(1)
            assert float(distances.max()) < 0.01 and len(owner.unique()) == 8
        assert bool(module.started)

    def test_kmeans_is_nearer_than_data(self) -> None:
        z = encoder_output(batch=16)
        loss = {}
        for init in ("data", "kmeans"):
            module = quantizer(codebook_init=init)
            module.start(z, generator())
            loss[init] = float(module(z).commitment_loss.mean())
        assert loss["kmeans"] < 0.9 * loss["data"]

    def test_kmeans_centres_are_means_of_their_points(self) -> None:
        points = torch.cat([torch.randn(30, 2, generator=generator(k)) * 0.01 + 10 * k for k in range(4)])
        centres = quantize._kmeans(points, torch.tensor([[1.0, 0], [9, 9], [22, 20], [31, 29]]))
        torch.testing.assert_close(centres, points.view(4, 30, 2).mean(1))

    def test_a_centre_without_points_stays(self) -> None:
        points = torch.zeros(5, 2)
        centres = quantize._kmeans(points, torch.tensor([[0.1, 0.0], [7.0, 7.0]]))
        assert centres.tolist() == [[0, 0], [7, 7]]

    def test_fewer_points_than_codes_are_told_apart(self) -> None:
        module = quantizer(codebook_init="kmeans", num_codes=32)
        module.start(encoder_output(batch=1, height=2, width=2), generator())
        assert len(module.codebook[0].detach().unique(dim=0)) == 32

    @pytest.mark.parametrize("init", ["data", "kmeans"])
    def test_a_second_start_changes_nothing(self, init: str) -> None:
        module = quantizer(codebook_init=init)
        assert not bool(module.started)
        module.start(encoder_output(), generator())
        before = module.codebook.detach().clone()
        module.start(encoder_output() + 1, generator(1))
        assert module.codebook.equal(before)
