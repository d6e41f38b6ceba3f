"""Puzzle 7: why does Table 1 differ from the original paper?

Run:     python sweeps/puzzles/definitions.py --checkpoint cifar10_vqvae
         --checkpoint names a VQ-VAE that was trained on squared errors: a run, a sweep, or a checkpoint's folder
Asked:   "the values of the lower bounds we computed are significantly larger [...] due to our misunderstanding" (3.4)
Guess:   Equation 7 has the Gaussian's sign wrong, a sigma as wide as half of all grey levels, and is no likelihood:
         blurring the reconstructions improves it; beyond that, the report's model has a tenth of the paper's codes
Scale:   all definitions on one model and the whole test split: exact, whatever the model
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

import torch
import torch.nn.functional as F
from torch import Tensor

from sweeps.puzzles._record import Case, checkpoint_options, opened, record
from vqvae_core.batches import Images
from vqvae_core.data import Dataset
from vqvae_core.likelihood import (
    HALF_RANGE,
    bits_per_dim,
    eq7_from_kl,
    fit_log_scale,
    nll_per_image,
    to_levels,
    to_unit,
    uniform_rate,
)
from vqvae_core.overrides import fail
from vqvae_core.vqvae import VQVAE

QUESTION = "Why does Table 1 differ from the original paper?"


def blurred(unit: Tensor) -> Tensor:
    """Each pixel the mean of the 5 x 5 around it."""
    channels = unit.shape[1]
    return F.conv2d(
        F.pad(unit, (2, 2, 2, 2), mode="replicate"), unit.new_full((channels, 1, 5, 5), 0.04), groups=channels
    )


ANSWERS = {
    "the model": lambda model, unit: model.decode(model.encode(unit)),
    "the model, blurred": lambda model, unit: blurred(model.decode(model.encode(unit))),
    "a grey image": lambda model, unit: torch.zeros_like(unit),
}


@torch.no_grad()
def priced(model: VQVAE, dataset: Dataset, name: str, batch: int = 256) -> dict[str, float]:
    """What each definition says of one way to answer, on the test split; scales are fitted on training images."""
    device, answer = torch.device("cpu"), ANSWERS[name]
    train, test = Images(dataset, "train", device), Images(dataset, "test", device)
    some = train.levels(torch.linspace(0, len(train) - 1, min(1000, len(train))).long().numpy())
    fitted_on = to_levels(answer(model, to_unit(some)))
    scales = {kind: fit_log_scale(kind, some.float(), fitted_on) for kind in ("gaussian", "logistic")}
    variance = float(((fitted_on - some) / HALF_RANGE).double().pow(2).mean())  # best sigma^2 on [-1, 1]
    errors, nats = 0.0, dict.fromkeys(scales, 0.0)
    for start in range(0, len(test), batch):
        levels = test.levels(torch.arange(start, min(start + batch, len(test))).numpy())
        mean = to_levels(answer(model, to_unit(levels)))
        errors += float(((mean - levels) / HALF_RANGE).double().pow(2).sum())
        for kind, scale in scales.items():
            nats[kind] += float(nll_per_image(kind, levels.float(), mean, scale).sum())
    dims = dataset.dims
    mse = errors / len(test) / dims
    kl = 0.0 if name == "a grey image" else uniform_rate(model.num_latents, model.config.num_codes)
    rate = bits_per_dim(kl, dims)

    def density(sigma2: float) -> float:
        """-log2 of a Gaussian's density at the pixels, per dimension, for levels that are 2 / 255 apart."""
        return bits_per_dim(math.log(HALF_RANGE) + 0.5 * math.log(2 * math.pi * sigma2) + mse / (2 * sigma2), 1)

    return {
        "mse": mse,
        "rate": rate,
        "bits/eq7": eq7_from_kl(mse, kl, dims),
        "bits/sigma_1": density(1.0) + rate,
        "bits/best_sigma": density(variance) + rate,
        **{f"bits/{kind}_mass": bits_per_dim(total, len(test) * dims) + rate for kind, total in nats.items()},
    }


def main() -> None:
    chosen: argparse.Namespace = checkpoint_options("definitions", __doc__, "cifar10_vqvae")
    torch.set_num_threads(1)
    checkpoint, dataset = opened(chosen.checkpoint[0])
    model = checkpoint.model()
    if not isinstance(model, VQVAE):
        fail(f"--checkpoint is a {checkpoint.experiment.model.type}; allowed is a vqvae")
    size = {
        "test_images": dataset.splits["test"],
        "model.num_codes": model.config.num_codes,
        "codes": model.num_latents,
    }
    seen = {"images_seen": checkpoint.images_seen}
    cases = [Case(name, {"arm": name, **size, **seen}, priced(model, dataset, name)) for name in ANSWERS]
    record("puzzle_definitions", QUESTION, dataset.name, cases)


if __name__ == "__main__":
    main()
