"""The second VQ-VAE: what its codes may know, what its decoder may see, and what is said to be left of an image."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages import last, second, train_first

from vqvae_core import hierarchy_task
from vqvae_core.codes import Codes, codes_of
from vqvae_core.config import Experiment, HierarchyConfig, VQVAEConfig
from vqvae_core.data import Dataset
from vqvae_core.first_stage import FirstStage
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.hierarchy_task import evaluate, kept, second_reconstruction
from vqvae_core.presets import tiny
from vqvae_core.restore import restore
from vqvae_core.sampling import incremental_logits, sample
from vqvae_core.second_stage import open_first
from vqvae_core.train import fit
from vqvae_core.vqvae import VQVAE

SMALL = HierarchyConfig(hidden=8, residual_blocks=1, num_codes=8, code_dim=4, layers=3, decoder_hidden=4, head=8)
VARIANTS = [(p, condition) for p in ("average", "positions", "none") for condition in ("vector", "map")]


def first_for(height: int, width: int, groups: int = 1) -> FirstStage:
    """An untrained first stage whose codes are on height x width positions."""
    config = VQVAEConfig(hidden=4, residual_blocks=0, num_codes=6, code_dim=3, codes_per_position=groups)
    base = tiny()
    return FirstStage(Experiment(base.data, config, base.train), VQVAE(config, (4 * height, 4 * width, 1)).eval())


def model_for(height: int, width: int, groups: int = 1, **changes: Any) -> Hierarchy:
    torch.manual_seed(0)
    model = Hierarchy(replace(SMALL, **changes), first_for(height, width, groups))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def maps(model: Hierarchy, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(6, (count, *model.first.latent_shape), generator=generator)


@pytest.mark.parametrize(("pooling", "condition"), VARIANTS)
@pytest.mark.parametrize(("height", "width", "groups"), [(21, 21, 1), (7, 7, 1), (5, 9, 2), (2, 2, 1), (1, 3, 1)])
def test_any_map_becomes_so_many_codes(pooling: str, condition: str, height: int, width: int, groups: int) -> None:
    model = model_for(height, width, groups, pooling=pooling, condition=condition).eval()
    indices = maps(model)
    codes = model.encode(indices)
    cells = (1, 1) if pooling != "none" else model.code_shape[1:]
    assert codes.shape == (2, 3, *cells) and codes.shape[1:] == model.code_shape and int(codes.max()) < 8
    assert model.nll(indices, codes).shape == (2,)
    assert second_reconstruction(model, indices).shape == indices.shape


@pytest.mark.parametrize(
    ("height", "width", "halvings", "cells"),
    [(21, 21, 2, (6, 6)), (21, 21, 3, (3, 3)), (8, 5, 1, (4, 3)), (2, 2, 3, (1, 1))],
)
def test_without_pooling_each_cell_of_the_map_has_its_codes(
    height: int, width: int, halvings: int, cells: tuple[int, int]
) -> None:
    model = model_for(height, width, pooling="none", condition="map", halvings=halvings).eval()
    assert model.code_shape == (3, *cells)
    # What a code says is told where it stands: another code in the last cell leaves the first positions as they were.
    codes = torch.zeros(1, 3, *cells, dtype=torch.long)
    changed = codes.clone()
    changed[..., -1, -1] = 5
    moved = (model.condition_of(changed) - model.condition_of(codes)).abs().amax(1)[0].gt(0)
    assert moved[-1, -1] and (moved[0, 0] == (max(cells) == 1))


def test_the_codebooks_are_trained_and_saved() -> None:
    model = model_for(5, 5)
    assert model.state_dict()["quantizer.codebook"].shape == (3, 8, 4)
    model(maps(model, 4)).loss.mean().backward()
    for name, parameter in model.named_parameters():
        # All but the vertical stack's way out of the last layer, which nobody reads, and rows of tables.
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert not any("first" in name for name in model.state_dict())


@pytest.mark.parametrize("condition", ["vector", "map"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
def test_the_decoder_sees_the_codes_before_and_nothing_else_of_its_target(
    condition: str, height: int, width: int
) -> None:
    """The report's decoder was trained with its target in sight."""
    model = model_for(height, width, condition=condition).eval().double()
    indices = maps(model, 1)
    given = model.condition_of(model.encode(indices))
    before = model.pixelcnn(indices, None, given)
    for place in (0, width + 2, height * width // 2, height * width - 1):
        changed = indices.clone()
        changed.view(-1)[place] = (changed.view(-1)[place] + 1) % 6
        moved = (model.pixelcnn(changed, None, given) - before).abs().flatten(1, 3).amax(-1)[0].gt(0)
        assert not moved[: place + 1].any()
        assert place == height * width - 1 or moved[place + 1]


@pytest.mark.parametrize("condition", ["vector", "map"])
def test_the_decoder_hears_every_code_everywhere(condition: str) -> None:
    model = model_for(6, 7, condition=condition).eval()
    indices, codes = maps(model, 1), torch.tensor([1, 2, 3]).view(1, 3, 1, 1)
    before = model.pixelcnn(indices, None, model.condition_of(codes))
    for number in range(3):
        changed = codes.clone()
        changed[0, number] = 5
        after = model.pixelcnn(indices, None, model.condition_of(changed))
        assert (after - before).abs().amax(-1).gt(0).all()


def test_the_numbers_of_codes_have_no_order() -> None:
    """The report's encoder read them as grey levels: codes in another order were another image."""
    model = model_for(6, 6).eval()
    indices, order = maps(model), torch.randperm(6, generator=torch.Generator().manual_seed(2))
    before = model.vectors(indices)
    with torch.no_grad():
        table = model.embeddings[0].weight
        table[order] = table.clone()
    torch.testing.assert_close(model.vectors(order[indices]), before)


@pytest.mark.parametrize("incremental", [True, False])
def test_a_map_of_conditions_is_sampled_like_any_other(incremental: bool) -> None:
    model = model_for(5, 6, groups=2, condition="map").eval().double()
    indices = maps(model, 3)
    condition = model.condition_of(model.encode(indices))
    assert condition.shape == (3, 32, 5, 6)
    whole = model.pixelcnn(indices, None, condition)
    assert (incremental_logits(model.pixelcnn, indices, None, condition) - whole).abs().max() < 1e-12
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    one = sample(model.pixelcnn, 5, 6, condition=condition, generator=generators[0], batch_size=2)
    other = sample(model.pixelcnn, 5, 6, condition=condition, generator=generators[1], incremental=incremental)
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"condition has maps of \(5, 6\); allowed is \(6, 5\)"):
        sample(model.pixelcnn, 6, 5, condition=condition)
    with pytest.raises(ValueError, match=r"condition has shape \(3, 32, 5\); allowed is \(3, 32\) or \(3, 32, H, W\)"):
        model.pixelcnn(indices, None, condition[..., 0])


def test_rare_codes_weigh_more_and_the_mean_stays_one() -> None:
    model = model_for(4, 4, rare_weight=0.5)
    counts = torch.tensor([[1000, 500, 100, 10, 0, 0]])
    model.weigh(counts)
    weights = model.code_weights[0]
    assert (weights.diff() >= 0).all() and weights[-1] > 10 * weights[0]
    share = (counts[0] + 1) / (counts[0] + 1).sum()
    assert float((share * weights).sum()) == pytest.approx(1, rel=1e-6)
    torch.testing.assert_close(weights[0] / weights[2], (share[2] / share[0]).sqrt().float())
    # And that is how they weigh in the loss.
    model.eval()
    indices = maps(model)
    parts = model(indices)
    nats = model._nats(indices, model.condition_of(model.encode(indices)))
    expected = (nats * weights[indices]).flatten(1).mean(1)
    vq = parts.parts["codebook"] + model.config.beta * parts.parts["commitment"]
    torch.testing.assert_close(parts.loss - vq, expected)
    torch.testing.assert_close(parts.parts["nats_per_code"], nats.flatten(1).mean(1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hierarchy, Codes, Dataset]:
    from made_up import write_made_up

    images = write_made_up(tmp_path_factory.mktemp("hierarchy") / "made_up", (16, 16, 1), train=128)
    first: Path = train_first(images, **{"train.images": 1024, "train.lr": 3e-3})
    longer = {"train.images": 4000, "train.eval_every": 4000, "train.batch_size": 16, "train.lr": 3e-3}
    longer |= {"model.quantizer": "ema", "model.codebook_init": "kmeans", "model.pooling": "positions"}
    report = last(fit(second("hierarchy", images, first, **longer), dataset=images))
    model = restore(report.state, images.shape)
    assert isinstance(model, Hierarchy)
    return model, codes_of(open_first(str(first)), images, torch.device("cpu")), images


def test_codes_that_help_are_worth_bits_and_codes_that_do_not_are_worth_none(
    trained: tuple[Hierarchy, Codes, Dataset],
) -> None:
    model, codes, images = trained
    metrics = evaluate(model, codes, "valid", 8, 64)
    assert metrics["information"] > 0
    assert metrics["information_most"] == pytest.approx(9)
    dims = 16 * 16
    assert metrics["bits_per_dim"] == pytest.approx(metrics["distortion"] + metrics["rate_prior"])
    own = metrics["bits_per_code"] * 32 / dims  # 2 codes at each of 4 x 4 positions
    assert metrics["rate_prior"] == pytest.approx(own + metrics["rate_top"])
    # By hand: the decoder's nats given the codes of each map.
    indices = torch.from_numpy(codes.indices("valid").astype(np.int64))
    nats = model.nll(indices, model.encode(indices)).sum().item()
    assert own == pytest.approx(nats / math.log(2) / (len(indices) * dims), rel=1e-5)
    assert evaluate(model, codes, "valid", 5, 64) == pytest.approx(metrics, rel=1e-5)

    deaf = restore({"model": model.state_dict(), **_state_of(model)}, images.shape)
    assert isinstance(deaf, Hierarchy) and deaf.pixelcnn.condition is not None
    with torch.no_grad():
        deaf.pixelcnn.condition.weight.zero_()
    assert evaluate(deaf, codes, "valid", 8, 64)["information"] == 0


def _state_of(model: Hierarchy) -> dict[str, Any]:
    from vqvae_core.overrides import flatten

    base = tiny()
    return {"experiment": flatten(replace(base, model=model.config)), "first": model.first.state()}


def test_what_is_left_of_the_foreground(
    trained: tuple[Hierarchy, Codes, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, codes, images = trained
    found = kept(model, codes, "valid")
    assert found["first_foreground_error"] < 1
    chosen = np.linspace(0, 20, model.config.pictures).astype(int)

    def answer(pictures: np.ndarray) -> None:
        monkeypatch.setattr(hierarchy_task, "pictures_of", lambda first, maps: pictures)

    answer(np.asarray(images.images("valid")[chosen]))
    assert kept(model, codes, "valid")["second_foreground_error"] == 0
    background = np.median(images.images("train"), axis=0)
    answer(np.broadcast_to(background, (len(chosen), 16, 16, 1)))
    assert kept(model, codes, "valid")["second_foreground_error"] == pytest.approx(1)
