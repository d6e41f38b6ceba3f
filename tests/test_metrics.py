"""A split's metrics against an explicit loop over its images, and what they are good for: telling models apart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import write_made_up

from vqvae_core.batches import Images
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import Experiment, VQVAEConfig
from vqvae_core.data import Dataset, dataset_writer, open_dataset
from vqvae_core.likelihood import LOG_MASS, to_unit
from vqvae_core.metrics import Calibration, calibrate, evaluate, evaluate_split, mean_image_bits
from vqvae_core.models import build
from vqvae_core.presets import tiny
from vqvae_core.train import fit
from vqvae_core.vqvae import VQVAE

CPU = torch.device("cpu")


def model_for(dataset: Dataset, **fields: Any) -> VQVAE:
    torch.manual_seed(0)
    chosen = {"hidden": 8, "residual_blocks": 1, "num_codes": 16, "code_dim": 4, "codebook_init": "normal"} | fields
    return build(VQVAEConfig(**chosen), dataset.shape).eval()


def calibrated(model: VQVAE, dataset: Dataset, count: int = 64, batch: int = 10) -> Calibration:
    return calibrate(model, Images(dataset, "train", CPU), count, batch, nullcontext)


class TestEvaluate:
    @pytest.mark.parametrize("kind", list(LOG_MASS))
    @pytest.mark.parametrize("groups", [1, 2])
    def test_equals_an_explicit_loop_over_images(self, made_up_rgb: Dataset, kind: str, groups: int) -> None:
        model = model_for(made_up_rgb, likelihood=kind, codes_per_position=groups)
        calibration = calibrated(model, made_up_rgb)
        found = evaluate(model, Images(made_up_rgb, "valid", CPU), calibration, 8, nullcontext)

        nats = rate = error = latent = code = 0.0
        histogram = np.zeros((groups, 16))
        for image in np.array(made_up_rgb.images("valid")):
            levels = torch.from_numpy(image).permute(2, 0, 1)[None]
            with torch.no_grad():
                out = model(to_unit(levels))
            masses = LOG_MASS[kind](levels.double(), (out.mean.double() + 1) * 127.5, calibration.log_scale)
            nats -= float(masses.sum())
            error += float((out.mean - to_unit(levels)).double().pow(2).mean())
            with torch.no_grad():
                latent += float(model.encoder(to_unit(levels)).double().pow(2).mean())
                code += float(model.quantizer.decode(out.indices).double().pow(2).mean())
            for group, indices in enumerate(out.indices[0]):
                for index in indices.flatten().tolist():
                    rate -= float(calibration.log_prior[group, index])
                    histogram[group, index] += 1
        count, dims = 21, 288
        shares = histogram / histogram.sum(1, keepdims=True)
        entropies = [-sum(p * math.log(p) for p in share if p) for share in shares]
        expected = {
            "distortion": nats / math.log(2) / (count * dims),
            "rate_unigram": rate / math.log(2) / (count * dims),
            "bits_per_dim": (nats + rate) / math.log(2) / (count * dims),
            "rate_uniform": groups * 6 * 4 / dims,  # log2(16) = 4 bits for each of 3 x 2 positions
            "mse": error / count,
            "psnr": -10 * math.log10(error / count / 4),
            "perplexity": math.exp(np.mean(entropies)),
            "codes_used": np.mean((histogram > 0).sum(1)),
            "dead_codes": np.mean((histogram == 0).mean(1)),
            "latent_rms": math.sqrt(latent / count),
            "code_rms": math.sqrt(code / count),
            "eq7": (math.log(128) - math.log(2 * math.pi) / 2 - error / count / 2 + groups * 6 * math.log(16) / dims)
            / math.log(2),
            "scale": math.exp(calibration.log_scale),
        }
        assert found == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("batch", [1, 4, 20, 21, 1000])
    def test_the_size_of_a_batch_decides_nothing(self, made_up: Dataset, batch: int) -> None:
        model = model_for(made_up, batch_norm=True)
        calibration = calibrated(model, made_up)
        images = Images(made_up, "valid", CPU)
        expected = evaluate(model, images, calibration, 7, nullcontext)
        assert evaluate(model, images, calibration, batch, nullcontext) == pytest.approx(expected, rel=1e-6)

    def test_changes_nothing_and_draws_nothing(self, made_up: Dataset) -> None:
        model = model_for(made_up, batch_norm=True, quantizer="ema")
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        random = torch.get_rng_state()
        evaluate(model, Images(made_up, "valid", CPU), calibrated(model, made_up), 8, nullcontext)
        assert all(model.state_dict()[name].equal(tensor) for name, tensor in before.items())
        assert torch.get_rng_state().equal(random)

    def test_a_model_in_training_mode_is_our_own_mistake(self, made_up: Dataset) -> None:
        model = model_for(made_up)
        calibration = calibrated(model, made_up)
        with pytest.raises(AssertionError):
            evaluate(model.train(), Images(made_up, "valid", CPU), calibration, 8, nullcontext)
        with pytest.raises(AssertionError):
            calibrated(model.train(), made_up)

    def test_a_perfect_reconstruction_has_no_error(self, tmp_path: Path) -> None:
        with dataset_writer(tmp_path / "x", "x", (4, 4, 1), {"train": 4, "valid": 3}, [], {}) as splits:
            for plan in splits.values():
                plan.images[:] = 255
        dataset = open_dataset(tmp_path / "x")
        model = model_for(dataset)
        with torch.no_grad():
            list(model.decoder.parameters())[-1].fill_(1e4)  # tanh(1e4) = 1
        found = evaluate(model, Images(dataset, "valid", CPU), calibrated(model, dataset, 4, 4), 8, nullcontext)
        assert found["mse"] == 0 and found["psnr"] == math.inf and found["distortion"] < 1e-6

    @pytest.mark.parametrize("split", ["train", "valid", "test"])
    def test_any_split_of_a_trained_model(
        self, tiny_on: Callable[..., Experiment], made_up: Dataset, tmp_path: Path, split: str
    ) -> None:
        experiment = tiny_on(**{"model.batch_norm": True})
        keeper = Keeper(tmp_path)
        for report in fit(experiment, dataset=made_up):
            keeper.save(report.state, report.metrics, made_up.shape)
        checkpoint = keeper.last()
        assert checkpoint is not None
        found = evaluate_split(checkpoint.experiment, checkpoint.model(), made_up, split)
        assert found.pop("unigram_pixels") > 0
        of_training = {k.removeprefix("valid/"): v for k, v in checkpoint.metrics.items() if k.startswith("valid/")}
        del of_training["latent_growth"]  # of a whole run, not of a model
        assert (found == of_training) == (split == "valid")


class TestCalibrate:
    def test_is_the_same_at_every_call_and_knows_only_training_images(self, made_up: Dataset, tmp_path: Path) -> None:
        model = model_for(made_up)
        torch.manual_seed(1)
        first = calibrated(model, made_up, 20)
        torch.manual_seed(2)
        second = calibrated(model, made_up, 20, batch=64)
        # Another validation split, the same training images.
        third = calibrated(model, write_made_up(tmp_path / "other", valid=3), 20)
        for other in (second, third):
            assert other.log_scale == pytest.approx(first.log_scale, abs=1e-6)
            assert other.log_prior.equal(first.log_prior)

    def test_counts_the_codes_of_as_many_images_as_asked_for(self, made_up: Dataset) -> None:
        model = model_for(made_up, codes_per_position=2)
        for count, images in ((10, 10), (64, 64), (1000, 64)):
            prior = calibrated(model, made_up, count).log_prior.exp()
            # Add-one counts: a code that never came has the share of one.
            assert float(1 / prior.min()) == pytest.approx(images * 4 + 16)

    def test_the_scale_is_the_best_on_its_images(self, made_up: Dataset) -> None:
        model = model_for(made_up)
        calibration = calibrated(model, made_up)
        train = Images(made_up, "train", CPU)

        def distortion(log_scale: float) -> float:
            return evaluate(model, train, replace(calibration, log_scale=log_scale), 64, nullcontext)["distortion"]

        best = distortion(calibration.log_scale)
        assert best < distortion(calibration.log_scale + 0.05) and best < distortion(calibration.log_scale - 0.05)

    def test_takes_a_part_of_the_pixels_where_there_are_many(
        self, made_up_rgb: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = model_for(made_up_rgb)
        all_pixels = calibrated(model, made_up_rgb).log_scale
        monkeypatch.setattr("vqvae_core.metrics.FIT_VALUES", 64 * 100)
        some = calibrated(model, made_up_rgb).log_scale
        assert some != all_pixels and some == pytest.approx(all_pixels, abs=0.2)


class TestMeanImage:
    @pytest.mark.parametrize("kind", list(LOG_MASS))
    def test_equals_an_explicit_loop(self, made_up_rgb: Dataset, kind: str) -> None:
        train, valid = (Images(made_up_rgb, split, CPU) for split in ("train", "valid"))
        found = mean_image_bits(train, valid, kind)
        mean = torch.from_numpy(np.array(made_up_rgb.images("train"), float).mean(0))

        def bits(split: str, log_scale: float) -> float:
            levels = torch.from_numpy(np.array(made_up_rgb.images(split), float))
            return -float(LOG_MASS[kind](levels, mean, log_scale).mean()) / math.log(2)

        best = min(np.linspace(math.log(3), math.log(60), 100), key=lambda log_scale: bits("train", log_scale))
        assert found == pytest.approx(bits("valid", best), abs=1e-3)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images of 2 x 2 blocks, each one of eight patterns, with a little noise: made for codes."""
    random = np.random.RandomState(0)
    patterns = random.randint(30, 226, (8, 2, 2)).repeat(2, 1).repeat(2, 2)
    folder = tmp_path_factory.mktemp("patterns") / "patterns"
    with dataset_writer(folder, "patterns", (8, 8, 1), {"train": 512, "valid": 64}, [], {}) as splits:
        for plan in splits.values():
            blocks = patterns[random.randint(0, 8, (plan.count, 2, 2))].transpose(0, 1, 3, 2, 4)
            noisy = blocks.reshape(-1, 8, 8, 1) + random.normal(0, 3, (plan.count, 8, 8, 1))
            plan.images[:] = noisy.round().clip(0, 255)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def trained(patterns: Dataset) -> tuple[VQVAE, dict[str, float]]:
    base = tiny()
    model = replace(base.model, hidden=16, codebook_init="kmeans", quantizer="ema", restart_below=0.1)
    train = replace(base.train, images=6000, eval_every=6000, lr=5e-3, calibration_images=500)
    *_, last = fit(replace(base, model=model, train=train), dataset=patterns)
    net = build(model, patterns.shape)
    net.load_state_dict(last.state["model"])
    return net.eval(), {k.removeprefix("valid/"): v for k, v in last.metrics.items()}


def test_equation_7_prefers_a_grey_image_to_a_trained_model_and_bits_per_dim_does_not(
    patterns: Dataset, trained: tuple[VQVAE, dict[str, float]]
) -> None:
    model, ours = trained
    # The same codes at the same rate, decoded to mid-grey whatever they say, with the scale that suits it best.
    grey_model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in list(grey_model.decoder.parameters())[-2:]:
            parameter.zero_()
    grey = evaluate(grey_model, Images(patterns, "valid", CPU), calibrated(grey_model, patterns, 500), 64, nullcontext)
    assert grey["mse"] > 3 * ours["mse"]
    assert grey["eq7"] < ours["eq7"] - 0.05
    assert grey["bits_per_dim"] > ours["bits_per_dim"] + 0.5


def test_a_trained_model_beats_the_mean_image(patterns: Dataset, trained: tuple[VQVAE, dict[str, float]]) -> None:
    copied_mean = mean_image_bits(Images(patterns, "train", CPU), Images(patterns, "valid", CPU))
    assert trained[1]["bits_per_dim"] < copied_mean - 0.5


def test_a_unigram_prior_saves_bits_where_codes_are_used_unevenly(trained: tuple[VQVAE, dict[str, float]]) -> None:
    ours = trained[1]
    assert ours["rate_unigram"] < ours["rate_uniform"]
    # And pays about the entropy of the codes, of which an image has 4 for its 64 dimensions.
    assert ours["rate_unigram"] == pytest.approx(math.log2(ours["perplexity"]) * 4 / 64, rel=0.05)
