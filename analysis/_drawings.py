"""The report's pictures: reconstructions, samples and second reconstructions, each with the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.batches import mix
from vqvae_core.data import Dataset
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.hierarchy_task import pictures_of, second_reconstruction
from vqvae_core.likelihood import to_levels, to_unit
from vqvae_core.prior import Prior
from vqvae_core.samples import draw_maps, seen_classes
from vqvae_core.trainable import Trainable
from vqvae_core.vqvae import VQVAE

Images = NDArray[np.uint8]  # (N, H, W, C)


@dataclass(frozen=True)
class Drawing:
    """Rows of images, and a row of a table for each of them."""

    rows: Sequence[Images]
    table: Sequence[Mapping[str, object]]


Draw = Callable[[Trainable, Dataset, int], Drawing]  # (model, images, seed)


def spread(count: int, wanted: int, part: float = 0.0) -> NDArray[np.int64]:
    """``wanted`` numbers below ``count``, evenly; ``part`` moves them on by a share of their distance."""
    return (np.arange(min(wanted, count)) * count / min(wanted, count) + part * count / wanted).astype(np.int64) % count


def codes_text(codes: Tensor) -> str:
    """Codes (G, h, w) with spaces between, position by position."""
    return " ".join(map(str, codes.flatten().tolist()))


def error(a: Images, b: Images) -> list[float]:
    """Mean squared error of each image on the scale of [-1, 1]."""
    difference = (a.astype(np.float64) - b.astype(np.float64)) / 127.5
    return [float(value) for value in (difference**2).reshape(len(a), -1).mean(1)]


def reconstructions(part: float = 0.0, columns: int = 8, lines: int = 2) -> Draw:
    """Originals of the test split over what the codes keep of them."""

    def draw(model: Trainable, dataset: Dataset, seed: int) -> Drawing:
        assert isinstance(model, VQVAE)
        images, labels = dataset.images("test"), dataset.labels("test")
        numbers = spread(len(images), columns * lines, part)
        chosen = images[numbers]
        with torch.no_grad():
            codes = model.encode(to_unit(torch.tensor(chosen).permute(0, 3, 1, 2)))
            back = as_images(to_levels(model.decode(codes)))
        table: list[dict[str, object]] = [
            {
                "split": "test",
                "index": int(number),
                "class": class_name(dataset, int(labels[number])),
                "mse": mse,
                "codes": codes_text(own),
            }
            for number, mse, own in zip(numbers, error(chosen, back), codes, strict=True)
        ]
        rows = []
        for start in range(0, len(chosen), columns):
            rows += [chosen[start : start + columns], back[start : start + columns]]
        return Drawing(rows, table)

    return draw


def as_images(levels: Tensor) -> Images:
    """(N, C, H, W) grey levels -> (N, H, W, C) uint8."""
    array: Images = levels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return array


def class_name(dataset: Dataset, label: int) -> str:
    """A label in words; empty where there is none."""
    if label < 0:
        return ""
    return dataset.class_names[label] if label < len(dataset.class_names) else str(label)


def sampled(model: Prior, maps: Tensor, source: str, classes: Sequence[str]) -> tuple[Images, list[dict[str, object]]]:
    """Images of code maps, and what is drawn as rows of a table."""
    table: list[dict[str, object]] = [
        {"source": source, "class": name, "number": number, "codes": codes_text(own)}
        for number, (name, own) in enumerate(zip(classes, maps, strict=True))
    ]
    return pictures_of(model.first, maps), table


def class_samples(columns: int = 10) -> Draw:
    """A row of samples for each class, at most ten."""

    def draw(model: Trainable, dataset: Dataset, seed: int) -> Drawing:
        assert isinstance(model, Prior)
        classes = seen_classes(model)
        if not classes:
            raise ValueError(f"the prior of {dataset.name} has seen no class; a class-conditional sample needs one")
        chosen = [classes[i] for i in np.linspace(0, len(classes) - 1, min(len(classes), 10)).astype(int)]
        labels = [label for label in chosen for _ in range(columns)]
        maps = draw_maps(model, labels, len(labels), seed=seed)
        images, table = sampled(model, maps, "learned prior", [class_name(dataset, label) for label in labels])
        return Drawing([images[i : i + columns] for i in range(0, len(images), columns)], table)

    return draw


def uniform_and_learned(columns: int = 6, lines: int = 2) -> Draw:
    """Codes drawn evenly above codes drawn from the learned prior, with a class for each column where there are any."""

    def draw(model: Trainable, dataset: Dataset, seed: int) -> Drawing:
        assert isinstance(model, Prior)
        count = columns * lines
        generator = torch.Generator().manual_seed(mix("uniform", seed))
        even = torch.randint(0, model.first.num_codes, (count, *model.first.latent_shape), generator=generator)
        classes = seen_classes(model)
        picked = [classes[i] for i in spread(len(classes), columns)] if classes else []
        labels = picked * lines if len(picked) == columns else None
        maps = draw_maps(model, labels, count, seed=seed)
        names = [class_name(dataset, label) for label in labels] if labels else [""] * count
        above, first = sampled(model, even, "uniform prior", [""] * count)
        below, second = sampled(model, maps, "learned prior", names)
        parts = [(above, i) for i in range(lines)] + [(below, i) for i in range(lines)]
        return Drawing([images[i * columns : (i + 1) * columns] for images, i in parts], [*first, *second])

    return draw


def two_conditions(columns: int = 8) -> Draw:
    """Samples without a condition, above samples under the report's "1": a row of a table that was never trained.

    The report's data had the one label 0, so row 1 of every layer's embedding stayed the N(0, 1) noise that it began
    as. Our prior refuses a class that it never saw; that noise is put into its biases here.
    """

    def draw(model: Trainable, dataset: Dataset, seed: int) -> Drawing:
        assert isinstance(model, Prior)
        maps = draw_maps(model, None, columns, seed=seed)
        with untrained_row(model, seed):
            noise = draw_maps(model, None, columns, seed=seed)
        above, first = sampled(model, maps, "no condition", [""] * columns)
        below, second = sampled(model, noise, "a condition that was never trained", ["1"] * columns)
        return Drawing([above, below], [*first, *second])

    return draw


@contextmanager
def untrained_row(model: Prior, seed: int) -> Iterator[None]:
    """The prior as it is under a class whose embedding no gradient ever reached."""
    kept = model.pixelcnn.bias.detach().clone()
    noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(mix("untrained", seed)))
    model.pixelcnn.bias.data += noise
    try:
        yield
    finally:
        model.pixelcnn.bias.data = kept


def twice_reconstructed(columns: int = 8) -> Draw:
    """Originals, their first reconstructions, and what the second VQ-VAE leaves of them."""

    def draw(model: Trainable, dataset: Dataset, seed: int) -> Drawing:
        assert isinstance(model, Hierarchy)
        images = dataset.images("test")
        numbers = spread(len(images), columns)
        chosen = images[numbers]
        with torch.no_grad():
            maps = model.first.model.encode(to_unit(torch.tensor(chosen).permute(0, 3, 1, 2)))
            top = model.encode(maps)
            drawn = second_reconstruction(model, maps, seed)
        first, second = pictures_of(model.first, maps), pictures_of(model.first, drawn)
        table: list[dict[str, object]] = [
            {
                "split": "test",
                "index": int(number),
                "first_mse": a,
                "second_mse": b,
                "codes": codes_text(own),
                "first_codes": codes_text(below),
                "second_codes": codes_text(again),
            }
            for number, a, b, own, below, again in zip(
                numbers, error(chosen, first), error(chosen, second), top, maps, drawn, strict=True
            )
        ]
        return Drawing([chosen, first, second], table)

    return draw
