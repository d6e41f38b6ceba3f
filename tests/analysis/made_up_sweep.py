"""Sweeps written into a tracker's database as MLflow's own tables have them: thousands of runs in a second.

That ``analysis`` reads MLflow's real database as MLflow does is what ``test_runs.py`` shows; here the content matters.
"""

from __future__ import annotations

import io
import json
import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TABLES = """
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, status TEXT, start_time BIGINT, end_time BIGINT,
                   lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INTEGER);
CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT, is_nan BOOLEAN);
CREATE TABLE latest_metrics (key TEXT, value FLOAT, timestamp BIGINT, step BIGINT, is_nan BOOLEAN, run_uuid TEXT);
CREATE INDEX metrics_of_run ON metrics (run_uuid);
CREATE INDEX tags_of_run ON tags (run_uuid, key);
CREATE INDEX params_of_run ON params (run_uuid);
CREATE INDEX latest_of_run ON latest_metrics (run_uuid, key);
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPACE = {"model.beta": "0.05 .. 5 (log)", "train.lr": "3e-05 .. 0.003 (log)", "model.num_codes": "64 | 128 | 256"}
RUNGS = (1000, 3000, 9000)


def picture() -> bytes:
    """A small PNG."""
    file = io.BytesIO()
    Image.fromarray(np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)).save(file, "PNG")
    return file.getvalue()


class Writer:
    """Rows of runs, written at the end in one go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLE_WIDTHS}
        self.clock = 1_700_000_000_000
        self.runs = 0

    def run(
        self,
        name: str,
        status: str,
        tags: Mapping[str, str],
        params: Mapping[str, object] | None = None,
        curve: Sequence[tuple[int, Mapping[str, float]]] = (),
        pictures: Sequence[str] = (),
        seconds: float = 60.0,
        checkpoint: Path | None = None,
    ) -> str:
        """A run; ``curve`` is (images seen, metrics) at each report; ``checkpoint`` is a folder to log as such."""
        self.runs += 1
        run = f"{self.runs:032x}"
        self.clock += 1000
        place = self.folder / "artifacts" / run
        end = None if status == "RUNNING" else self.clock + int(1000 * seconds)
        self.rows["runs"].append((run, name, status, self.clock, end, "active", place.as_uri(), 1))
        self.rows["tags"] += [(key, value, run) for key, value in tags.items()]
        self.rows["params"] += [(key, str(value), run) for key, value in (params or {}).items()]
        latest: dict[str, tuple[Any, ...]] = {}
        for step, metrics in curve:
            for key, value in metrics.items():
                nan = value != value
                self.rows["metrics"].append((key, 0.0 if nan else value, self.clock + step, run, step, nan))
                latest[key] = (key, 0.0 if nan else value, self.clock + step, step, nan, run)
        self.rows["latest_metrics"] += latest.values()
        for file in pictures:
            place.mkdir(parents=True, exist_ok=True)
            (place / file).write_bytes(picture())
        for path in checkpoint.rglob("*") if checkpoint else ():
            if path.is_file() and path.name != "training.pt":  # the tracker has what a model needs
                target = place / "checkpoint" / path.relative_to(checkpoint or path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        return run

    def save(self, experiment: str = "mnist/made_up") -> str:
        """Write the database; gives its URI."""
        path = self.folder / "mlflow.db"
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(TABLES)
            database.execute("INSERT INTO experiments VALUES (1, ?, 'active')", [experiment])
            for table, rows in self.rows.items():
                database.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * TABLE_WIDTHS[table])})", rows)
        return f"sqlite:///{path}"


TABLE_WIDTHS = {"runs": 8, "params": 3, "tags": 3, "metrics": 6, "latest_metrics": 6}


def measured(bits: float, seconds: float, perplexity: float = 40.0) -> dict[str, float]:
    """The metrics of a report."""
    return {
        "valid/bits_per_dim": bits,
        "valid/distortion": bits - 0.25,
        "valid/rate_unigram": 0.25,
        "valid/perplexity": perplexity,
        "train/seconds": seconds,
    }


def write_sweep(
    folder: Path,
    trials: int = 24,
    *,
    name: str = "made-up",
    question: str = "Which beta and which learning rate?",
    failure: str = "Diverged: the loss is no longer finite at 1,000 images (lr 0.003)",
    status: str = "FINISHED",
    seeds: int = 3,
    pictures: bool = True,
    tags: Mapping[str, str] | None = None,
) -> str:
    """A sweep like a real one: every third trial complete, some failed, most stopped; bits/dim follow from lr alone.

    Trial 000 is the report's point; the two best trials have ``seeds`` seeds, and the winner was tested.
    """
    writer, chance = Writer(folder), random.Random(1)
    common = {"sweep.id": f"{name}-1a2b", "data.shape": "28x28x1", "mlflow.source.git.commit": COMMIT}
    parent = writer.run(
        name,
        status,
        {
            **common,
            "stage": "sweep",
            "question": question,
            "space": json.dumps(SPACE),
            "command": "python sweeps/made_up.py --trials 24",
            "hardware": "2 made-up cores",
            "data.train_images": "54000",
            "data.valid_images": "6000",
            "data.test_images": "10000",
            **(tags or {}),
        },
        {"data.name": "mnist", "model.type": "vqvae", "model.hidden": 8, "train.images": RUNGS[-1], "seed": 0},
        [(RUNGS[-1], {"mean_image/bits_per_dim": 3.5})] if status == "FINISHED" else [],
        seconds=1e4,
    )
    complete: list[tuple[float, str, dict[str, object]]] = []
    for number in range(trials):
        lr = 3e-4 if number == 0 else 10 ** chance.uniform(-4.5, -2.5)
        point = {
            "model.beta": 1.0 if number == 0 else 10 ** chance.uniform(-1.3, 0.7),
            "train.lr": lr,
            "model.num_codes": chance.choice([64, 128, 256]),
        }
        config = {"data.name": "mnist", "model.type": "vqvae", "model.hidden": 8, "model.code_dim": 4, **point}
        config |= {"data.source": "/my images", "data.root": "elsewhere"}
        value = 1.0 + (abs(np.log10(lr) + 3.2)) + number * 1e-6
        curve = [(step, measured(value + 1.0 / (i + 1), 10.0 * (i + 1))) for i, step in enumerate(RUNGS)]
        state, end = ("complete", "FINISHED") if number % 3 == 0 else ("pruned", "KILLED")
        reason = "trained on all 9,000 images"
        if state == "pruned":
            curve = curve[: 1 + number % 2]
            reason = f"ASHA stopped it at {curve[-1][0]:,} of 9,000 images"
        if number % 11 == 5:
            state, end, reason, curve = "failed", "FAILED", failure, curve[:1]
        own = {
            **common,
            "mlflow.parentRunId": parent,
            "stage": "search",
            "seed": "0",
            "trial.state": state,
            "status.reason": reason,
            "point.origin": "the report" if number == 0 else "TPE",
        }
        files = ["reconstructions.png"] if pictures and state == "complete" and number < 30 else []
        run = writer.run(f"{number:03d}", end, own, {**config, "seed": 0}, curve, files)
        if state == "complete":
            complete.append((curve[-1][1]["valid/bits_per_dim"], run, config))
            names[run] = f"{number:03d}"
    complete.sort(key=lambda found: found[0])
    for value, run, config in complete[:2]:
        for seed in range(1, seeds):
            metrics = measured(value + seed * 1e-3, 30.0) | {"test/bits_per_dim": value + 0.1 + seed * 1e-3}
            own = {**common, "mlflow.parentRunId": run, "stage": "confirm", "seed": str(seed)}
            own |= {"trial.state": "complete", "status.reason": "trained on all 9,000 images"}
            writer.run(f"{names[run]}-seed-{seed}", "FINISHED", own, {**config, "seed": seed}, [(9000, metrics)])
    if complete and status == "FINISHED":
        value, run, _ = complete[0]
        writer.rows["latest_metrics"].append(("test/bits_per_dim", value + 0.1, 0, 9000, False, run))
        writer.rows["tags"].append(("best.trial", names[run], parent))
        if pictures:
            place = folder / "artifacts" / run
            place.mkdir(parents=True, exist_ok=True)
            (place / "test_reconstructions.png").write_bytes(picture())
    return writer.save()


names: dict[str, str] = {}
