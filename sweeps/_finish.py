"""After the search: the best on the test split, its picture and weights in the tracker, the sweep's own figures."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import optuna
import torch

from sweeps._board import Board, Row
from sweeps._images import images_on_this_node
from sweeps._journal import Journal
from sweeps._plan import Plan
from sweeps._ranking import replicated
from sweeps._tracker import SWEEP
from vqvae_core.batches import Images
from vqvae_core.checkpoint import CONFIG, MANIFEST, WEIGHTS, Keeper
from vqvae_core.data import Dataset
from vqvae_core.metrics import mean_image_bits
from vqvae_core.pictures import save_picture
from vqvae_core.second_stage import image_model_of
from vqvae_core.task import evaluate_on

TEST = "test_"  # before the name of the picture of the test split


def best_group(board: Board) -> Row | None:
    """The winner: of the confirmed trials the one with the best mean over seeds, else the best complete trial."""
    groups = replicated(board)
    if groups:
        return board.rows[min(groups, key=lambda run: statistics.mean(groups[run]))]
    return min((row for row in board.rows.values() if row.state == "complete"), key=lambda row: row.value, default=None)


def mean_image_floor(dataset: Dataset, plan: Plan) -> float:
    """Bits/dim of valid under a decoder that always answers the mean training image."""
    cpu = torch.device("cpu")
    likelihood = image_model_of(plan.base).likelihood
    return mean_image_bits(Images(dataset, "train", cpu), Images(dataset, "valid", cpu), likelihood)


def evaluate_test(folder: str, dataset: str, fingerprint: str) -> dict[str, float]:
    """Metrics of a run's last checkpoint, the one that was ranked, on the test split; runs where the GPUs are."""
    last = Keeper(Path(folder) / "checkpoints").last()
    if last is None:
        raise ValueError(f"{folder} has no whole checkpoint")
    images = images_on_this_node(Path(dataset), last.experiment.data, fingerprint)
    metrics = evaluate_on(last.experiment, last.model(), images, "test")
    save_picture(last.model(), images, "test", Path(folder), TEST)
    return {f"test/{name}": value for name, value in metrics.items()}


def test_best(plan: Plan, study: optuna.Study, board: Board, best: Row, journal: Journal) -> None:
    """The winner and its replicates on the test split, once; figures, pictures and the winner's weights are tracked.

    Of a sweep that is a list of runs, all of them.
    """
    import ray

    tested: dict[str, dict[str, float]] = json.loads(study.user_attrs.get("tested", "{}"))
    remote = ray.remote(num_cpus=plan.cpus_per_worker, num_gpus=plan.gpus_per_worker, max_retries=1)(evaluate_test)
    complete = [row for row in board.rows.values() if row.state == "complete"]
    rows = complete if plan.sweep.fixed else [best, *(row for row in complete if row.parent == best.run)]
    for row in rows:
        row.metrics = {**row.metrics, **tested.get(row.run, {})}
    rows = [row for row in rows if row.run not in tested]
    folders = [plan.folder / "trials" / row.run for row in rows]
    answers = [remote.remote(str(folder), str(plan.dataset_folder), plan.data_fingerprint) for folder in folders]
    for row, folder, metrics in zip(rows, folders, ray.get(answers), strict=True):
        checkpoint = Keeper(folder / "checkpoints").last()
        assert checkpoint is not None
        row.metrics = {**row.metrics, **metrics}
        tested[row.run] = metrics
        journal.add("extra", row.run, step=checkpoint.images_seen, metrics=metrics)
        for picture in sorted(folder.glob(f"{TEST}*.png")):
            journal.add("artifact", row.run, path=str(picture))
        for name in (WEIGHTS, CONFIG, MANIFEST) if row is best else (CONFIG,):
            journal.add("artifact", row.run, path=str(checkpoint.folder / name), to="checkpoint")
    study.set_user_attr("tested", json.dumps(tested))


def summarise(board: Board, floor: float, best: Row | None, journal: Journal) -> None:
    """The sweep's own run in the tracker: its winner's figures, the floor, and how its trials ended."""
    metrics = {"mean_image/bits_per_dim": floor}
    metrics |= {f"trials/{state}": board.count(state) for state in ("complete", "pruned", "failed")}
    if best:
        metrics |= {name: value for name, value in best.metrics.items() if name.startswith(("valid/", "test/"))}
    journal.add("extra", SWEEP, step=max((row.images_seen for row in board.rows.values()), default=0), metrics=metrics)
    reason = f"best trial {best.run}" if best else "no trial was completed"
    journal.add("end", SWEEP, state="complete", tags={"status.reason": reason, "best.trial": best.run if best else ""})
