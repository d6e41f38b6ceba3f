"""Real training runs over a whole grid of configurations, with their learning curves: what ``search_quality`` searches.

A small VQ-VAE is trained once at every point of the grid, in a shuffled order; a run that is there already is not
repeated, so that the same command continues after a stop. The result is one compressed JSON file.

Run: OMP_NUM_THREADS=1 python -m benchmarks.record_table digits
     OMP_NUM_THREADS=1 python -m benchmarks.record_table mnist --data-source DIR
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._harness import machine
from benchmarks._table import METRICS, RESULTS, Curve, Recorded, write_table
from sweeps._events import code_tags
from vqvae_core.config import DataConfig, Experiment
from vqvae_core.data import Dataset, dataset_writer, open_dataset, prepare
from vqvae_core.overrides import code_version, flatten, with_overrides
from vqvae_core.presets import digits_vqvae, mnist_vqvae
from vqvae_core.train import Diverged, fit

RATES = [float(f"{rate:.3g}") for rate in np.geomspace(1e-4, 5e-2, 8)]
REPORTS = 27  # a report at each rung of a reduction by 3, and nearly so by 2 and 4
SMALL: dict[str, Any] = {
    "model.hidden": 16,
    "model.residual_blocks": 1,
    "train.images": 256 * REPORTS,
    "train.eval_every": 256,
}
SMALL |= {"train.calibration_images": 256, "train.device": "cpu"}


@dataclass(frozen=True)
class Design:
    """Which runs a table is made of."""

    base: Experiment
    grid: dict[str, list[Any]]

    def points(self) -> list[tuple[int, ...]]:
        """All points as positions on the grid's axes, shuffled: wherever recording stops, the rest is a fair sample."""
        found = list(itertools.product(*(range(len(values)) for values in self.grid.values())))
        random.Random(0).shuffle(found)
        return found

    def experiment(self, point: tuple[int, ...]) -> Experiment:
        """The experiment at a point."""
        chosen = zip(self.grid.items(), point, strict=True)
        return with_overrides(self.base, {name: values[place] for (name, values), place in chosen})


def designs() -> dict[str, Design]:
    """The tables: 384 runs on 8 x 8 digits, 192 on MNIST at 16 x 16 pixels."""
    digits: dict[str, list[Any]] = {
        "train.lr": RATES,
        "model.beta": [0.0625, 0.25, 1.0, 4.0],
        "train.batch_size": [32, 64],
        "model.num_codes": [16, 64, 256],
        "model.codebook_init": ["uniform", "data"],
    }
    mnist: dict[str, list[Any]] = {
        "train.lr": RATES,
        "model.beta": [0.0625, 0.25, 1.0, 4.0],
        "model.num_codes": [16, 64, 256],
        "model.quantizer": ["gradient", "ema"],
    }
    return {
        "digits": Design(with_overrides(digits_vqvae(), SMALL), digits),
        "mnist": Design(
            with_overrides(
                mnist_vqvae(), SMALL | {"model.code_dim": 16, "train.batch_size": 64, "train.calibration_images": 128}
            ),
            mnist,
        ),
    }


def images_of(name: str, root: Path, source: str | None) -> Dataset:
    """The digits as they are; of MNIST 3,000 images for training and 250 for validation, at 16 x 16 pixels."""
    if name == "digits":
        return prepare(DataConfig("digits", str(root)))
    folder = root / "mnist-16-small"
    if not (folder / "dataset.json").exists():
        whole = prepare(DataConfig("mnist", str(root), source, size=16))
        counts = {"train": 3000, "valid": 250, "test": 250}
        record = {"from": f"the first images of {whole.name}, {whole.fingerprint}, of each split"}
        with dataset_writer(folder, folder.name, whole.shape, counts, whole.class_names, record) as splits:
            for split, plan in splits.items():
                plan.images[:] = whole.images(split)[: counts[split]]
                plan.labels[:] = whole.labels(split)[: counts[split]]
    return open_dataset(folder)


def record(experiment: Experiment, dataset: Dataset) -> Curve:
    """One run's curves, three or five digits each; a run that diverges keeps what it had reported."""
    curves: dict[str, list[float]] = {name: [] for name in METRICS}
    began, failed = time.process_time(), ""
    try:
        for report in fit(experiment, None, dataset):
            for name, digits in METRICS.items():
                curves[name].append(float(f"{report.metrics[f'valid/{name}']:.{digits}g}"))
    except Diverged as error:
        failed = str(error)
    return Curve(curves, failed, round(time.process_time() - began, 2))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("table", choices=sorted(designs()))
    options.add_argument("--data-source", metavar="DIR", help="folder of parquet files in the hub's layout")
    options.add_argument("--root", type=Path, default=Path("data"), help="folder of prepared data sets (data)")
    options.add_argument("--work", type=Path, default=Path("runs"), help="where the runs are noted on the way (runs)")
    options.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so many, and write what is there"
    )
    chosen = options.parse_args()
    torch.set_num_threads(1)
    design = designs()[chosen.table]
    dataset = images_of(chosen.table, chosen.root, chosen.data_source)
    chosen.work.mkdir(parents=True, exist_ok=True)
    notes = chosen.work / f"tabular_{chosen.table}.jsonl"
    lines = notes.read_text().splitlines() if notes.exists() else []
    found = {tuple(entry["point"]): Curve(**entry["curve"]) for entry in map(json.loads, lines)}
    points, began = design.points(), time.monotonic()
    with notes.open("a") as file:
        for point in points:
            if point in found:
                continue
            if time.monotonic() - began > 60 * chosen.minutes:
                break
            found[point] = record(design.experiment(point), dataset)
            file.write(json.dumps({"point": point, "curve": found[point].__dict__}) + "\n")
            file.flush()
            if len(found) % 20 == 0:
                print(f"{len(found)} of {len(points)} runs, {time.monotonic() - began:.0f} s", flush=True)
    here = {name for name in flatten(design.base) if name.startswith("data.")} | set(design.grid)
    table = Recorded(
        about={
            "command": shlex.join(["python", "-m", "benchmarks.record_table", chosen.table]),
            "commit": code_tags()["mlflow.source.git.commit"],
            "code": code_version(),
            "hardware": f"1 core of {machine()['cpu']}",
            "data": f"{dataset.name}, {dataset.fingerprint}, {dataset.splits}",
            "base": {name: value for name, value in flatten(design.base).items() if name not in here},
            "seconds": round(sum(curve.seconds for curve in found.values())),
        },
        grid=design.grid,
        steps=[256 * number for number in range(1, REPORTS + 1)],
        runs=found,
    )
    path = RESULTS / f"tabular_{chosen.table}.json.gz"
    write_table(path, table)
    print(f"{len(found)} of {len(points)} runs in {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
