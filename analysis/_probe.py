"""Which definition of bits/dim prefers what: a trained model, its reconstructions blurred, or a constant grey image.

All three are priced by every definition that has been printed of this table. A definition that prefers the grey image
is no measure of a model. Scales and priors are fitted on training images, prices are of held-out ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis._layout import STYLES, Style
from analysis._models import Found
from vqvae_core.batches import Images
from vqvae_core.data import Dataset
from vqvae_core.hardware import choose_device, choose_precision, precision_context
from vqvae_core.image_model import ImageModel
from vqvae_core.likelihood import (
    HALF_RANGE,
    LOG_MASS,
    bits_per_dim,
    eq7_from_kl,
    fit_log_scale,
    gaussian_density_nats,
    nll_per_image,
    to_levels,
    to_unit,
)
from vqvae_core.metrics import calibrate, noise_for
from vqvae_core.tables import Column, comma_separated

PIXELS = 5  # height and width of the square that blurring averages over
MODEL, BLURRED, GREY = "trained model", "blurred", "grey image"
CANDIDATES = (MODEL, BLURRED, GREY)


@dataclass(frozen=True)
class Definition:
    """What one way to price images says of each candidate; None where it cannot say anything."""

    name: str
    kind: str  # mass: of integers, a likelihood; density: at best with pixels that are real; none: no likelihood
    prices: Mapping[str, float | None]  # bits/dim, distortion and rate

    @property
    def prefers(self) -> str:
        """The candidate with the fewest bits."""
        prices = {name: price for name, price in self.prices.items() if price is not None}
        return min(prices, key=prices.__getitem__) if len(prices) > 1 else "-"


@dataclass(frozen=True)
class Probe:
    """A trained model's images, and what every definition says of them."""

    model: str  # where it is from
    dataset: str
    split: str
    images: int
    prior: str  # that prices the codes, but for Equation 7, which has a uniform one of its own
    mse: Mapping[str, float]  # per dimension, on images in [-1, 1]
    rates: Mapping[str, float]  # bits/dim of the model's codes by prior; a grey image needs none
    definitions: Sequence[Definition]


@torch.no_grad()
def probe(found: Found, dataset: Dataset, split: str, count: int) -> Probe:
    """Price ``count`` images of a split; ``ValueError`` when the model is not one of images."""
    model, experiment = found.model, found.experiment
    if not isinstance(model, ImageModel):
        raise ValueError(f"{found.origin} is a {experiment.model.type}; allowed are models of images")
    device, config = choose_device(experiment), experiment.train
    precision = precision_context(device, choose_precision(experiment, device))
    model = model.to(device).eval()
    train, held_out = Images(dataset, "train", device), Images(dataset, split, device)
    calibration = calibrate(model, train, config.calibration_images, config.eval_batch, precision)
    grey = float(np.asarray(train.array[spread(len(train), 4096)]).mean()) / HALF_RANGE - 1

    def seen(images: Images, numbers: np.ndarray) -> tuple[Tensor, dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Levels, each candidate's mean on [-1, 1], nats by the model's own head (B,), rates in nats (B,)."""
        parts = []
        for own in np.array_split(numbers, -(-len(numbers) // config.eval_batch)):
            levels = images.levels(own)
            with precision():
                posterior = model.posterior(to_unit(levels))
                raw = model.raw(posterior.sample(noise_for(model, own)))
            mean = model.head.mean(raw)
            nll = model.head.nll(raw, levels, calibration.log_scale)
            parts.append((levels.float(), mean, nll, posterior.rates(calibration.log_prior)))
        levels, mean, nll = (torch.cat([part[i] for part in parts]) for i in range(3))  # type: ignore[misc]
        rates = {name: torch.cat([part[3][name] for part in parts]) for name in parts[0][3]}
        return levels, {MODEL: mean, BLURRED: blurred(mean), GREY: torch.full_like(mean, grey)}, nll, rates

    fit_levels, fit_means, *_ = seen(train, spread(len(train), min(count, config.calibration_images)))
    numbers = spread(len(held_out), count)
    levels, means, nll, rates = seen(held_out, numbers)
    dims = math.prod(model.shape)
    prior = model.posterior(to_unit(held_out.levels(numbers[:1]))).prior
    nats = {name: float(rate.mean()) for name, rate in rates.items()}
    codes = {MODEL: nats[prior], BLURRED: nats[prior], GREY: 0.0}
    uniform = nats.get("uniform", nats[prior])
    fit_mse = {name: mean_squared_error(fit_levels, mean) for name, mean in fit_means.items()}
    mse = {name: mean_squared_error(levels, mean) for name, mean in means.items()}

    def density(sigma: Mapping[str, float]) -> dict[str, float | None]:
        return {
            name: bits_per_dim(gaussian_density_nats(mse[name], sigma[name]) + codes[name] / dims, 1) for name in mse
        }

    def mass(kind: str) -> dict[str, float | None]:
        prices: dict[str, float | None] = {}
        for name, mean in means.items():
            log_scale = fit_log_scale(kind, fit_levels, to_levels(fit_means[name]))
            distortion = float(nll_per_image(kind, levels, to_levels(mean), log_scale).mean())
            prices[name] = bits_per_dim(distortion + codes[name], dims)
        return prices

    own_price: dict[str, float | None] = dict.fromkeys(CANDIDATES)
    own_price[MODEL] = bits_per_dim(float(nll.mean()) + codes[MODEL], dims)
    definitions = [
        Definition(
            "Equation 7 as printed",
            "none",
            {name: eq7_from_kl(mse[name], 0.0 if name == GREY else uniform, dims) for name in mse},
        ),
        Definition("Gaussian density, sigma 1", "density", density(dict.fromkeys(mse, 1.0))),
        Definition(
            "Gaussian density, fitted sigma", "density", density({name: math.sqrt(fit_mse[name]) for name in mse})
        ),
        *(Definition(f"discretised {kind}, fitted scale", "mass", mass(kind)) for kind in reversed(LOG_MASS)),
        Definition(f"the model's own: {model.config.likelihood}", "mass", own_price),
    ]
    return Probe(
        model=found.origin,
        dataset=experiment.data.name,
        split=split,
        images=len(numbers),
        prior=prior,
        mse=mse,
        rates={name: bits_per_dim(rate, dims) for name, rate in nats.items()},
        definitions=definitions,
    )


def spread(length: int, count: int) -> np.ndarray:
    """At most ``count`` numbers of images, evenly over a split."""
    return np.linspace(0, length - 1, min(count, length)).astype(np.int64)


def blurred(mean: Tensor) -> Tensor:
    """Images (B, C, H, W), each pixel the mean of those around it."""
    return F.avg_pool2d(mean, PIXELS, stride=1, padding=PIXELS // 2, count_include_pad=False)


def mean_squared_error(levels: Tensor, mean: Tensor) -> float:
    """Per dimension, on images in [-1, 1]."""
    return float((mean - to_unit(levels)).double().pow(2).mean())


def shown_as(style: Style, found: Probe) -> str:
    """The probe for people: what was measured, the table, which definition prefers which."""
    rows = [
        ("mean squared error", "", found.mse, "-"),
        *((d.name, d.kind, d.prices, d.prefers) for d in found.definitions),
    ]
    table = [
        Column("definition", [name for name, *_ in rows], left=True, most=36),
        Column("kind", [kind for _, kind, *_ in rows], left=True),
        *(
            Column(name, ["-" if (value := prices[name]) is None else f"{value:.4f}" for _, _, prices, _ in rows])
            for name in CANDIDATES
        ),
        Column("prefers", [prefers for *_, prefers in rows], left=True),
    ]
    rates = ", ".join(f"{name} {rate:.4f}" for name, rate in found.rates.items())
    what = f"bits/dim of {found.images:,} {found.split} images of {found.dataset}, less is better: {found.model}"
    notes = [
        f"rates of the model's codes, bits/dim: {rates}. Prices have the {found.prior} one (Equation 7 a uniform one "
        f"where there is one); the grey image is the training images' mean level and needs no codes.",
        "kind: mass is of the integer pixels, an upper bound on -log2 p(x) per dimension; a density is one only of "
        "real pixels; none is no likelihood at all.",
        *(
            f"prefers the {name}: {'; '.join(d.name for d in found.definitions if d.prefers == name)}."
            for name in CANDIDATES
            if any(d.prefers == name for d in found.definitions)
        ),
    ]
    return "\n\n".join([style.prose(what), style.table(table), "\n".join(map(style.item, notes))])


def as_json_text(found: Probe) -> str:
    """Everything, with what each definition prefers."""
    content = asdict(found)
    for definition, entry in zip(found.definitions, content["definitions"], strict=True):
        entry["prefers"] = definition.prefers
    return json.dumps(content, indent=1, ensure_ascii=False)


def as_csv(found: Probe) -> str:
    """One line a definition."""
    return comma_separated(
        [{"definition": d.name, "kind": d.kind, **d.prices, "prefers": d.prefers} for d in found.definitions]
    )


def formatted(found: Probe, form: str) -> str:
    """A probe as text, md, csv, latex or json."""
    if form == "json":
        return as_json_text(found)
    if form == "csv":
        return as_csv(found)
    return shown_as(STYLES[form], found)
