"""One trial with several workers: a Train V2 ``TorchTrainer`` inside a Tune function (gloo on CPUs, NCCL on GPUs)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

# A report waits for the controller's next look at its workers; the default of two seconds is longer than many steps.
POLL = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
STOPPING = 600.0  # seconds


def train_worker(config: dict[str, Any]) -> None:
    """What each worker does: rank 0 saves, all report, so that the barrier in ``report`` opens."""
    import ray.train
    import torch
    from ray.train.torch import get_device

    from sweeps._trial import failure_of, task_of, train
    from vqvae_core.files import is_full
    from vqvae_core.train import Diverged

    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    first = ray.train.get_context().get_world_rank() == 0
    folder = Path(config["folder"])
    try:
        for _, result in train(*task_of(config), folder, writes=first, keep=config["keep"]):
            ray.train.report(result)
    except (Diverged, ValueError) as error:  # the same on every worker, and the same again if it were tried again
        ray.train.report(failure_of(error, folder))
    except OSError as error:
        if not is_full(error):
            raise
        ray.train.report(failure_of(error, folder))
        time.sleep(STOPPING)  # Tune ends this process when it stops the sweep


def trial_of_workers(config: dict[str, Any]) -> None:
    """A Tune trial that takes no CPU itself: its workers do.

    Workers that die are started again from the last checkpoint; a trial fails when they die ``restarts`` times more
    without having got any further.
    """
    from ray import tune

    from sweeps._trial import failure_of
    from vqvae_core.checkpoint import Keeper

    os.environ.update(POLL)
    folder = Path(config["folder"])
    keeper = Keeper(folder / "checkpoints")
    attempt = 0
    while True:
        before = keeper.found()
        try:
            train_group(config, f"{folder.name}-{tune.get_context().get_trial_id()}-{attempt}")
            return
        except Exception as error:
            if keeper.found()[-1:] <= before[-1:]:
                tune.report(failure_of(error, folder))
                return
        attempt += 1


def train_group(config: dict[str, Any], name: str) -> None:
    """Train a trial with Train; raises what its workers died of when they did too often."""
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    group = config["group"]
    api: Any = ray.train  # whose annotations are still those of its first version
    scaling = api.ScalingConfig(
        num_workers=group["workers"],
        use_gpu=group["gpus_per_worker"] > 0,
        resources_per_worker={"CPU": group["cpus_per_worker"], "GPU": group["gpus_per_worker"]},
    )
    run = api.RunConfig(
        name=name,
        storage_path=str(Path(config["folder"]).parent.parent / "train"),
        callbacks=[TuneReportCallback()],
        failure_config=api.FailureConfig(max_failures=group["restarts"], controller_failure_limit=2),
        logging_config=api.LoggingConfig(log_level="ERROR"),
    )
    TorchTrainer(train_worker, train_loop_config=config, scaling_config=scaling, run_config=run).fit()
