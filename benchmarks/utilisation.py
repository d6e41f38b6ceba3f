"""The share of two cores that a sweep of 30-second trials keeps in training steps.

From the start of the first trial to the end of the last, so that what lies between trials, the evaluations and pictures
at each report, and the core that has nothing left to do at the very end all count as lost; only Ray's own start does
not. Trials are alike, each trained to its end on one core.

Run: python -m benchmarks.utilisation --json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._harness import Row, parser, show
from sweeps import _cluster
from sweeps._launch import launch
from sweeps._space import Sweep, log_uniform
from vqvae_core.config import Experiment
from vqvae_core.data import prepare
from vqvae_core.overrides import at_least, with_overrides
from vqvae_core.presets import digits_vqvae
from vqvae_core.train import fit

CORES = 2
REPORTS = 9  # of a trial, as many as it has by default
GOAL = 0.9


def experiment(root: Path, images: int) -> Experiment:
    """Training on the digits."""
    fields: dict[str, Any] = {"data.root": str(root / "data"), "train.images": images, "train.eval_every": images}
    return with_overrides(digits_vqvae(), fields)


def images_in(root: Path, seconds: float) -> int:
    """How many images one thread trains on in so many seconds, measured; a multiple of what lies between reports.

    Of three reports the last is measured: the first steps of a process are slow, and a trial is long.
    """
    import torch

    torch.set_num_threads(1)
    base = with_overrides(experiment(root, 9600), {"train.eval_every": 3200})
    *_, last = fit(base)
    step = REPORTS * base.train.batch_size
    return max(1, round(last.metrics["train/images_per_sec"] * seconds / step)) * step


def sweep(root: Path, trials: int, images: int) -> tuple[float, float, float]:
    """Seconds in training steps, seconds in all, and the mean of a trial's own wall seconds."""
    question = Sweep("utilisation", "?", {"model.beta": log_uniform(0.9, 1.1)}, known={})
    arguments = ["--dataset", "digits", "--data.root", str(root / "data"), "--out", str(root / "runs")]
    arguments += ["--trials", str(trials), "--images", str(images), "--train.eval_every", str(images // REPORTS)]
    arguments += ["--concurrent", str(CORES), "--scheduler", "none"]
    arguments += ["--tracking-uri", f"sqlite:///{root}/mlflow.db", "--storage", f"sqlite:///{root}/optuna.db"]
    with contextlib.redirect_stdout(io.StringIO()):
        launch(question, arguments)
    journal = (root / "runs" / "utilisation-digits" / "journal.jsonl").read_text()
    events = [event for event in map(json.loads, journal.splitlines()) if event["run"] != "sweep"]
    trained = {event["run"]: event["metrics"]["train/seconds"] for event in events if event["kind"] == "report"}
    begun = {event["run"]: event["time"] for event in events if event["kind"] == "start"}
    ended = {event["run"]: event["time"] for event in events if event["kind"] == "end"}
    wall = (max(ended.values()) - min(begun.values())) / 1000
    return sum(trained.values()), wall, sum(ended[run] - begun[run] for run in ended) / len(ended) / 1000


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--trials", type=at_least(1), default=8, help="trials (8)")
    options.add_argument("--seconds", type=at_least(0, float), default=30, help="of a trial (30)")
    chosen = options.parse_args()
    os.environ["RAY_ADDRESS"] = "local"  # the machine that it measures is this one
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(experiment(root, 3200).data)
        images = images_in(root, chosen.seconds)
        _cluster.connect(_cluster.Cluster(CORES, 0, "local"))
        trained, wall, each = sweep(root, chosen.trials, images)
    share = trained / (CORES * wall)
    note = f"{chosen.trials} trials of {each:.0f} s, {wall:.0f} s in all"
    rows = [Row(f"{CORES} cores in training steps", share, GOAL, "of the time", share / GOAL, 1.0, note)]
    show("utilisation", rows, chosen.json)


if __name__ == "__main__":
    main()
