"""The mistakes of the report's own code, each held out of ours by a test that they would not pass.

What they are is known from reading and running that code; a name here says what went wrong there.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import environment, write_made_up
from torch import Tensor, nn

import vqvae_core
from vqvae_core.batches import Images
from vqvae_core.config import Experiment, ImageModelConfig, VQVAEConfig
from vqvae_core.convolutions import Residual
from vqvae_core.data import Dataset, prepare
from vqvae_core.likelihood import eq7, to_unit
from vqvae_core.metrics import evaluate_split
from vqvae_core.models import build
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import PRESETS, tiny
from vqvae_core.quantize import nearest
from vqvae_core.train import fit
from vqvae_core.vqvae import VQVAE

TinyOn = Callable[..., Experiment]
SMALL = VQVAEConfig(hidden=8, residual_blocks=2, num_codes=16, code_dim=8, codebook_init="normal")


def small(**fields: Any) -> VQVAE:
    torch.manual_seed(0)
    return build(replace(SMALL, **fields), (8, 8, 3))


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


class TestReluInPlace:
    """A block's first ReLU rewrote the block's input: the skip path carried relu(x), and the codes lost their sign."""

    def test_a_block_leaves_its_input_and_its_skip_path_alone(self) -> None:
        block = Residual(SMALL)
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        x = torch.randn(2, 8, 3, 3, requires_grad=True)
        before = x.detach().clone()
        out = block(x)
        assert x.equal(before) and out.equal(before)
        out.sum().backward()
        assert x.grad is not None and x.grad.equal(torch.ones_like(x))

    def test_the_decoder_sees_negative_codes_and_gives_them_gradient(self) -> None:
        model = small()
        z = torch.randn(2, 8, 2, 2, generator=torch.Generator().manual_seed(2))
        leaf = z.clone().requires_grad_()
        out = model.decoder(leaf)
        assert leaf.equal(z) and not out.equal(model.decoder(z.relu()))
        out.pow(2).sum().backward()
        assert leaf.grad is not None and leaf.grad[z < 0].any()

    def test_no_relu_of_any_preset_works_in_place(self) -> None:
        images = {name: make() for name, make in PRESETS.items() if isinstance(make().model, ImageModelConfig)}
        assert len(images) > 20
        for name, experiment in images.items():
            model = build(experiment.model, (8, 8, 1))
            assert not [m for m in model.modules() if getattr(m, "inplace", False)], name


def test_every_part_of_an_accumulated_step_counts(
    tiny_on: TinyOn, made_up: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight parts, of which the gradients of seven were wiped: a batch of 4 where 32 was written."""
    gradients: list[list[Tensor]] = []
    step = torch.optim.Adam.step

    def noting(self: torch.optim.Adam, *arguments: Any) -> Any:
        gradients.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noting)
    for parts in (1, 8):
        list(fit(tiny_on(**{"train.images": 16, "train.accumulate": parts}), dataset=made_up))
    whole, parted = gradients  # one step each, not eight
    for ours, theirs in zip(parted, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_evaluation_neither_uses_nor_trains_batch_statistics(made_up: Dataset, tiny_on: TinyOn) -> None:
    """Test batches normalised themselves, and the running averages were trained on the test set."""
    experiment = tiny_on(**{"model.batch_norm": True, "train.images": 16})
    (report,) = fit(experiment, dataset=made_up)
    model = build(experiment.model, made_up.shape)
    model.load_state_dict(report.state["model"])
    assert int(report.state["model"]["encoder.1.num_batches_tracked"]) == 1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one_at_a_time = evaluate_split(with_overrides(experiment, {"train.eval_batch": 1}), model, made_up, "test")
    all_at_once = evaluate_split(with_overrides(experiment, {"train.eval_batch": 99}), model, made_up, "test")
    assert one_at_a_time == pytest.approx(all_at_once, rel=1e-5)
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in before.items())


def test_training_batches_mix_classes_that_lie_sorted_on_disk(tmp_path: Path, tiny_on: TinyOn) -> None:
    """Training was not shuffled; on data sorted by class a batch held one or two classes."""
    from vqvae_core.batches import Order

    dataset = write_made_up(tmp_path / "sorted", train=400)
    labels = np.sort(np.arange(400) % 10)
    order = Order(400, seed=0)
    classes = [len(set(labels[order.take(start, 32)])) for start in range(0, 400 - 32, 32)]
    assert min(classes) >= 7
    assert len(Images(dataset, "train", torch.device("cpu"))) == 400


def test_validation_images_and_their_codes_are_the_same_every_time(made_up: Dataset, tiny_on: TinyOn) -> None:
    """Random crops in validation: metrics and codes differed from epoch to epoch."""
    experiment = tiny_on()
    *_, last = fit(experiment, dataset=made_up)
    model = build(experiment.model, made_up.shape)
    model.load_state_dict(last.state["model"])
    torch.manual_seed(1)
    first = evaluate_split(experiment, model, made_up, "valid")
    torch.manual_seed(2)
    assert evaluate_split(experiment, model, made_up, "valid") == first


def test_validation_is_held_out_of_train_and_is_not_test(digits_root: Path) -> None:
    """Validation was the test set, on which the best checkpoint was chosen."""
    dataset = prepare(replace(tiny().data, root=str(digits_root)))
    assert dataset.splits == {"train": 1350, "valid": 150, "test": 297}
    parts = {split: {bytes(image) for image in dataset.images(split)} for split in dataset.splits}
    assert not parts["valid"] & parts["test"] and not parts["valid"] & parts["train"]


def test_training_reads_no_test_image(made_up: Dataset, tiny_on: TinyOn, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: set[str] = set()
    read = Dataset.images
    monkeypatch.setattr(Dataset, "images", lambda self, split: (splits.add(split), read(self, split))[1])
    list(fit(tiny_on(), dataset=made_up))
    assert splits == {"train", "valid"}


def test_the_last_short_batch_counts_by_its_images(tmp_path: Path, tiny_on: TinyOn) -> None:
    """A mean of batch means, or the last batch dropped: 16 of 10,000 images, or their weight, were wrong."""
    dataset = write_made_up(tmp_path / "odd", valid=9)
    experiment = tiny_on(dataset)
    (report, *_) = fit(experiment, dataset=dataset)
    model = build(experiment.model, dataset.shape).eval()
    model.load_state_dict(report.state["model"])
    unit = to_unit(torch.tensor(dataset.images("valid")).permute(0, 3, 1, 2))
    with torch.no_grad():
        errors = [float((model(x[None]).mean - x).double().pow(2).mean()) for x in unit]
    assert report.metrics["valid/mse"] == pytest.approx(sum(errors) / 9, rel=1e-6)  # batches of 8 and of 1
    assert abs(np.mean([np.mean(errors[:8]), errors[8]]) - np.mean(errors)) > 1e-4


def test_labels_do_not_depend_on_the_hash_seed(png_folder: Path) -> None:
    """Labels were numbered in the order of a set of texts: another order in every process and every split."""
    program = """
import sys
from pathlib import Path
from vqvae_core.data.sources import image_folder
source = image_folder(Path(sys.argv[1]), 8, False)
print(source.class_names, [label for _, label in source.rows("train")])
"""
    for name, path in zip("fgabedch", sorted(png_folder.rglob("*.png"), key=lambda p: p.name), strict=False):
        (png_folder / name).mkdir()
        path.rename(png_folder / name / "x.png")
    said = {
        subprocess.run(
            [sys.executable, "-c", program, str(png_folder)],
            env={**environment(), "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(said) == 1 and said.pop().startswith("['a', 'ant', 'b', 'bird', 'c', 'd', 'e', 'f', 'g', 'h'] ")


def test_every_data_set_knows_its_classes(digits_root: Path, made_up: Dataset) -> None:
    """The label encoder existed for one of four data sets; the prior crashed on the others."""
    for dataset in (made_up, prepare(replace(tiny().data, root=str(digits_root)))):
        labels = np.concatenate([dataset.labels(split) for split in dataset.splits])
        assert sorted(set(labels.tolist())) == list(range(len(dataset.class_names)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3)])
def test_grey_and_colour_are_scaled_alike(shape: tuple[int, int, int], tmp_path: Path, tiny_on: TinyOn) -> None:
    """Grey images were normalised with three means, which broadcasting once forgave."""
    dataset = write_made_up(tmp_path / "data", shape)
    unit = Images(dataset, "train", torch.device("cpu")).unit(np.arange(4))
    assert unit.shape == (4, shape[2], 8, 8)
    expected = dataset.images("train")[:4].astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(unit.permute(0, 2, 3, 1), expected, atol=1e-6)
    assert next(fit(tiny_on(dataset), dataset=dataset)).images_seen == 16


def test_the_documented_command_has_every_option_it_needs(digits_root: Path, tmp_path: Path) -> None:
    """The README's own command died for want of an option, and wrote to models/models."""
    from vqvae_core.__main__ import main

    main(["tiny", "--out", str(tmp_path / "out"), "--data.root", str(digits_root), "--train.images", "16"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["at-000000000016"]


def test_nothing_of_a_network_is_outside_its_state(made_up: Dataset) -> None:
    """Codebooks that were plain tensors: in no optimiser and in no checkpoint."""
    for learns in ("gradient", "ema", "frozen"):
        model = small(quantizer=learns)
        assert "quantizer.codebook" in model.state_dict()
        assert any(p is model.quantizer.codebook for p in model.parameters()) == (learns == "gradient")
        known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        for module in model.modules():
            loose = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
            assert not loose and known


def test_the_nearest_code_is_exact_at_the_first_codebook() -> None:
    """|x|^2 in the distances cost the digits that tell codes in a tiny ball apart."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.empty(512, 256).uniform_(-1 / 512, 1 / 512, generator=generator)
    x = 100 * torch.randn(300, 256, generator=generator)
    exact = torch.stack([(row - codes.double()).pow(2).sum(1) for row in x.double()])
    assert nearest(x, codes).equal(exact.argmin(1))
    # Or this test would show nothing:
    with_squares = (x.pow(2).sum(1, keepdim=True) - 2 * x @ codes.T + codes.pow(2).sum(1)).argmin(1)
    assert not with_squares.equal(exact.argmin(1))


def test_a_codebook_can_begin_among_the_encoders_outputs(made_up: Dataset, tiny_on: TinyOn) -> None:
    """At U(-1/K, 1/K) all codes look alike from where the encoder is, and a handful of them take everything."""

    def used(init: str) -> float:
        changes = {"model.codebook_init": init, "model.num_codes": 64, "train.images": 16}
        return next(fit(tiny_on(**changes), dataset=made_up)).metrics["valid/codes_used"]

    assert used("kmeans") > 2 * used("uniform")


def test_bits_per_dim_are_not_equation_7(made_up: Dataset, tiny_on: TinyOn) -> None:
    """Two terms of its likelihood have the wrong sign: the worse the image, the better the score."""
    assert eq7(0.5, 4, 16, 64) < eq7(0.1, 4, 16, 64)
    metrics = next(fit(tiny_on(), dataset=made_up)).metrics
    assert metrics["valid/bits_per_dim"] == metrics["valid/distortion"] + metrics["valid/rate_unigram"]
    assert metrics["valid/eq7"] == pytest.approx(eq7(metrics["valid/mse"], 4, 16, 64))
    assert abs(metrics["valid/eq7"] - metrics["valid/bits_per_dim"]) > 0.1


def test_initial_weights_keep_the_signals_size() -> None:
    """Layers were found by the letters of their names, and initialised for another activation than theirs."""
    model = build(replace(SMALL, hidden=64), (32, 32, 3))
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    spread = float(model.encoder(x).detach().std())
    assert 0.01 < spread < 10 and math.isfinite(spread)


def test_a_run_keeps_what_it_needs_to_go_on(made_up: Dataset, tiny_on: TinyOn) -> None:
    """No seeds, and checkpoints without the optimiser."""
    report = next(fit(tiny_on(), dataset=made_up))
    assert report.state["experiment"]["seed"] == 0
    moments = report.state["optimizer"]["state"][0]
    assert moments["exp_avg"].any() and moments["exp_avg_sq"].any() and float(moments["step"]) == 1


def test_importing_the_package_does_nothing_but_define(tmp_path: Path) -> None:
    """Importing a script trained a network; ``from functions import *`` raised."""
    program = "from vqvae_core.data import *; from vqvae_core.train import *; import vqvae_core.__main__"
    child = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_no_deprecated_call_is_left() -> None:
    """``make_grid(range=)``, ``.next()``, ``size_average``, ``F.tanh``: no script ran unchanged any more."""
    for path in Path(vqvae_core.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for gone in ("size_average", ".next()", "F.tanh", "F.sigmoid", "range=", ".data["):
            assert gone not in text, (path.name, gone)
