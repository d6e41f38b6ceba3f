"""Puzzle 7: why does Table 1 differ from the original paper?

Run:     python sweeps/puzzles/definitions.py --checkpoint cifar10_vqvae
         --checkpoint names a VQ-VAE that was trained on squared errors: a run, a sweep, or a checkpoint's folder;
         the verdict is by the newest measurement, with those on other data sets beside it
Asked:   "the values of the lower bounds we computed are significantly larger [...] due to our misunderstanding" (3.4)
Guess:   Equation 7 has the Gaussian's sign wrong, a sigma as wide as half of all grey levels, and is no likelihood:
         blurring the reconstructions improves it; beyond that, the report's model has a tenth of the paper's codes
Scale:   all definitions on one model and the whole test split: exact, whatever the model
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

import torch
import torch.nn.functional as F
from torch import Tensor

from sweeps.puzzles._record import Case, checkpoint_options, opened, record, training_of
from vqvae_core.batches import Images
from vqvae_core.data import Dataset
from vqvae_core.intervals import interval
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


@dataclass(frozen=True)
class Price:
    """What each definition says of one way to answer, in bits/dim."""

    metrics: dict[str, float]  # of the whole test split
    of_images: dict[str, list[float]]  # two of the definitions, image by image


@torch.no_grad()
def priced(model: VQVAE, dataset: Dataset, name: str, batch: int = 256) -> Price:
    """The price of one way to answer, on the test split; scales are fitted on training images."""
    device, answer = torch.device("cpu"), ANSWERS[name]
    train, test = Images(dataset, "train", device), Images(dataset, "test", device)
    some = train.levels(torch.linspace(0, len(train) - 1, min(1000, len(train))).long().numpy())
    fitted_on = to_levels(answer(model, to_unit(some)))
    scales = {kind: fit_log_scale(kind, some.float(), fitted_on) for kind in ("gaussian", "logistic")}
    variance = float(((fitted_on - some) / HALF_RANGE).double().pow(2).mean())  # best sigma^2 on [-1, 1]
    errors: list[float] = []  # mean squared error of each image on [-1, 1]
    nats: dict[str, list[float]] = {kind: [] for kind in scales}
    for start in range(0, len(test), batch):
        levels = test.levels(torch.arange(start, min(start + batch, len(test))).numpy())
        mean = to_levels(answer(model, to_unit(levels)))
        errors += ((mean - levels) / HALF_RANGE).double().pow(2).flatten(1).mean(1).tolist()
        for kind, scale in scales.items():
            nats[kind] += nll_per_image(kind, levels.float(), mean, scale).tolist()
    dims = dataset.dims
    mse = math.fsum(errors) / len(test)
    kl = 0.0 if name == "a grey image" else uniform_rate(model.num_latents, model.config.num_codes)
    rate = bits_per_dim(kl, dims)

    def density(sigma2: float) -> float:
        """-log2 of a Gaussian's density at the pixels, per dimension, for levels that are 2 / 255 apart."""
        return bits_per_dim(math.log(HALF_RANGE) + 0.5 * math.log(2 * math.pi * sigma2) + mse / (2 * sigma2), 1)

    metrics = {
        "mse": mse,
        "rate": rate,
        "bits/eq7": eq7_from_kl(mse, kl, dims),
        "bits/sigma_1": density(1.0) + rate,
        "bits/best_sigma": density(variance) + rate,
        **{f"bits/{kind}_mass": bits_per_dim(math.fsum(own), len(test) * dims) + rate for kind, own in nats.items()},
    }
    of_images = {
        "bits/eq7": [eq7_from_kl(error, kl, dims) for error in errors],
        "bits/logistic_mass": [bits_per_dim(own, dims) + rate for own in nats["logistic"]],
    }
    return Price(metrics, of_images)


def more_than(price: Price, other: Price) -> dict[str, float]:
    """How much dearer than another a way to answer is, with half the 95 % interval over the test images."""
    found: dict[str, float] = {}
    for name, own in price.of_images.items():
        gaps = [a - b for a, b in zip(own, other.of_images[name], strict=True)]
        found |= {f"{name}_more": statistics.mean(gaps), f"{name}_more_half": interval(gaps) or 0.0}
    return found


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
    seen = {"images_seen": checkpoint.images_seen, **training_of(checkpoint, dataset)}
    prices = {name: priced(model, dataset, name) for name in ANSWERS}
    cases = [
        Case(name, {"arm": name, **size, **seen}, price.metrics | more_than(price, prices["the model"]))
        for name, price in prices.items()
    ]
    record("puzzle_definitions", QUESTION, dataset.name, cases)


if __name__ == "__main__":
    main()
