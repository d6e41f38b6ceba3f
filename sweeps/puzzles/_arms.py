"""A puzzle that training decides: a few settings side by side, each with several seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from sweeps._launch import launch
from sweeps._space import Point, Sweep


def compare(
    name: str, question: str, arms: Mapping[str, Point], base: Point, seeds: int = 3, model: str = "vqvae"
) -> Sweep:
    """A sweep of every arm with every seed; ``base`` is what all of them have."""

    def fields(point: Point) -> Point:
        return {**arms[point["arm"]], "seed": point["seed"]}

    runs = {f"{arm}-seed-{seed}": {"arm": arm, "seed": seed} for seed in range(seeds) for arm in arms}
    return Sweep(name, question, space={}, model=model, known={}, base=base, derive=fields, fixed=runs)


def run(sweep: Sweep, dataset: str) -> None:
    """Run it on the data set that it is about, unless the command line names another one."""
    launch(sweep, ["--dataset", dataset, "--name", sweep.name, *sys.argv[1:]])
