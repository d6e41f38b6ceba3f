"""The gated PixelCNN: what each logit sees, that it is a distribution, and what it refuses."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks._plain_pixelcnn import PlainPixelCNN
from vqvae_core.pixelcnn import Gate, PixelCNN, PixelCNNConfig

SMALL = PixelCNNConfig(layers=3, hidden=4, head=32, null_rate=0.0)


def model_of(
    config: PixelCNNConfig = SMALL, num_codes: int = 5, codes: int = 1, classes: int = 0, condition: int = 0
) -> PixelCNN:
    """In float64 and eval mode, every class seen, and no weight or bias at zero."""
    torch.manual_seed(0)
    model = PixelCNN(config, num_codes, codes, classes, condition).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    model.seen_classes.fill_(True)
    return model


def sensitivity(model: PixelCNN, indices: Tensor) -> dict[tuple[int, ...], Tensor]:
    """For every logit (g, i, j), whether the embedding of each code (G, H, W) moves it: gradients that are not zero."""
    embedded: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hooks = [table.register_forward_hook(keep) for table in model.embeddings]
    logits = model(indices)[0].logsumexp(-1)
    for hook in hooks:
        hook.remove()
    seen = {}
    for at in itertools.product(*map(range, logits.shape)):
        gradients = torch.autograd.grad(logits[at], embedded, retain_graph=True, allow_unused=True)
        seen[at] = torch.stack(
            [torch.zeros(logits.shape[1:]) if g is None else g[0].abs().sum(-1) for g in gradients]
        ).bool()
    return seen


@pytest.mark.parametrize("codes", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (9, 4), (1, 7), (6, 1)])
def test_a_code_sees_all_codes_before_it_and_no_other(height: int, width: int, codes: int) -> None:
    config = replace(SMALL, layers=5 if max(height, width) < 9 else 6)
    model = model_of(config, codes=codes)
    assert model.reach >= max(height, width) - 1
    indices = torch.randint(5, (1, codes, height, width))
    order = torch.arange(height * width * codes).view(height, width, codes).permute(2, 0, 1)
    for at, seen in sensitivity(model, indices).items():
        assert torch.equal(seen, order < order[at]), f"logits of code {at}"


@pytest.mark.parametrize(
    ("layers", "first_kernel", "kernel", "reach"),
    [(1, 3, 3, 1), (1, 7, 3, 3), (3, 3, 3, 3), (3, 5, 5, 6), (2, 7, 5, 5)],
)
def test_the_receptive_field_is_a_whole_rectangle(layers: int, first_kernel: int, kernel: int, reach: int) -> None:
    """A blind spot would show as a hole, most often to the right in the rows above."""
    model = model_of(replace(SMALL, layers=layers, first_kernel=first_kernel, kernel=kernel))
    assert model.reach == reach
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(14), indexing="ij")
    i, j = 7, 6
    before = (rows < i) | ((rows == i) & (columns < j))
    near = (rows >= i - reach) & ((columns - j).abs() <= reach)
    seen = sensitivity(model, torch.randint(5, (1, 1, 9, 14)))[0, i, j]
    assert torch.equal(seen[0], before & near)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
def test_changing_a_code_moves_no_logit_up_to_it(height: int, width: int) -> None:
    model = model_of(codes=2)
    indices = torch.randint(5, (1, 2, height, width))
    before = model(indices)
    order = torch.arange(height * width * 2).view(height, width, 2).permute(2, 0, 1)
    for g, i, j in itertools.product(range(2), range(height), range(width)):
        changed = indices.clone()
        changed[0, g, i, j] = (changed[0, g, i, j] + 1) % 5
        moved = (model(changed) != before).any(-1)[0]
        assert not moved[order <= order[g, i, j]].any()
        assert moved.any() or order[g, i, j] == order.max()


def test_it_is_the_function_that_masked_kernels_compute() -> None:
    model = model_of(replace(SMALL, layers=4), classes=3)
    plain = PlainPixelCNN(model).double()
    indices, labels = torch.randint(5, (4, 1, 6, 7)), torch.tensor([0, 2, 1, 2])
    torch.testing.assert_close(plain(indices[:, 0], labels), model(indices, labels)[:, 0].permute(0, 3, 1, 2))


def test_every_weight_of_every_kernel_is_used() -> None:
    model = model_of(codes=2, classes=2, condition=3)
    indices = torch.randint(5, (8, 2, 8, 8))
    model.nll(indices, torch.arange(8) % 2, torch.randn(8, 3).double()).sum().backward()
    for name, weight in model.layers.named_parameters():
        assert weight.grad is not None and weight.grad.ne(0).all(), name


def test_gate_is_tanh_times_sigmoid_with_its_gradient() -> None:
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    a, b = features.chunk(2, 1)
    torch.testing.assert_close(Gate.apply(features), a.tanh() * b.sigmoid(), rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(Gate.apply, (features,))


@pytest.mark.parametrize(
    ("num_codes", "codes", "height", "width"), [(2, 1, 2, 3), (3, 1, 2, 2), (2, 2, 1, 3), (2, 3, 2, 1)]
)
def test_probabilities_of_all_maps_sum_to_one(num_codes: int, codes: int, height: int, width: int) -> None:
    model = model_of(num_codes=num_codes, codes=codes, classes=2)
    every = torch.tensor(list(itertools.product(range(num_codes), repeat=codes * height * width)))
    every = every.view(-1, codes, height, width)
    for labels in (None, torch.ones(len(every), dtype=torch.long)):
        assert model.nll(every, labels).neg().exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_nll_is_the_sum_over_codes_in_nats() -> None:
    model = model_of(codes=2)
    indices = torch.randint(5, (3, 2, 4, 5))
    by_hand = [
        -sum(
            model(indices)[n, g, i, j].log_softmax(-1)[indices[n, g, i, j]].item()
            for g, i, j in itertools.product(range(2), range(4), range(5))
        )
        for n in range(3)
    ]
    assert model.nll(indices).tolist() == pytest.approx(by_hand)
    with torch.no_grad():
        for weight in model.logits.parameters():
            weight.zero_()
    assert model.nll(indices).tolist() == pytest.approx([2 * 4 * 5 * math.log(5)] * 3)


def test_a_class_and_the_null_class_each_have_their_own_logits() -> None:
    model = model_of(classes=3)
    indices = torch.randint(5, (1, 1, 4, 4))
    logits = [model(indices), *(model(indices, torch.tensor([c])) for c in range(3))]
    for one, other in itertools.combinations(logits, 2):
        assert not torch.allclose(one, other)


def test_an_unseen_class_is_refused_by_name() -> None:
    model = PixelCNN(SMALL, num_codes=5, num_classes=4).eval()
    indices = torch.zeros(2, 1, 3, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="class 1 was not seen in training; seen: nothing yet"):
        model(indices, torch.tensor([1, 1]))
    model.mark_seen(torch.tensor([0, 2, 2]))
    model.mark_seen(torch.tensor([[3]]))
    model(indices, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"class 1 was not seen in training; seen: 0, 2, 3$"):
        model.nll(indices, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="class none was not seen"):
        model(indices)

    loaded = PixelCNN(SMALL, num_codes=5, num_classes=4).eval()
    loaded.load_state_dict(model.state_dict())
    assert loaded.seen_classes.tolist() == [True, False, True, True, False]


def test_no_class_is_a_class_of_its_own() -> None:
    model = PixelCNN(SMALL, num_codes=5).eval()
    indices = torch.zeros(2, 1, 3, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="class none was not seen"):
        model(indices)
    model.mark_seen(None)
    model(indices)
    with pytest.raises(ValueError, match="no classes"):
        model(indices, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="no classes"):
        model.mark_seen(torch.zeros(2, dtype=torch.long))


def test_null_rate_trains_the_null_class_with_labelled_examples() -> None:
    indices, labels = torch.randint(5, (64, 1, 3, 3)), torch.arange(64) % 2
    for rate, classes_seen, null_seen in ((0.0, True, False), (0.5, True, True), (1.0, False, True)):
        model = model_of(replace(SMALL, null_rate=rate), classes=2).train()
        model.seen_classes.fill_(False)
        model.mark_seen(labels)
        assert model.seen_classes.tolist() == [classes_seen, classes_seen, null_seen]
        model.nll(indices, labels).sum().backward()
        assert model.classes.weight.grad is not None
        assert model.classes.weight.grad.ne(0).any(1).tolist() == [classes_seen, classes_seen, null_seen]
    model = model_of(replace(SMALL, null_rate=1.0), classes=2).train()
    assert torch.equal(model(indices, labels), model(indices))


def test_dropout_acts_in_training_only() -> None:
    model = model_of(replace(SMALL, dropout=0.5))
    indices = torch.randint(5, (2, 1, 4, 4))
    assert torch.equal(model(indices), model_of(SMALL)(indices))
    model.train()
    assert not torch.allclose(model(indices), model(indices))


def test_a_condition_reaches_every_layer_and_gets_a_gradient() -> None:
    model = model_of(condition=3)
    condition = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    indices = torch.randint(5, (1, 1, 4, 4)).expand(2, -1, -1, -1)
    one, other = model(indices, condition=condition)
    assert not torch.allclose(one, other)
    biases = model.biases(2, condition=condition)
    assert biases.shape == (3, 2, 2, 8, 1, 1)
    assert (biases[:, :, 0] != biases[:, :, 1]).all()
    one.sum().backward()
    assert condition.grad is not None
    assert condition.grad.ne(0).all(1).tolist() == [True, False]


@pytest.mark.parametrize(
    ("shape", "labels", "condition", "message"),
    [
        ((2, 3, 3), None, None, r"indices have shape \(2, 3, 3\); allowed is \(B, 1, H, W\)"),
        ((2, 2, 3, 3), None, None, r"indices have shape"),
        ((2, 1, 3, 3), torch.zeros(3, dtype=torch.long), None, r"labels have shape \(3,\); allowed is None or \(2,\)"),
        ((2, 1, 3, 3), torch.tensor([0, 3]), None, r"labels lie in 0 \.\. 3; allowed is 0 \.\. 2"),
        ((2, 1, 3, 3), torch.tensor([-1, 0]), None, r"labels lie in -1"),
        ((2, 1, 3, 3), None, torch.zeros(2, 4), r"condition has shape \(2, 4\); allowed is None"),
    ],
)
def test_what_does_not_fit_is_refused(
    shape: tuple[int, ...], labels: Tensor | None, condition: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(classes=3)(torch.zeros(shape, dtype=torch.long), labels, condition)


def test_a_missing_condition_is_refused() -> None:
    with pytest.raises(ValueError, match=r"condition has shape None; allowed is \(2, 4\)"):
        model_of(condition=4)(torch.zeros(2, 1, 3, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": 4}, r"model\.kernel is 4; allowed is an odd integer >= 3"),
        ({"first_kernel": 6}, r"model\.first_kernel is 6"),
        ({"kernel": 1}, r"model\.kernel is 1"),
        ({"layers": 0}, r"model\.layers is 0"),
        ({"dropout": 1.0}, r"model\.dropout is 1\.0"),
        ({"null_rate": 1.5}, r"model\.null_rate is 1\.5"),
    ],
)
def test_an_impossible_config_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_codes is 1; allowed is an integer >= 2"):
        PixelCNN(SMALL, num_codes=1)
    with pytest.raises(ValueError, match="codes_per_position is 0"):
        PixelCNN(SMALL, num_codes=2, codes_per_position=0)


def test_it_learns_what_a_unigram_cannot() -> None:
    """Every code follows from its left neighbour, the first of a row from the class: the entropy is 0 given a class."""
    torch.manual_seed(0)
    starts = torch.arange(3)
    maps = (starts[:, None, None, None] + torch.arange(6)).remainder(3).expand(3, 1, 4, 6)
    model = PixelCNN(replace(SMALL, layers=2, hidden=16), num_codes=3, num_classes=3)
    model.mark_seen(starts)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = model.nll(maps, starts).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unigram = 24 * math.log(3)
    assert model.eval().nll(maps, starts).max().item() < 0.05 * unigram
    assert model.nll(maps, starts.roll(1)).min().item() > model.nll(maps, starts).max().item() + 1
