"""Sampling: the incremental way gives what the whole network gives, and both give the distribution."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from vqvae_core.incremental import Incremental
from vqvae_core.pixelcnn import PixelCNN, PixelCNNConfig
from vqvae_core.sampling import draw, incremental_logits, sample


def model_of(codes: int = 1, classes: int = 0, condition: int = 0, num_codes: int = 7, **config: Any) -> PixelCNN:
    """In float64 and eval mode, every class seen, biases not zero, with logits far from uniform."""
    torch.manual_seed(0)
    sizes = {"layers": 4, "hidden": 8, "head": 16} | config
    model = PixelCNN(PixelCNNConfig(**sizes), num_codes, codes, classes, condition).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    model.seen_classes.fill_(True)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("codes", [1, 3])
@pytest.mark.parametrize(
    "config", [{}, {"layers": 1}, {"kernel": 5, "first_kernel": 5}, {"layers": 2, "first_kernel": 9}]
)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9), (1, 1), (1, 6), (6, 1), (3, 2)])
def test_incremental_logits_are_the_networks(codes: int, config: dict[str, int], height: int, width: int) -> None:
    model = model_of(codes, classes=3, condition=2, **config)
    indices, labels = torch.randint(7, (3, codes, height, width)), torch.tensor([2, 0, 2])
    condition = torch.randn(3, 2, dtype=torch.float64)
    with torch.no_grad():
        expected = model(indices, labels, condition)
    torch.testing.assert_close(incremental_logits(model, indices, labels, condition), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"count": 5},
        {"labels": torch.tensor([0, 1, 2, 2, 0])},
        {"count": 5, "temperature": 0.5},
        {"count": 5, "temperature": 3.0, "top_k": 3},
        {"count": 5, "top_k": 1},
    ],
)
@pytest.mark.parametrize("codes", [1, 2])
def test_both_ways_draw_the_same_maps(codes: int, options: dict[str, Any]) -> None:
    model = model_of(codes, classes=3)
    fast = sample(model, 4, 6, generator=seeded(), **options)
    assert fast.shape == (5, codes, 4, 6)
    assert torch.equal(fast, sample(model, 4, 6, generator=seeded(), incremental=False, **options))
    assert torch.equal(fast, sample(model, 4, 6, generator=seeded(), batch_size=2, **options))
    assert not torch.equal(fast, sample(model, 4, 6, generator=seeded(1), **options)) or options.get("top_k") == 1


def test_float32_draws_the_same_maps() -> None:
    model = model_of(codes=2).float()
    maps = [sample(model, 5, 5, count=4, generator=seeded(), incremental=way) for way in (True, False)]
    assert torch.equal(*maps)


def test_greedy_takes_the_likeliest_code_each_time() -> None:
    model = model_of()
    maps = sample(model, 3, 4, count=1, top_k=1)
    with torch.no_grad():
        assert torch.equal(model(maps).argmax(-1), maps)


def test_samples_follow_the_models_distribution() -> None:
    """All 3^4 maps of 2 x 2 codes, priced by the network and counted among samples."""
    model, n = model_of(num_codes=3, classes=2), 20_000
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 1, 2, 2)
    with torch.no_grad():
        expected = model.nll(every, torch.ones(81, dtype=torch.long)).neg().exp()
    maps = sample(model, 2, 2, labels=torch.ones(n, dtype=torch.long), generator=seeded(), batch_size=n)
    numbers = (maps.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    counted = numbers.bincount(minlength=81) / n
    assert ((counted - expected).abs() < 5 * (expected / n).sqrt() + 1e-4).all()


def test_draw_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().expand(7, 4)
    uniforms = torch.tensor([0.0, 0.0999, 0.1001, 0.2999, 0.3001, 0.9, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, uniforms).tolist() == [0, 0, 1, 1, 3, 3, 3]
    assert draw(logits, uniforms, top_k=1).tolist() == [3] * 7
    assert draw(logits, uniforms, top_k=2).tolist() == [1, 1, 1, 3, 3, 3, 3]
    for temperature in (1e-3, 1e-310):
        assert draw(logits, uniforms, temperature=temperature).tolist() == [3] * 7


def test_draw_never_takes_an_impossible_code() -> None:
    """Not even for a number that rounding has pushed to an end."""
    logits = torch.full((3, 4), -torch.inf)
    logits[:, 1] = 0
    assert draw(logits, torch.tensor([0.0, 1 - 2**-53, 1.0], dtype=torch.float64)).tolist() == [1, 1, 1]
    assert draw(logits[:, :2], torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist() == [1, 1, 1]


def test_classes_and_conditions_change_what_is_drawn() -> None:
    model = model_of(classes=2, condition=2)
    labels, conditions = torch.tensor([[0], [1]]), torch.eye(2, dtype=torch.float64)[:, None] * 5
    maps = [
        sample(model, 8, 8, labels=label, condition=condition, generator=seeded())
        for label, condition in itertools.product(labels, conditions)
    ]
    for one, other in itertools.combinations(maps, 2):
        assert not torch.equal(one, other)


def corner(height: int, width: int) -> Tensor:
    keep = torch.zeros(height, width, dtype=torch.bool)
    keep[:2] = True  # whole rows
    keep[2, : width // 2] = True
    return keep


@pytest.mark.parametrize("codes", [1, 2])
@pytest.mark.parametrize("pattern", ["corner", "random", "per map", "all", "none"])
def test_completion_keeps_the_given_part(codes: int, pattern: str) -> None:
    torch.manual_seed(1)
    model = model_of(codes)
    given = torch.randint(7, (3, codes, 5, 4))
    keep = {
        "corner": corner(5, 4),
        "random": torch.rand(5, 4) < 0.5,
        "per map": torch.rand(3, codes, 5, 4) < 0.5,
        "all": torch.ones(5, 4, dtype=torch.bool),
        "none": torch.zeros(1, dtype=torch.bool),
    }[pattern]
    options: dict[str, Any] = {"given": given.masked_fill(~keep, -1), "keep": keep}  # what is not kept may be anything
    maps = sample(model, 5, 4, generator=seeded(), **options)
    kept = keep.expand(given.shape)
    assert torch.equal(maps[kept], given[kept])
    assert torch.equal(maps, sample(model, 5, 4, generator=seeded(), incremental=False, **options))
    free = sample(model, 5, 4, count=3, generator=seeded())
    assert torch.equal(maps, {"all": given, "none": free}.get(pattern, maps))


def test_progress_counts_codes_and_ends_at_all() -> None:
    calls: list[tuple[int, int]] = []
    sample(model_of(codes=2), 3, 4, count=5, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    done = [d for d, _ in calls]
    assert {t for _, t in calls} == {5 * 2 * 3 * 4}
    assert done == sorted(set(done)) and done[-1] == 120 and len(done) == 3 * 3
    assert done[0] == 2 * 2 * 4


def test_without_a_generator_the_seed_is_torchs_own() -> None:
    model = model_of()
    maps = []
    for _ in range(2):
        torch.manual_seed(5)
        maps.append(sample(model, 3, 3, count=2))
    assert torch.equal(*maps)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_is_in_eval_mode_and_restores_the_models(training: bool) -> None:
    model, labels = model_of(dropout=0.5, classes=2, null_rate=0.5), torch.tensor([0, 1])
    expected = sample(model, 3, 3, labels=labels, generator=seeded())
    model.train(training)
    assert torch.equal(expected, sample(model, 3, 3, labels=labels, generator=seeded()))
    assert model.training == training
    incremental_logits(model, expected, labels)
    assert model.training == training

    def stop(done: int, total: int) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(model, 3, 3, labels=labels, progress=stop)
    assert model.training == training


def test_small_products_run_on_one_thread() -> None:
    seen: list[int] = []
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for hidden in (8, 128):
            model = model_of(hidden=hidden, layers=1)
            sample(model, 1, 2, count=32, progress=lambda done, total: seen.append(torch.get_num_threads()))
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert seen == [1, 2]


def test_an_engine_draws_the_next_maps_afresh() -> None:
    """What is left of earlier maps, or of the trial runs before a GPU's capture, must not show."""
    model = model_of()
    numbers = torch.rand(2, 1, 4, 5, generator=seeded(), dtype=torch.float64)
    given, keep = torch.zeros_like(numbers, dtype=torch.long), torch.zeros_like(numbers, dtype=torch.bool)
    with torch.no_grad():
        engine = Incremental(model, 2, 5, draw)
        first = torch.stack(list(engine.rows(model.biases(2), numbers, given, keep)))
        next(engine.rows(model.biases(2), 1 - numbers, given, keep))
        for _ in range(3):
            engine._draw_row()
        again = torch.stack(list(engine.rows(model.biases(2), numbers, given, keep)))
    assert torch.equal(first, again)


def test_without_a_working_graph_it_warns_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDevice:
        def __init__(self, *_: object) -> None:
            raise RuntimeError("no stream can be captured here")

    class Anywhere:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "device", Anywhere)
    monkeypatch.setattr(torch.cuda, "Stream", NoDevice)
    engine = Incremental(model_of(), 1, 3, draw)
    with pytest.warns(RuntimeWarning, match="without a CUDA graph: no stream can be captured here"):
        assert engine._capture() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_row_draws_the_same_maps() -> None:
    model = model_of(codes=2, classes=3)
    labels = torch.tensor([0, 1, 2])
    on_cpu = sample(model, 4, 6, labels=labels, generator=seeded())
    on_gpu = sample(model.cuda(), 4, 6, labels=labels, generator=seeded())
    assert torch.equal(on_cpu, on_gpu.cpu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "number of maps is not given"),
        ({"count": 2, "labels": torch.zeros(3, dtype=torch.long)}, "number of maps is {'labels': 3, 'count': 2}"),
        ({"count": 0}, "allowed are integers >= 1"),
        ({"count": 2, "batch_size": 0}, "in batches of 0"),
        ({"count": 2, "temperature": 0.0}, "temperature is 0.0; allowed is a number > 0"),
        ({"count": 2, "temperature": float("nan")}, "temperature is nan"),
        ({"count": 2, "top_k": 0}, "top_k is 0; allowed is an integer from 1 to 7"),
        ({"count": 2, "top_k": 8}, "top_k is 8"),
        ({"count": 2, "keep": torch.ones(3, 3, dtype=torch.bool)}, "one of given and keep is None"),
        ({"given": torch.zeros(2, 1, 3, 3, dtype=torch.long)}, "one of given and keep is None"),
        (
            {"given": torch.zeros(2, 1, 3, 4, dtype=torch.long), "keep": torch.ones(3, 3, dtype=torch.bool)},
            r"given has shape \(2, 1, 3, 4\); allowed is \(2, 1, 3, 3\)",
        ),
        ({"given": torch.zeros(2, 1, 3, 3, dtype=torch.long), "keep": torch.ones(3, 3)}, "keep holds torch.float32"),
        (
            {"given": torch.zeros(2, 1, 3, 3, dtype=torch.long), "keep": torch.ones(4, 3, dtype=torch.bool)},
            r"keep has shape \(4, 3\)",
        ),
        (
            {"given": torch.full((2, 1, 3, 3), 7), "keep": torch.ones(3, 3, dtype=torch.bool)},
            r"given has codes in 7 \.\. 7; allowed is 0 \.\. 6",
        ),
        ({"labels": torch.tensor([0, 3])}, r"labels lie in 0 \.\. 3"),
        ({"labels": torch.tensor([0, 1])}, "class 1 was not seen in training; seen: 0, 2, none"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    model = model_of(classes=3)
    model.seen_classes[1] = False
    with pytest.raises(ValueError, match=message):
        sample(model, 3, 3, **options)
