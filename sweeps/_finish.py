"""After the search: the best on the test split, its picture and weights in the tracker, the sweep's own figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from sweeps._board import Board, Row, by_merit
from sweeps._cluster import connect
from sweeps._journal import Journal
from sweeps._plan import Plan
from sweeps._ranking import pareto, replicated, searched
from sweeps._search import config_of
from sweeps._tracker import SWEEP
from sweeps._trial import task_of, train
from vqvae_core.batches import Images
from vqvae_core.checkpoint import CONFIG, FIRST, MANIFEST, WEIGHTS, Keeper
from vqvae_core.data import Dataset
from vqvae_core.metrics import mean_image_bits
from vqvae_core.pictures import save_picture
from vqvae_core.second_stage import image_model_of
from vqvae_core.task import evaluate_on

TEST = "test_"  # before the name of the picture of the test split


def best_group(board: Board) -> Row | None:
    """The winner: of the confirmed trials the one with the best mean over seeds, else the best complete trial.

    One whose codebook is out of its limits wins only if there is no other.
    """
    groups = replicated(board)
    if groups:
        return board.rows[min(groups, key=lambda run: (bool(board.rows[run].unhealthy), statistics.mean(groups[run])))]
    return min((row for row in board.rows.values() if row.state == "complete"), key=by_merit, default=None)


def mean_image_floor(dataset: Dataset, plan: Plan) -> float:
    """Bits/dim of valid under a decoder that always answers the mean training image."""
    cpu = torch.device("cpu")
    likelihood = image_model_of(plan.base).likelihood
    return mean_image_bits(Images(dataset, "train", cpu), Images(dataset, "valid", cpu), likelihood)


@dataclass(frozen=True)
class Tested:
    """What the test split says of a run."""

    metrics: dict[str, float]
    images_seen: int
    checkpoint: Path  # which was tested
    notes: list[str]  # what a reader should know of it


def evaluate_test(config: dict[str, Any]) -> Tested:
    """Test a trial at the end of its training, where it was ranked; runs where the GPUs are.

    When its last checkpoint is damaged or gone, the trial is trained again from the one before it, or from nothing.
    """
    experiment, dataset = task_of(config)
    folder, notes = Path(config["folder"]), list[str]()
    keeper = Keeper(folder / "checkpoints", best=config["keep"], warn=notes.append)
    last = keeper.last()
    if last is None or last.images_seen < experiment.train.images:
        notes.append(f"it was trained again from {last.images_seen if last else 0:,} images on, to be tested")
        for _ in train(experiment, dataset, folder, keep=config["keep"]):
            pass
        last = keeper.last()
    assert last is not None
    metrics = evaluate_on(last.experiment, last.model(), dataset, "test")
    save_picture(last.model(), dataset, "test", folder, TEST)
    return Tested({f"test/{name}": value for name, value in metrics.items()}, last.images_seen, last.folder, notes)


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
    if not rows:
        return
    connect(plan.cluster, with_groups=plan.workers > 1)
    folders = [plan.folder / "trials" / row.run for row in rows]
    configs = [
        config_of(plan.experiment(row.point, row.seed), folder, plan) for row, folder in zip(rows, folders, strict=True)
    ]
    answers: list[Tested] = ray.get([remote.remote(config) for config in configs])
    for row, folder, answer in zip(rows, folders, answers, strict=True):
        for note in answer.notes:
            print(f"trial {row.run}: {note}")
        row.metrics = {**row.metrics, **answer.metrics}
        tested[row.run] = answer.metrics
        journal.add("extra", row.run, step=answer.images_seen, metrics=answer.metrics)
        for picture in sorted(folder.glob(f"{TEST}*.png")):
            journal.add("artifact", row.run, path=str(picture))
        for name in (WEIGHTS, CONFIG, MANIFEST) if row is best else (CONFIG,):
            journal.add("artifact", row.run, path=str(answer.checkpoint / name), to="checkpoint")
        for path in sorted((answer.checkpoint / FIRST).glob("*")) if row is best else ():
            journal.add("artifact", row.run, path=str(path), to=f"checkpoint/{FIRST}")
    study.set_user_attr("tested", json.dumps(tested))


def tag_front(board: Board, objectives: Sequence[str], journal: Journal) -> None:
    """In the tracker, which trials are on the Pareto front; a sweep that was extended may have thrown some off it."""
    on_front = {row.run for row in pareto(board, objectives)}
    for row in searched(board):
        if row.state == "complete":
            journal.add("tags", row.run, tags={"pareto.front": str(row.run in on_front).lower()})


def summarise(board: Board, floor: float, best: Row | None, shares: Mapping[str, float], journal: Journal) -> None:
    """The sweep's own run in the tracker: its winner's figures, the floor, how its trials ended and what mattered."""
    metrics = {"mean_image/bits_per_dim": floor}
    metrics |= {f"trials/{state}": board.count(state) for state in ("complete", "pruned", "failed")}
    metrics |= {f"importance/{name}": share for name, share in shares.items()}
    if best:
        metrics |= {name: value for name, value in best.metrics.items() if name.startswith(("valid/", "test/"))}
    journal.add("extra", SWEEP, step=max((row.images_seen for row in board.rows.values()), default=0), metrics=metrics)
    reason = f"best trial {best.run}" if best else "no trial was completed"
    journal.add("end", SWEEP, state="complete", tags={"status.reason": reason, "best.trial": best.run if best else ""})
