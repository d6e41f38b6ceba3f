"""Which figures there are, which run each is drawn from, and the command that makes it where there is none."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import _drawings
from analysis._models import Found, best_in_tracker, bits_of, images_for, in_folder
from vqvae_core import tables
from vqvae_core.files import write_whole


class Missing(Exception):
    """There is no run to draw from; says which command makes it."""


Graph = Callable[[str, "str | None", Path, argparse.Namespace], "list[Path]"]  # (tracker, data set, folder, options)


@dataclass(frozen=True)
class Figure:
    """A figure, in one part or more."""

    name: str
    title: str
    parts: Sequence[tuple[str, str]]  # (data set, kind of model), each a picture of its own
    draw: _drawings.Draw | None = None  # pictures of one model
    graph: Graph | None = None  # of many runs


def make(figure: Figure, uri: str, chosen: argparse.Namespace) -> Iterator[Path]:
    """Draw a figure; yields the files, a PNG and then its CSV for each part.

    A part without its run raises ``Missing``, after the parts that have theirs. ``ValueError`` for what cannot be.
    """
    parts = list(figure.parts)
    if chosen.dataset:
        parts = [(chosen.dataset, parts[0][1])]
    elif chosen.checkpoint:
        parts = parts[:1]
    missing = []
    if figure.graph:
        found = figure.graph(uri, chosen.dataset, chosen.out, chosen)
        yield from found
        if not found:
            raise Missing(how_to_make(*parts[0]))
        return
    for dataset, kind in parts:
        model = in_folder(chosen.checkpoint) if chosen.checkpoint else best_in_tracker(uri, dataset, kind)
        if model is None:
            missing.append(how_to_make(dataset, kind))
            continue
        yield from draw_part(figure, model, kind, chosen)
    if missing:
        raise Missing("; ".join(missing))


def draw_part(figure: Figure, found: Found, kind: str, chosen: argparse.Namespace) -> list[Path]:
    """One picture and its table."""
    from vqvae_core.pictures import grid, write_picture

    assert figure.draw is not None
    own = found.experiment.model.type
    if own != kind:
        raise ValueError(f"the checkpoint is a {own}; allowed is a {kind}")
    drawing = figure.draw(found.model, images_for(found, chosen.data_root), chosen.seed)
    name = found.experiment.data.name
    stem = chosen.out / f"figure-{int(figure.name):02d}-{name}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_picture(grid(list(drawing.rows)), stem.with_suffix(".png"))
    about = {
        "figure": figure.name,
        "dataset": name,
        "seed": chosen.seed,
        "images_seen": found.images_seen,
        "model": bits_of(found.metrics),
        "from": found.origin,
        "commit": found.commit,
    }
    write_whole(stem.with_suffix(".csv"), tables.comma_separated([{**row, **about} for row in drawing.table]) + "\n")
    return [stem.with_suffix(".png"), stem.with_suffix(".csv")]


def how_to_make(dataset: str, kind: str) -> str:
    """The command that trains what a figure needs."""
    name = shlex.quote(dataset)
    first = f"python sweeps/beta_lr.py --dataset {name}"
    match kind:
        case "vqvae":
            how = first
        case "codebook":
            how = f"python sweeps/codebook.py --dataset {name}"
        case _:
            how = f"python sweeps/{kind}.py --dataset {name} --model.first beta_lr-{name} (after {first})"
    what = "sweep of codebooks" if kind == "codebook" else f"run of a {kind}"
    return f"there is no {what} on {dataset} yet; this makes one: {how}"


def graph_of(name: str) -> Callable[..., list[Path]]:
    """A graph by name; matplotlib is loaded when it is drawn."""

    def draw(*arguments: Any) -> list[Path]:
        from analysis import _graphs

        paths: list[Path] = getattr(_graphs, name)(*arguments)
        return paths

    return draw


PAIRS = _drawings.reconstructions()
CLASSES = _drawings.class_samples()
MINI, BOXING, FASHION = "mini_imagenet", "boxing", "fashion_mnist"

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            "3", "MNIST, CIFAR10: originals over reconstructions", [("mnist", "vqvae"), ("cifar10", "vqvae")], PAIRS
        ),
        Figure("4", "MNIST, CIFAR10: samples, a row a class", [("mnist", "prior"), ("cifar10", "prior")], CLASSES),
        Figure("5", "photographs: originals over reconstructions", [(MINI, "vqvae")], _drawings.reconstructions(0, 4)),
        Figure("6", "photographs: uniform over learned prior", [(MINI, "prior")], _drawings.uniform_and_learned()),
        Figure("7", "Boxing: originals over reconstructions", [(BOXING, "vqvae")], _drawings.reconstructions(0, 6, 1)),
        Figure("8", "Boxing: unconditioned over the report's 1", [(BOXING, "prior")], _drawings.two_conditions()),
        Figure(
            "9", "Boxing: first and second reconstructions", [(BOXING, "hierarchy")], _drawings.twice_reconstructed()
        ),
        Figure("11", "Fashion-MNIST: originals over reconstructions", [(FASHION, "vqvae")], PAIRS),
        Figure("12", "Fashion-MNIST: samples, a row a class", [(FASHION, "prior")], CLASSES),
        Figure("13", "more photographs, reconstructed", [(MINI, "vqvae")], _drawings.reconstructions(0.5, 4)),
        Figure("curves", "bits/dim and its parts over images seen", [("mnist", "vqvae")], graph=graph_of("curves")),
        Figure(
            "rate_distortion",
            "rate against distortion over K and codes per position, with the frontier",
            [("mnist", "codebook")],
            graph=graph_of("rate_distortion"),
        ),
        Figure("codebook_usage", "how often each code is used", [("mnist", "vqvae")], graph=graph_of("codebook_usage")),
    )
}
