"""Images from a trained prior: ``python -m vqvae_core.sample --checkpoint runs/mnist_prior --n 64 --class 3``.

Code maps are drawn exactly, position by position, and decoded by the VQ-VAE that the checkpoint carries. The same seed
gives the same samples on every machine, whatever the batch. Of a second VQ-VAE there are reconstructions instead.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vqvae_core.checkpoint import Checkpoint, read
from vqvae_core.codes import codes_of
from vqvae_core.data import Dataset, open_dataset
from vqvae_core.data.prepare import folder_of
from vqvae_core.hardware import choose_device
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.overrides import OneLineParser, fail
from vqvae_core.pictures import both_reconstructions, grid, pictures_of, write_picture
from vqvae_core.prior import Prior
from vqvae_core.samples import draw_maps, seen_classes
from vqvae_core.second_stage import find_checkpoint

MOST_COLUMNS = 16
MOST_IMAGES = 100_000  # in one picture


def main(arguments: list[str]) -> None:
    """Draw, decode, write one PNG; a mistake is one line and exit status 2."""
    options = parse(arguments)
    try:
        checkpoint = read(find_checkpoint(options.checkpoint, "--checkpoint"))
        rows = rows_of(checkpoint, options)
    except (ValueError, OSError) as error:
        fail(str(error))
    try:
        write_picture(grid(rows), options.out)
    except OSError as error:
        fail(f"--out is {str(options.out)!r}, which cannot be written ({error.strerror})")
    print(f"{sum(map(len, rows))} images in {options.out}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = OneLineParser("python -m vqvae_core.sample", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a checkpoint, or a run's or a sweep's folder or name")
    add("--n", type=int, default=64, metavar="N", help="images in all; with classes, shared evenly among them (64)")
    add("--class", dest="classes", metavar="C,...", help="numbers or names of classes, or all: a row each (no class)")
    add("--temperature", type=float, default=1.0, metavar="T", help="below 1 surer than the model, above 1 less (1)")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest codes only (from all)")
    add("--seed", type=int, default=0, metavar="S", help="the same seed gives the same samples (0)")
    add(
        "--complete",
        type=float,
        metavar="SHARE",
        help="keep this upper share of the rows of real images, draw the rest",
    )
    add("--split", default="valid", metavar="NAME", help="whose images are completed or reconstructed (valid)")
    add("--data-root", type=Path, metavar="DIR", help="where that data set lies (as in training)")
    add("--batch", type=int, default=64, metavar="B", help="maps drawn at a time (64)")
    add("--plain", action="store_true", help="run the whole network for every code: slow, the same samples")
    add("--out", type=Path, default=Path("samples.png"), metavar="PNG", help="the picture (samples.png)")
    options = parser.parse_args(arguments)
    if not 1 <= options.n <= MOST_IMAGES:
        parser.error(f"--n is {options.n}; allowed is an integer >= 1 and <= {MOST_IMAGES}")
    if options.batch < 1:
        parser.error(f"--batch is {options.batch}; allowed is an integer >= 1")
    if options.complete is not None and not 0 < options.complete < 1:
        parser.error(f"--complete is {options.complete}; allowed is a number > 0 and < 1")
    if not options.out.name or options.out.is_dir() or not options.out.parent.is_dir():
        parser.error(f"--out is {str(options.out)!r}; allowed is a file in a folder that exists")
    if options.out.suffix.lower() != ".png":
        parser.error(f"--out is {str(options.out)!r}; allowed is a name that ends in .png, which the picture is")
    return options


def rows_of(checkpoint: Checkpoint, options: argparse.Namespace) -> list[NDArray[np.uint8]]:
    """The picture's rows of images; ``ValueError`` for what this model cannot draw."""
    model = checkpoint.model().to(choose_device(checkpoint.experiment))
    if isinstance(model, Hierarchy):
        refuse_what_priors_have(options)
        return both_reconstructions(model, dataset_of(checkpoint, options), options.split, options.n, options.seed)
    if not isinstance(model, Prior):
        kind = checkpoint.experiment.model.type
        raise ValueError(f"--checkpoint is a {kind}; allowed is a prior, whose codes can be drawn, or a hierarchy")
    classes = classes_of(model, checkpoint, options)
    if options.complete is not None:
        return completions(model, dataset_of(checkpoint, options), classes, options)
    labels, columns = None, min(MOST_COLUMNS, math.ceil(math.sqrt(options.n)))
    if classes:
        columns, rest = divmod(options.n, len(classes))
        if rest:
            raise ValueError(f"--n is {options.n}; allowed is a multiple of {len(classes)}, the number of classes")
        labels = [c for c in classes for _ in range(columns)]
        columns = min(columns, MOST_COLUMNS) if len(classes) > 1 else min(MOST_COLUMNS, math.ceil(math.sqrt(options.n)))
    images = pictures_of(model.first, draw(model, labels, options))
    return [images[start : start + columns] for start in range(0, len(images), columns)]


def refuse_what_priors_have(options: argparse.Namespace) -> None:
    """``ValueError`` for an option that would change nothing in a hierarchy's reconstructions."""
    defaults = parse(["--checkpoint", options.checkpoint])
    for name in ("class", "temperature", "top-k", "complete", "plain"):
        attribute = {"class": "classes"}.get(name, name.replace("-", "_"))
        value = getattr(options, attribute)
        if value != getattr(defaults, attribute):
            raise ValueError(f"--{name} is {value!r}; allowed is none: a hierarchy's pictures are reconstructions")


def completions(
    model: Prior, dataset: Dataset, classes: list[int] | None, options: argparse.Namespace
) -> list[NDArray[np.uint8]]:
    """Pairs of rows: images as their codes have them, and with the lower part drawn anew."""
    if classes and len(classes) > 1:
        raise ValueError(f"--class names {len(classes)} classes; allowed is one with --complete, or none")
    codes = codes_of(model.first, dataset, model.pixelcnn.bias.device)
    count = len(dataset.images(options.split))
    chosen = np.linspace(0, count - 1, min(options.n, count)).astype(np.int64)
    given = torch.from_numpy(codes.indices(options.split)[chosen].astype(np.int64))
    rows = given.shape[2]
    kept = round(options.complete * rows)
    if not 0 < kept < rows:
        raise ValueError(
            f"--complete is {options.complete}, which keeps {kept} of {rows} rows of codes; allowed is a share that "
            f"keeps some, not all"
        )
    keep = torch.zeros(rows, 1, dtype=torch.bool)
    keep[:kept] = True
    labels = classes * len(chosen) if classes else None
    drawn = draw(model, labels, options, given, keep)
    before, after = pictures_of(model.first, given), pictures_of(model.first, drawn)
    starts = range(0, len(before), 8)
    return [row[start : start + 8] for start in starts for row in (before, after)]


def draw(
    model: Prior,
    labels: list[int] | None,
    options: argparse.Namespace,
    given: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """``draw_maps`` with what the command line says, and progress."""
    return draw_maps(
        model,
        labels,
        options.n if given is None else len(given),
        temperature=options.temperature,
        top_k=options.top_k,
        given=given,
        keep=keep,
        seed=options.seed,
        batch_size=options.batch,
        incremental=not options.plain,
        progress=Progress(),
    )


class Progress:
    """A line on stderr now and then: codes drawn, and about how long the rest takes."""

    def __init__(self) -> None:
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.shown < (0.5 if self.terminal else 10) and not (self.terminal and done == total):
            return
        self.shown = now
        left = (now - self.began) * (total - done) / done
        end = "\r" if self.terminal and done < total else "\n"
        print(f"{done:>10,} of {total:,} codes, about {left:.0f} s left", end=end, file=sys.stderr, flush=True)


def classes_of(model: Prior, checkpoint: Checkpoint, options: argparse.Namespace) -> list[int] | None:
    """The classes that ``--class`` names; None where it is not given."""
    text: str | None = options.classes
    if text is None:
        return None
    if text == "all":
        found = seen_classes(model)
        if not found:
            raise ValueError("--class is 'all'; allowed is none: this prior was trained without classes")
        return found
    parts = [part.strip() for part in text.split(",")]
    names = [] if all(part.isdecimal() for part in parts) else dataset_of(checkpoint, options).class_names
    unknown = [part for part in parts if not part.isdecimal() and part not in names]
    if unknown:
        raise ValueError(
            f"--class is {unknown[0]!r}; allowed are numbers, all, or one of {', '.join(names) or 'no names'}"
        )
    numbers = [int(part) if part.isdecimal() else names.index(part) for part in parts]
    known = seen_classes(model)
    if missing := [number for number in numbers if number not in known]:
        allowed = ", ".join(map(str, known)) or "none: this prior was trained without classes"
        raise ValueError(f"--class is {missing[0]}, which training never saw; allowed is {allowed}")
    return numbers


def dataset_of(checkpoint: Checkpoint, options: argparse.Namespace) -> Dataset:
    """The images that the model was trained beside, where they lie."""
    data = checkpoint.experiment.data
    if options.data_root is not None:
        data = replace(data, root=str(options.data_root))
    dataset = open_dataset(folder_of(data))
    dataset.images(options.split)  # says which splits there are
    return dataset


if __name__ == "__main__":
    main(sys.argv[1:])
