"""A made-up tracker, written by mlflow itself: the tests of ``analysis`` read it and never change it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from analysis.published import Result

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
AWKWARD = "50%_of|a&b"  # a sweep's name with characters that every format has plans for

# Bits/dim by seed of the configurations that the table must choose.
CIFAR10_VQVAE = {0: (4.90, 5.00), 1: (4.92, 5.04), 2: (4.88, 5.02)}  # seed: (valid, test)
CIFAR10_VAE = {0: (5.00, 5.03), 1: (5.02, 5.07), 2: (5.01, 5.05)}


class Author:
    """Writes runs as sweeps do; times are counted up, so that later calls are newer runs."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        self.experiments: dict[str, str] = {}
        self.sweeps: dict[str, str] = {}
        self.clock = 1_000_000

    def sweep(self, dataset: str, name: str, model: str = "vqvae", tags: Mapping[str, str] | None = None) -> None:
        """The parent run of a sweep, with its winner's figures as a finished sweep has them."""
        experiment = f"{dataset}/beta_lr"
        if experiment not in self.experiments:
            self.experiments[experiment] = self.client.create_experiment(experiment)
        run = self.run(dataset, name, model, {"valid": 0.5, "test": 0.5}, stage="sweep", name=name, tags=tags)
        self.sweeps[name] = run

    def run(
        self,
        dataset: str,
        sweep: str,
        model: str = "vqvae",
        bits: Mapping[str, float] | None = None,
        *,
        seed: int = 0,
        stage: str = "search",
        status: str = "FINISHED",
        params: Mapping[str, Any] | None = None,
        prior: str = "unigram",
        step: int = 2000,
        name: str = "000",
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """A run; ``bits`` are its bits/dim by split, of which 0.25 are rate."""
        from mlflow.entities import Metric, Param, RunTag

        self.clock += 1000
        every = {
            "sweep.id": f"{sweep}-1a2b",
            "stage": stage,
            "seed": str(seed),
            "mlflow.source.git.commit": COMMIT,
            "git.dirty": "false",
            "data.fingerprint": f"{dataset}-images",
            "data.from": "made up",
            "data.train_images": "45000",
            "data.valid_images": "5000",
            "data.test_images": "10000",
        }
        if sweep in self.sweeps:
            every["mlflow.parentRunId"] = self.sweeps[sweep]
        config = {"data.name": dataset, "data.root": f"/somewhere/{self.clock}", "model.type": model, "seed": seed}
        config |= {"model.hidden": 256, "model.beta": 1.0, "train.lr": 3e-4, **(params or {})}
        metrics: dict[str, float] = {}
        for split, value in (bits or {}).items():
            metrics |= {f"{split}/bits_per_dim": value, f"{split}/distortion": value - 0.25}
            metrics |= {f"{split}/rate_uniform": 0.5, f"{split}/rate_{prior}": 0.25, f"{split}/eq7": 5.8 + seed / 100}
        run = self.client.create_run(self.experiments[f"{dataset}/beta_lr"], self.clock, run_name=name)
        self.client.log_batch(
            run.info.run_id,
            [Metric(key, value, self.clock, step + seed) for key, value in metrics.items()],
            [Param(key, str(value)) for key, value in config.items()],
            [RunTag(key, value) for key, value in {**every, **(tags or {})}.items()],
        )
        self.client.set_terminated(run.info.run_id, status, self.clock + 500)
        return str(run.info.run_id)


def write(uri: str) -> None:
    """The tracker's content; see the comments for what must not be taken for a result."""
    author = Author(uri)
    author.sweep("cifar10", "beta_lr-cifar10")
    where = ("cifar10", "beta_lr-cifar10")
    author.run(*where, bits={"valid": 4.0, "test": 9.0}, seed=1)  # replaced by the newer run of seed 1 below
    for seed, (valid, test) in CIFAR10_VQVAE.items():
        stage = "confirm" if seed else "search"
        author.run(*where, bits={"valid": valid, "test": test}, seed=seed, stage=stage, name=f"000-seed-{seed}")
    # Better on test, worse on valid: choosing it would be choosing on test.
    author.run(*where, bits={"valid": 4.95, "test": 4.0}, params={"model.beta": 0.25})
    # The same settings and another seed, but another data set of that name: no replicate.
    author.run(*where, bits={"valid": 4.99, "test": 4.2}, seed=3, tags={"data.fingerprint": "half the images"})
    author.run(*where, bits={"valid": 1.0, "test": 1.0}, params={"model.beta": 0.3}, status="KILLED")
    author.run(*where, bits={"valid": 1.1, "test": 1.1}, params={"model.beta": 0.31}, status="FAILED")
    author.run(*where, bits={"valid": 1.2, "test": float("nan")}, params={"model.beta": 0.32})
    author.run(*where, bits={"valid": 1.3, "test": float("inf")}, params={"model.beta": 0.33})
    author.run(*where, bits={"valid": float("nan"), "test": 1.4}, params={"model.beta": 0.34})
    author.run(*where, bits={"valid": 4.5}, params={"model.beta": 0.5})  # complete, not tested: counts on valid only
    author.client.delete_run(author.run(*where, bits={"valid": 1.5, "test": 1.5}, params={"model.beta": 0.35}))
    for seed, (valid, test) in CIFAR10_VAE.items():
        dirty = str(seed == 2).lower()
        author.run(*where, "vae", {"valid": valid, "test": test}, seed=seed, tags={"git.dirty": dirty})
    noted = {"hardware": "2 made-up cores", "command": "python sweeps/made_up.py"}
    author.sweep("mnist", "beta_lr-mnist", tags=noted)
    author.run("mnist", "beta_lr-mnist", bits={"valid": 2.0, "test": 2.1}, tags={"mlflow.source.git.commit": OTHER})
    for seed in range(3):
        author.run("mnist", "beta_lr-mnist", "vae", {"valid": 1.5 + seed / 100, "test": 1.5 + seed / 100}, seed=seed)
    author.sweep("boxing", AWKWARD)
    author.run("boxing", AWKWARD, "vqvae", {"valid": 3.0, "test": 3.1}, prior="prior", step=1_000_000)
    author.run("boxing", AWKWARD, "my_model", {"valid": 3.0, "test": 3.2}, tags={"data.fingerprint": "other images"})


@cache
def shared(base: Path) -> str:
    """The URI of an SQLite tracker with made-up runs, one for all tests: making it takes mlflow ten seconds."""
    pytest.importorskip("mlflow")
    (base / "made-up-tracker").mkdir()
    uri = f"sqlite:///{base / 'made-up-tracker' / 'mlflow.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow's own
        write(uri)
    return uri


def result(model: str, value: float, interval: float | None, **changes: Any) -> Result:
    """A result on three seeds of MNIST."""
    data = {"from": "made up", "fingerprint": "1", "train": 10, "valid": 2, "test": 3}
    rest = {"n": 3, "D": value - 0.25, "R": 0.25, "prior": "unigram", "command": None, "hardware": None, "data": data}
    return Result("mnist", model, value, interval, **{**rest, "commit": [COMMIT], **changes})
