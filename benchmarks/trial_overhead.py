"""What a one-worker trial costs beyond its training, beside Tune + Train as Ray documents it, in the same run.

Overhead is a trial's wall time, from the end of the one before it to its own end, less the time that the same ``fit``
takes by itself.
Ours goes through all that a user's sweep does: study, checkpoints, pictures, journal and tracker.
Run: python -m benchmarks.trial_overhead --json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks._harness import Row, faster, parser, show
from sweeps import _cluster
from sweeps._launch import launch
from sweeps._space import Sweep, log_uniform
from vqvae_core.config import Experiment
from vqvae_core.data import prepare
from vqvae_core.overrides import flatten, unflatten, with_overrides
from vqvae_core.presets import digits_vqvae
from vqvae_core.train import fit

FIELDS: dict[str, Any] = {"train.images": 4500, "train.eval_every": 500}
ALLOWED = 1.2  # seconds


def experiment(root: Path) -> Experiment:
    """The training that both ways do: some seconds on the digits."""
    return with_overrides(digits_vqvae(), {**FIELDS, "data.root": str(root / "data")})


def by_itself(root: Path, repeats: int) -> float:
    """Median seconds of the training without Ray, on one thread as in a trial of one CPU."""
    import torch

    torch.set_num_threads(1)
    base, seconds = experiment(root), []
    for _ in range(repeats):
        began = time.perf_counter()
        for _report in fit(base):
            pass
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def ours(root: Path, trials: int) -> list[float]:
    """Wall seconds of each trial of a sweep but the first, whose actor is new."""
    # So narrow that every trial trains alike.
    sweep = Sweep("overhead", "?", {"model.beta": log_uniform(0.9, 1.1)}, known={})
    arguments = ["--dataset", "digits", "--data.root", str(root / "data"), "--out", str(root / "runs")]
    arguments += [f"--{name}={value}" for name, value in FIELDS.items() if name != "train.images"]
    arguments += ["--trials", str(trials + 1), "--images", str(FIELDS["train.images"]), "--concurrent", "1"]
    arguments += ["--scheduler", "none"]
    arguments += ["--tracking-uri", f"sqlite:///{root}/mlflow.db", "--storage", f"sqlite:///{root}/optuna.db"]
    with contextlib.redirect_stdout(io.StringIO()):
        launch(sweep, arguments)
    journal = (root / "runs" / "overhead-digits" / "journal.jsonl").read_text()
    events = [json.loads(line) for line in journal.splitlines()]
    ends = [event["time"] for event in events if event["kind"] == "end" and event["run"] != "sweep"]
    return [(end - before) / 1000 for before, end in pairwise(ends)]


def documented_trial(config: dict[str, Any]) -> None:
    """A trial as in Ray's guide to hyperparameter tuning with Train: a ``TorchTrainer`` inside a Tune function."""
    import ray.train
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    api: Any = ray.train
    TorchTrainer(
        documented_worker,
        train_loop_config=config,
        scaling_config=api.ScalingConfig(num_workers=1),
        run_config=api.RunConfig(
            name=tune.get_context().get_trial_id(), storage_path=config["storage"], callbacks=[TuneReportCallback()]
        ),
    ).fit()


def documented_worker(config: dict[str, Any]) -> None:
    import ray.train
    import torch

    torch.set_num_threads(1)
    for report in fit(unflatten(config["experiment"])):
        ray.train.report({"objective": report.metrics["valid/bits_per_dim"]})


def documented(root: Path, trials: int) -> list[float]:
    """Wall seconds of each trial but the first."""
    from ray import tune

    ends: list[float] = []

    class Clock(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ends.append(time.perf_counter())

        def __reduce__(self) -> tuple[type, tuple[()]]:  # Tune pickles its callbacks; the list stays here
            return tune.Callback, ()

    config = {"experiment": flatten(experiment(root)), "storage": str(root / "train")}
    with contextlib.redirect_stdout(io.StringIO()):
        tune.Tuner(
            tune.with_resources(documented_trial, {"memory": 1e6}),
            param_space=config,
            tune_config=tune.TuneConfig(num_samples=trials + 1, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(root / "tune"), callbacks=[Clock()], verbose=0),
        ).fit()
    return [end - before for before, end in pairwise(ends)]


def main() -> None:
    options = parser(__doc__).parse_args()
    os.environ["RAY_ADDRESS"] = "local"  # the machine that it measures is this one
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as patient as the loop by itself, not less
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(experiment(root).data)
        alone = by_itself(root, 3)
        _cluster.connect(_cluster.Cluster(2, 0, "local"), with_groups=True)
        mine = statistics.median(ours(root, max(3, options.repeats)))
        theirs = statistics.median(documented(root, 2))
        again = by_itself(root, 3)
    training = (alone + again) / 2
    beyond = max(0.01, mine - training)  # noise can make it negative, and a ratio of it meaningless
    rows: list[Row] = [
        faster("beyond training, against Tune + Train", beyond, theirs - training, goal=5.0),
        faster("beyond training, against what is allowed", beyond, ALLOWED, goal=1.0),
        faster("a whole trial", mine, theirs, note=f"training by itself {training:.2f} s"),
    ]
    show("trial_overhead", rows, options.json)


if __name__ == "__main__":
    main()
