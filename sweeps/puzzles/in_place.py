"""Puzzle 8: what does the in-place ReLU of the report's code do to the codes?

Run:     python sweeps/puzzles/in_place.py --data-source DIR
Asked:   by us: each residual block of github.com/ritheshkumar95/pytorch-vqvae (modules.py, commit 8d123c0) begins with
         ReLU(True), which rewrites the block's input; the decoder's first block rewrites the codes themselves
Guess:   what a code has below zero cannot be seen by the decoder, and no gradient of the reconstruction comes back
         through it; the model trains all the same, with fewer dimensions
Scale:   exact for the gradient; trained on all of MNIST with 64 channels, D 64, 9,600 images, 3 seeds (--seeds)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

import torch
from torch import Tensor

from sweeps.puzzles._record import Case, data_config, once, options, record
from vqvae_core import convolutions
from vqvae_core.batches import Images
from vqvae_core.config import DataConfig, Experiment, TrainConfig, VQVAEConfig
from vqvae_core.data import Dataset, prepare
from vqvae_core.likelihood import to_unit
from vqvae_core.models import build
from vqvae_core.train import fit
from vqvae_core.vqvae import VQVAE

QUESTION = "What does the in-place ReLU of the report's code do to the codes?"


class InPlaceResidual(convolutions.Residual):
    """What the report's block computes: its first ReLU rewrites x, so that the skip path carries relu(x) too."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        out: Tensor = x + self.block(x)
        return out


@contextmanager
def the_reports_blocks() -> Iterator[None]:
    """Models that are built in here have the report's blocks."""
    ours, convolutions.Residual = convolutions.Residual, InPlaceResidual  # type: ignore[misc]
    try:
        yield
    finally:
        convolutions.Residual = ours  # type: ignore[misc]


def experiment_of(data: DataConfig, batch_norm: bool, images: int, seed: int) -> Experiment:
    """As the report's, narrower; D is the width, as there, so that nothing stands between codes and first block."""
    model = VQVAEConfig(hidden=64, code_dim=64, num_codes=512, batch_norm=batch_norm)
    return Experiment(data, model, TrainConfig(images=images, eval_every=images, lr=3e-4, precision="float32"), seed)


def looked_at(model: VQVAE, images: Tensor) -> dict[str, float]:
    """What the decoder sees of the codes, exactly: shares of the values (image, position, dimension) of a batch."""
    model.eval()
    with torch.no_grad():
        codes = model.embed(model.encode(images))
        outputs = model.raw(model.encode(images))
    codes = codes.clone().requires_grad_()
    error = (model.head.mean(model.decoder(codes * 1)) - images).pow(2).sum()
    (gradient,) = torch.autograd.grad(error, codes)
    below = codes.detach() <= 0
    with torch.no_grad():
        rectified = model.decoder(codes.detach().relu())
    return {
        "codes/not_positive": float(below.float().mean()),
        "codes/without_gradient": float((gradient == 0).float().mean()),
        "codes/not_positive_without_gradient": float((gradient == 0)[below].float().mean()) if below.any() else 0.0,
        "codes/rectified_changes_output": float((rectified - outputs).abs().max()),
        "output/saturated": float((model.head.mean(outputs).abs() > 0.999).float().mean()),
    }


def case(dataset: Dataset, experiment: Experiment, in_place: bool) -> Case:
    """Train one model and look at it, before and after."""
    config = experiment.model
    assert isinstance(config, VQVAEConfig)
    device = torch.device("cpu")
    levels = Images(dataset, "valid", device).levels(torch.arange(64).numpy())
    images = to_unit(levels)
    with the_reports_blocks() if in_place else nullcontext():
        torch.manual_seed(experiment.seed)
        fresh = build(config, dataset.shape)
        before = {f"fresh/{name}": value for name, value in looked_at(fresh, images).items()}
        last = list(fit(experiment, dataset=dataset))[-1]
        trained = build(config, dataset.shape)
        trained.load_state_dict(last.state["model"])
        after = looked_at(trained, images)
    black = float((images + 1).pow(2).mean())
    metrics = {**last.metrics, **before, **after, "black/mse": black}
    arm = f"{'in_place' if in_place else 'ours'}_{'batch_norm' if config.batch_norm else 'none'}"
    settings: dict[str, object] = {"arm": arm, "in_place": in_place, "model.batch_norm": config.batch_norm}
    settings |= {"model.hidden": config.hidden, "train.images": experiment.train.images}
    print(f"{arm} seed {experiment.seed}: {metrics['valid/bits_per_dim']:.4f} bits/dim", flush=True)
    return Case(f"{arm}-seed-{experiment.seed}", settings, metrics, experiment.seed)


def main() -> None:
    chosen = options("in_place", __doc__, "mnist", 9_600)
    data = data_config(chosen)
    dataset = prepare(data)
    torch.set_num_threads(1)
    cases = []
    for seed in range(chosen.seeds):
        for batch_norm, in_place in product((False, True), repeat=2):
            experiment = experiment_of(data, batch_norm, chosen.images, seed)
            key = f"{chosen.dataset}-{chosen.images}-{'batch_norm' if batch_norm else 'none'}-{in_place}-{seed}"
            cases.append(once("puzzle_in_place", key, partial(case, dataset, experiment, in_place)))
    record("puzzle_in_place", QUESTION, chosen.dataset, cases)


if __name__ == "__main__":
    main()
