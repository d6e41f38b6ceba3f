"""The loop: what it reports, that it can be continued without a trace, and that it trains on what it should."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from made_up import without_times, write_made_up
from torch import Tensor

from vqvae_core import hardware
from vqvae_core.batches import Images
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.hardware import choose_device, choose_precision
from vqvae_core.posterior import Certain
from vqvae_core.train import Diverged, Report, fit
from vqvae_core.vqvae import VQVAE, Output

TinyOn = Callable[..., Experiment]

# Every option that keeps something from step to step.
VARIANTS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "ema": {"model.quantizer": "ema"},
    "frozen": {"model.quantizer": "frozen", "model.codebook_init": "normal"},
    "restart": {"model.restart_below": 0.5, "model.ema_decay": 0.5},
    "ema restart": {"model.quantizer": "ema", "model.restart_below": 0.5, "model.ema_decay": 0.5},
    "batch norm": {"model.batch_norm": True},
    "accumulate": {"train.accumulate": 4},
    "data": {"model.codebook_init": "data"},
    "kmeans": {"model.codebook_init": "kmeans", "model.quantizer": "ema"},
    "groups": {"model.codes_per_position": 3, "model.quantizer": "ema", "model.restart_below": 0.5},
    "clipped": {"train.grad_clip": 0.01},
    "bfloat16": {"train.precision": "bfloat16"},
    "odd batch": {"train.batch_size": 9, "train.eval_every": 20},
    "softmax": {"model.likelihood": "categorical"},
    "scale": {"model.scale": "channel"},
    "residual": {"model.codes_per_position": 2, "model.residual": True, "model.quantizer": "ema"},
    "vit-vqgan": {"model.normalize": True, "model.projected_dim": 2},
    "fsq": {"model.quantizer": "fsq", "model.fsq_levels": "4,2,2"},
    "vae": {"model.type": "vae"},
    "vae map": {"model.type": "vae", "model.latent_map": True, "model.likelihood": "mixture"},
    "vimco": {"model.type": "vimco"},
    "vimco in parts": {"model.type": "vimco", "model.samples_at_once": 1, "train.accumulate": 2},
    "dvae": {"model.type": "dvae", "model.codes_per_position": 2},
    "dvae hard": {"model.type": "dvae", "model.straight_through": True},
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}/{name}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{number}")
    else:
        yield path, value


def assert_same_state(one: dict[str, Any], two: dict[str, Any]) -> None:
    """To the last bit, except for the clock's part."""
    ours, theirs = dict(leaves(one)), dict(leaves(two))
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        same = value.equal(theirs[path]) if isinstance(value, Tensor) else value == theirs[path]
        assert same or path in ("/seconds", "/window/seconds"), path


def assert_same_report(one: Report, two: Report) -> None:
    assert one.images_seen == two.images_seen
    assert without_times(one.metrics) == without_times(two.metrics)
    assert_same_state(one.state, two.state)


class TestReports:
    def test_come_at_multiples_of_the_interval_and_at_the_end(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        def seen(**train: int) -> list[int]:
            changes = {f"train.{name}": value for name, value in train.items()}
            return [report.images_seen for report in fit(tiny_on(**changes), dataset=made_up)]

        assert seen(images=48, eval_every=16) == [16, 32, 48]
        assert seen(images=40, eval_every=16) == [16, 32, 48]  # the last step is a whole one
        assert seen(images=64, eval_every=24) == [32, 48, 64]
        assert seen(images=16, eval_every=1000) == [16]
        assert seen(images=1, eval_every=0) == [16]
        assert seen(images=128, eval_every=0) == list(range(16, 129, 16))

    def test_have_every_metric_by_its_name(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        report = next(fit(tiny_on(), dataset=made_up))
        train = {"loss", "mse", "codebook", "commitment", "images_per_sec", "seconds", "parameters"}
        valid = {"bits_per_dim", "distortion", "rate_unigram", "rate_uniform", "eq7", "mse", "psnr", "perplexity"}
        valid |= {"codes_used", "dead_codes", "latent_rms", "latent_growth", "code_rms", "scale"}
        assert set(report.metrics) == {f"train/{n}" for n in train} | {f"valid/{n}" for n in valid}
        assert all(type(value) is float for value in report.metrics.values())

    def test_the_growth_of_the_latents_is_since_the_first_report_also_when_continued(
        self, tiny_on: TinyOn, made_up: Dataset
    ) -> None:
        reports = list(fit(tiny_on(), dataset=made_up))
        norms = [report.metrics["valid/latent_rms"] for report in reports]
        assert [report.metrics["valid/latent_growth"] for report in reports] == [norm / norms[0] for norm in norms]
        continued = list(fit(tiny_on(), state=reports[1].state, dataset=made_up))
        assert continued[-1].metrics["valid/latent_growth"] == norms[-1] / norms[0]

    @pytest.mark.parametrize("quantizer", ["gradient", "ema"])
    def test_count_a_codebook_among_the_parameters_however_it_learns(
        self, tiny_on: TinyOn, made_up: Dataset, quantizer: str
    ) -> None:
        count = [
            next(fit(tiny_on(**{"model.quantizer": quantizer, "model.num_codes": codes}), dataset=made_up)).metrics[
                "train/parameters"
            ]
            for codes in (8, 24)
        ]
        assert count[1] - count[0] == 16 * tiny_on().model.code_dim

    def test_training_terms_are_means_over_the_steps_since_the_last(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        beta = 0.25
        each = [r.metrics for r in fit(tiny_on(**{"model.beta": beta}), dataset=made_up)]
        at_once = [r.metrics for r in fit(tiny_on(**{"model.beta": beta, "train.eval_every": 48}), dataset=made_up)]
        for name in ("loss", "mse", "codebook", "commitment"):
            mean = sum(metrics[f"train/{name}"] for metrics in each) / 3
            assert at_once[0][f"train/{name}"] == pytest.approx(mean, rel=1e-6)
        for m in each:
            parts = m["train/mse"] + m["train/codebook"] + beta * m["train/commitment"]
            assert m["train/loss"] == pytest.approx(parts, rel=1e-6)

    def test_how_often_they_come_does_not_change_the_training(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        *_, often = fit(tiny_on(**{"model.batch_norm": True, "train.eval_every": 16}), dataset=made_up)
        *_, once = fit(tiny_on(**{"model.batch_norm": True, "train.eval_every": 48}), dataset=made_up)
        assert_same_state(often.state["model"], once.state["model"])
        assert_same_state(often.state["optimizer"], once.state["optimizer"])

    def test_a_reports_state_is_not_changed_by_training_on(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        with closing(fit(tiny_on(), dataset=made_up)) as reports:
            first = next(reports)
            kept = {path: value.clone() for path, value in leaves(first.state) if isinstance(value, Tensor)}
            next(reports)
        assert all(value.equal(kept[path]) for path, value in leaves(first.state) if isinstance(value, Tensor))
        assert any(not path.startswith("/model") for path in kept)


class TestContinuing:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_from_any_report_equals_not_stopping(self, tiny_on: TinyOn, made_up: Dataset, variant: str) -> None:
        experiment = tiny_on(**VARIANTS[variant])
        whole = list(fit(experiment, dataset=made_up))
        for stop in range(1, len(whole)):
            torch.manual_seed(stop)  # whatever ran in between
            continued = list(fit(experiment, whole[stop - 1].state, made_up))
            assert len(continued) == len(whole) - stop
            for ours, theirs in zip(whole[stop:], continued, strict=True):
                assert_same_report(ours, theirs)

    @pytest.mark.parametrize(
        "variant", ["gradient", "ema restart", "batch norm", "accumulate", "kmeans", "vimco", "dvae"]
    )
    def test_from_an_interruption_at_any_step_equals_not_stopping(
        self, tiny_on: TinyOn, made_up: Dataset, variant: str
    ) -> None:
        experiment = tiny_on(**{"train.images": 96, "train.eval_every": 48}, **VARIANTS[variant])
        whole = list(fit(experiment, dataset=made_up))
        for stop in (16, 32, 64, 80):
            found = list(fit(experiment, dataset=made_up, watch=lambda seen, stop=stop: seen == stop))
            assert [report.images_seen for report in found] == [*range(48, stop, 48), stop]
            assert found[-1].metrics == {}
            found = [*found[:-1], *fit(experiment, found[-1].state, made_up)]
            for ours, theirs in zip(whole, found, strict=True):
                assert_same_report(ours, theirs)

    def test_an_interruption_at_a_report_is_that_report(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        experiment = tiny_on(**{"train.images": 96, "train.eval_every": 48})
        reports = list(fit(experiment, dataset=made_up, watch=lambda seen: seen == 48))
        assert [bool(report.metrics) for report in reports] == [True, True]

    def test_to_a_larger_budget_equals_having_had_it(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        *_, short = fit(tiny_on(**{"train.images": 32}), dataset=made_up)
        *_, longer = fit(tiny_on(**{"train.images": 64}), short.state, made_up)
        *_, whole = fit(tiny_on(**{"train.images": 64}), dataset=made_up)
        assert_same_state(longer.state["model"], whole.state["model"])

    def test_seconds_add_up(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        first = next(fit(tiny_on(), dataset=made_up))
        second = next(fit(tiny_on(), first.state, made_up))
        assert second.metrics["train/seconds"] > first.metrics["train/seconds"] == first.state["seconds"] > 0

    def test_what_is_done_reports_nothing_more(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        *_, last = fit(tiny_on(), dataset=made_up)
        assert list(fit(tiny_on(), last.state, made_up)) == []
        assert list(fit(tiny_on(**{"train.images": 16}), last.state, made_up)) == []

    def test_what_does_not_change_the_numbers_may_change(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        first = next(fit(tiny_on(), dataset=made_up))
        elsewhere = {"data.root": "elsewhere", "data.source": "there", "train.device": "cpu", "train.eval_batch": 3}
        assert len(list(fit(tiny_on(**elsewhere), first.state, made_up))) == 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"model.beta": 2}, "model.beta 1.0 -> 2.0"),
            ({"seed": 1, "train.lr": 0.5}, "seed 0 -> 1, train.lr 0.001 -> 0.5"),
            ({"train.batch_size": 8}, "train.batch_size 16 -> 8"),
            ({"data.name": "other"}, "data.name made_up -> other"),
        ],
    )
    def test_another_experiment_is_refused(
        self, tiny_on: TinyOn, made_up: Dataset, change: dict[str, Any], message: str
    ) -> None:
        first = next(fit(tiny_on(), dataset=made_up))
        with pytest.raises(ValueError, match=rf"^the state to continue from is another experiment's: {message}$"):
            next(fit(tiny_on(**change), first.state, made_up))

    def test_other_images_under_the_same_name_are_refused(
        self, tiny_on: TinyOn, made_up: Dataset, tmp_path: Any
    ) -> None:
        first = next(fit(tiny_on(), dataset=made_up))
        other = write_made_up(tmp_path / "made_up", train=63)
        with pytest.raises(ValueError, match=r"has seen other images than those now in .*made_up$"):
            next(fit(tiny_on(), first.state, other))
        same = write_made_up(tmp_path / "elsewhere" / "made_up")
        assert next(fit(tiny_on(), first.state, same)).images_seen == 32


class TestRandomness:
    def test_is_the_seeds_alone(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        torch.manual_seed(1)
        first = list(fit(tiny_on(), dataset=made_up))
        torch.manual_seed(2)
        np.random.seed(2)
        second = []
        for report in fit(tiny_on(), dataset=made_up):
            torch.manual_seed(3)  # what the caller does in between
            second.append(report)
        for ours, theirs in zip(first, second, strict=True):
            assert_same_report(ours, theirs)

    def test_another_seed_is_another_run(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        one, two = (next(fit(tiny_on(seed=seed), dataset=made_up)) for seed in (0, 1))
        assert one.metrics["train/loss"] != two.metrics["train/loss"]
        name = "encoder.0.weight"
        assert not one.state["model"][name].equal(two.state["model"][name])


class TestSteps:
    def test_see_every_image_once_per_epoch_in_an_order_that_is_not_the_files(
        self, tiny_on: TinyOn, made_up: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = recorded_numbers(monkeypatch)
        list(fit(tiny_on(**{"train.images": 128, "train.eval_every": 128}), dataset=made_up))
        seen = np.concatenate(numbers)
        assert [len(batch) for batch in numbers] == [16] * 8
        for epoch in (seen[:64], seen[64:]):
            assert sorted(epoch.tolist()) == list(range(64)) != epoch.tolist()

    def test_are_in_training_mode_and_evaluation_is_not(
        self, tiny_on: TinyOn, made_up: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modes: list[tuple[bool, bool]] = []
        forward, posterior = VQVAE.forward, VQVAE.posterior

        def training(self: VQVAE, images: Tensor) -> Output:
            modes.append((self.training, torch.is_grad_enabled()))
            return forward(self, images)

        def evaluating(self: VQVAE, images: Tensor) -> Certain:
            modes.append((self.training, torch.is_grad_enabled()))
            return posterior(self, images)

        monkeypatch.setattr(VQVAE, "forward", training)
        monkeypatch.setattr(VQVAE, "posterior", evaluating)
        list(fit(tiny_on(**{"train.images": 32}), dataset=made_up))
        # A step, 32 / 8 calibration batches, 21 / 8 validation batches; and again.
        assert [mode for mode, _ in itertools.groupby(modes)] == [(True, True), (False, False)] * 2
        assert modes.count((True, True)) == 2 and modes.count((False, False)) == 2 * (4 + 3)

    @pytest.mark.parametrize("parts", [2, 4, 16])
    def test_in_parts_are_the_whole_step(self, tiny_on: TinyOn, made_up: Dataset, parts: int) -> None:
        changes = {"model.quantizer": "ema", "model.restart_below": 0.5, "model.ema_decay": 0.5, "train.lr": 1e-4}
        whole = list(fit(tiny_on(**changes), dataset=made_up))
        cut = list(fit(tiny_on(**changes, **{"train.accumulate": parts}), dataset=made_up))
        for ours, theirs in zip(whole, cut, strict=True):
            assert without_times(theirs.metrics) == pytest.approx(without_times(ours.metrics), rel=1e-5)
            torch.testing.assert_close(
                theirs.state["model"]["quantizer.codebook"], ours.state["model"]["quantizer.codebook"]
            )

    def test_hold_no_more_than_a_part_at_once(
        self, tiny_on: TinyOn, made_up: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []
        forward = VQVAE.forward
        monkeypatch.setattr(VQVAE, "forward", lambda self, x: (sizes.append(len(x)), forward(self, x))[1])
        list(fit(tiny_on(**{"train.images": 16, "train.accumulate": 8}), dataset=made_up))
        assert sizes[:8] == [2] * 8

    @pytest.mark.parametrize("limit", [1e-3, 1e6])
    def test_gradients_are_clipped_to_the_limit(
        self, tiny_on: TinyOn, made_up: Dataset, monkeypatch: pytest.MonkeyPatch, limit: float
    ) -> None:
        norms: list[float] = []
        step = torch.optim.Adam.step

        def noting(self: torch.optim.Adam, *arguments: Any) -> Any:
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat(gradients).norm()))
            return step(self, *arguments)

        monkeypatch.setattr(torch.optim.Adam, "step", noting)
        list(fit(tiny_on(), dataset=made_up))
        free = norms.copy()
        norms.clear()
        list(fit(tiny_on(**{"train.grad_clip": limit}), dataset=made_up))
        if limit < 1:
            assert norms == pytest.approx([limit] * 3, rel=1e-3) and min(free) > limit
        else:
            assert norms == free

    def test_start_the_codebook_on_the_first_batch_only(
        self, tiny_on: TinyOn, made_up: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started: list[int] = []
        start = VQVAE.start
        monkeypatch.setattr(VQVAE, "start", lambda self, x, g: (started.append(len(x[0])), start(self, x, g))[1])
        first = next(fit(tiny_on(**{"model.codebook_init": "data"}), dataset=made_up))
        assert started == [16] and bool(first.state["model"]["quantizer.started"])
        list(fit(tiny_on(**{"model.codebook_init": "data"}), first.state, made_up))
        assert started == [16]

    @pytest.mark.parametrize(("learns", "moves"), [("gradient", True), ("ema", True), ("frozen", False)])
    def test_move_the_codebook_as_configured(self, tiny_on: TinyOn, made_up: Dataset, learns: str, moves: bool) -> None:
        first, *_, last = fit(tiny_on(**{"model.quantizer": learns}), dataset=made_up)
        before, after = (r.state["model"]["quantizer.codebook"] for r in (first, last))
        assert before.equal(after) is not moves

    def test_lower_the_loss(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        changes = {"train.images": 960, "train.eval_every": 96, "train.lr": 1e-2, "model.codebook_init": "data"}
        first, *_, last = fit(tiny_on(**changes), dataset=made_up)
        assert last.metrics["train/mse"] < 0.8 * first.metrics["train/mse"]
        assert last.metrics["valid/bits_per_dim"] < first.metrics["valid/bits_per_dim"]

    def test_restarts_keep_more_codes_in_use(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        def used(**model: Any) -> float:
            changes = {f"model.{name}": value for name, value in model.items()}
            *_, last = fit(tiny_on(**{"train.images": 320, "train.eval_every": 320}, **changes), dataset=made_up)
            return last.metrics["valid/codes_used"]

        dying = {"quantizer": "ema", "ema_decay": 0.8, "num_codes": 64}
        assert used(**dying, restart_below=0.2) > 2 * used(**dying)


def recorded_numbers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    numbers: list[Any] = []
    unit = Images.unit
    monkeypatch.setattr(Images, "unit", lambda self, chosen: (numbers.append(chosen), unit(self, chosen))[1])
    return numbers


class TestDivergence:
    @pytest.mark.parametrize("every", [16, 1600])
    def test_ends_the_run_with_what_happened(self, tiny_on: TinyOn, made_up: Dataset, every: int) -> None:
        experiment = tiny_on(**{"train.lr": 1e30, "train.images": 1600, "train.eval_every": every})
        with pytest.raises(Diverged, match=r"^the loss is no longer finite at \d+ images \(lr 1e\+30\)$"):
            list(fit(experiment, dataset=made_up))

    def test_in_the_last_step_is_noticed_too(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        # The loss is from before the update: only the evaluation sees what the update has done.
        experiment = tiny_on(**{"train.lr": 1e30, "train.images": 16})
        with pytest.raises(Diverged):
            list(fit(experiment, dataset=made_up))

    def test_is_noticed_within_fifty_steps(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        experiment = tiny_on(**{"train.lr": 1e30, "train.images": 3200, "train.eval_every": 3200})
        with pytest.raises(Diverged, match=r"at 800 images"):
            list(fit(experiment, dataset=made_up))

    def test_nothing_is_yielded_with_a_number_that_is_none(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        for lr in (1e10, 1e20):
            try:
                for report in fit(tiny_on(**{"train.lr": lr, "train.images": 160}), dataset=made_up):
                    assert math.isfinite(report.metrics["valid/bits_per_dim"])
            except Diverged:
                pass


class TestHardware:
    def test_precision_is_what_was_asked_for(self, tiny_on: TinyOn) -> None:
        cpu = torch.device("cpu")
        assert choose_precision(tiny_on(**{"train.precision": "bfloat16"}), cpu) == torch.bfloat16
        assert choose_precision(tiny_on(**{"train.precision": "float32"}), cpu) == torch.float32
        assert choose_precision(tiny_on(), cpu) == torch.float32  # 8 channels: narrow layers gain nothing

    @pytest.mark.parametrize(
        ("amx", "avx512", "amd", "faster"),
        [
            (True, True, False, True),
            (False, True, True, True),
            (False, True, False, False),
            (False, False, True, False),
        ],
    )
    def test_auto_takes_bfloat16_where_the_processor_is_faster_with_it(
        self, tiny_on: TinyOn, monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, amd: bool, faster: bool
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
        monkeypatch.setattr(hardware, "_is_amd", lambda: amd)
        wide = tiny_on(**{"model.hidden": 64})
        assert choose_precision(wide, torch.device("cpu")) == (torch.bfloat16 if faster else torch.float32)

    def test_bfloat16_trains_about_as_float32_does(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        losses = {
            precision: [
                r.metrics["train/loss"] for r in fit(tiny_on(**{"train.precision": precision}), dataset=made_up)
            ]
            for precision in ("float32", "bfloat16")
        }
        assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
        assert losses["bfloat16"] != losses["float32"]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
    def test_a_gpu_that_is_not_there_is_refused(self, tiny_on: TinyOn, made_up: Dataset) -> None:
        with pytest.raises(
            ValueError, match=r"^train\.device is 'cuda'; this machine has no GPU .* allowed is auto or"
        ):
            next(fit(tiny_on(**{"train.device": "cuda"}), dataset=made_up))
        assert choose_device(tiny_on()) == torch.device("cpu")
