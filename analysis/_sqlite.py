"""Runs out of MLflow's SQLite file, opened read-only: nothing is created, migrated or locked for long."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from analysis.runs import Curve, Query, Run

PATIENCE = 10.0  # seconds to wait for a sweep that is writing
LARGEST = 1.7976931348623157e308  # how MLflow stores an infinity


def read(path: Path, query: Query) -> list[Run]:
    """The runs of a database file; ``ValueError`` when it is none of MLflow's."""
    condition, values = where(query)
    try:
        with closing(_open(path)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                return []  # created, and not yet filled
            database.execute("BEGIN")  # one moment's view, though a sweep may be writing
            database.execute(f"CREATE TEMP TABLE chosen AS SELECT run_uuid FROM runs r WHERE {condition}", values)
            return _runs(database)
    except sqlite3.Error as error:
        raise ValueError(f"{path} cannot be read as an MLflow database ({error})") from None


def where(query: Query) -> tuple[str, list[str]]:
    """The SQL condition of a query, and its values."""
    conditions = [
        "r.lifecycle_stage = 'active'",
        "r.experiment_id IN (SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active')",
    ]
    values: list[str] = []

    def demand(condition: str, *given: str) -> None:
        conditions.append(condition)
        values.extend(given)

    def exists(table: str, condition: str) -> str:
        return f"EXISTS (SELECT 1 FROM {table} t WHERE t.run_uuid = r.run_uuid AND t.key = ? AND {condition})"

    if query.status:
        demand("r.status = ?", query.status)
    for name in query.measured:
        demand(exists("latest_metrics", "t.value >= 0 AND NOT t.is_nan"), name)
    for name, value in query.tags.items():
        demand(exists("tags", "t.value = ?"), name, value)
    for name, value in query.tags_not.items():
        demand(exists("tags", "t.value != ?"), name, value)
    return " AND ".join(conditions), values


def curves(path: Path, runs: Sequence[str], metric: str) -> dict[str, Curve]:
    """The history of a metric in some runs; ``ValueError`` when the file is none of MLflow's."""
    query = f"SELECT run_uuid, step, CASE WHEN is_nan THEN NULL ELSE value END FROM metrics WHERE key = ? AND {CHOSEN}"
    found: dict[str, Curve] = {run: [] for run in runs}
    try:
        with closing(_open(path)) as database:
            database.execute("CREATE TEMP TABLE chosen (run_uuid TEXT PRIMARY KEY)")
            database.executemany("INSERT OR IGNORE INTO chosen VALUES (?)", [(run,) for run in runs])
            for run, step, value in database.execute(f"{query} ORDER BY run_uuid, step, timestamp", [metric]):
                curve = found[run]
                if curve and curve[-1][0] == step:
                    curve.pop()
                curve.append((step, number(value)))
    except sqlite3.Error as error:
        raise ValueError(f"{path} cannot be read as an MLflow database ({error})") from None
    return found


def _open(path: Path) -> sqlite3.Connection:
    """A connection that can only read the file; its temporary tables are in memory."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
    database.isolation_level = None
    database.execute("PRAGMA temp_store = MEMORY")
    return database


def _runs(database: sqlite3.Connection) -> list[Run]:
    """All of the chosen runs, each with everything that belongs to it."""
    params, tags = (
        _by_run(database.execute(f"SELECT run_uuid, key, value FROM {table} WHERE {CHOSEN}"))
        for table in ("params", "tags")
    )
    metrics: dict[str, dict[str, float]] = defaultdict(dict)
    steps: dict[str, dict[str, int]] = defaultdict(dict)
    query = f"SELECT run_uuid, key, CASE WHEN is_nan THEN NULL ELSE value END, step FROM latest_metrics WHERE {CHOSEN}"
    for run, key, value, step in database.execute(query):
        metrics[run][key] = number(value)
        steps[run][key] = step
    columns = "run_uuid, r.name, e.name, status, start_time, end_time, artifact_uri"
    return [
        Run(
            id=run,
            name=name or "",
            experiment=experiment,
            status=status,
            started=started or 0,
            params=params[run],
            tags=tags[run],
            metrics=metrics[run],
            steps=steps[run],
            ended=ended or 0,
            artifacts=artifacts or "",
        )
        for run, name, experiment, status, started, ended, artifacts in database.execute(
            f"SELECT {columns} FROM {JOINED} WHERE {CHOSEN}"
        )
    ]


def _by_run(rows: Iterable[tuple[str, str, Any]]) -> dict[str, dict[str, Any]]:
    """(run, key, value) rows as a dictionary of each run."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for run, key, value in rows:
        found[run][key] = value
    return found


CHOSEN = "run_uuid IN (SELECT run_uuid FROM chosen)"
JOINED = "runs r JOIN experiments e ON r.experiment_id = e.experiment_id"


def number(value: float | None) -> float:
    """A stored metric as it was logged; None is NaN."""
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else float(value)
