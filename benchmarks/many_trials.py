"""What the driver spends on a trial when there are a thousand before it, and how long reading 10,000 of them takes.

A fake objective, no training and no Ray; everything else is a sweep's own: searcher, study in SQLite, scheduler, board,
journal, and the tracker's thread with MLflow's database. Tune's part is in ``trial_overhead``.
The tracker's runs are then copied, in MLflow's own tables, until there are 10,000.

Run: python -m benchmarks.many_trials --json
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._harness import Row, faster, parser, show
from benchmarks._simulated import run
from sweeps._board import Board
from sweeps._display import PlainLines
from sweeps._events import Events
from sweeps._execute import StopFlag, scheduler
from sweeps._journal import Journal
from sweeps._plan import Plan, make_plan
from sweeps._search import OptunaSearcher
from sweeps._settings import parse
from sweeps._space import Sweep, choice, log_uniform
from sweeps._study import open_storage, open_study
from sweeps._tracker import SWEEP, Tracker
from sweeps._trial import Result, result_of
from vqvae_core.config import DataConfig
from vqvae_core.data import prepare
from vqvae_core.overrides import at_least, flatten

PROJECT = Path(__file__).parents[1]
SPACE = {
    "model.beta": log_uniform(0.05, 5.0),
    "train.lr": log_uniform(3e-5, 3e-3),
    "model.num_codes": choice(64, 128, 256, 512),
    "model.quantizer": choice("gradient", "ema"),
}
METRICS = [f"{split}/{name}" for split in ("train", "valid") for name in ("distortion", "mse", "psnr", "perplexity")]
BLOCK = 100  # trials over which a row's figures are taken
FLAT = 0.7  # what a trial cost at first, over what it costs at last
READ_IN = 10.0  # seconds that reading may take


def plan_of(root: Path, trials: int) -> Plan:
    """A sweep of the digits with nine reports a trial."""
    prepare(DataConfig("digits", str(root / "data")))
    arguments = ["--dataset", "digits", "--data.root", str(root / "data"), "--trials", str(trials), "--images", "9000"]
    arguments += ["--train.eval_every", "1000", "--out", str(root / "runs")]
    arguments += ["--tracking-uri", f"sqlite:///{root}/mlflow.db", "--storage", f"sqlite:///{root}/optuna.db"]
    sweep = Sweep("many_trials", "?", SPACE)
    return replace(make_plan(sweep, parse(sweep, arguments, "many_trials")), name="many", folder=root / "runs" / "many")


def results_of(config: dict[str, Any], reports: int = 9) -> list[Result]:
    """A trial whose bits/dim depend on its point and fall as it trains."""
    fields = config["experiment"]
    worth = abs(math.log10(fields["train.lr"] / 5e-4)) + 0.2 * abs(math.log10(fields["model.beta"]))
    found = []
    for seen in range(9000 // reports, 9001, 9000 // reports):
        metrics = dict.fromkeys(METRICS, worth) | {"valid/bits_per_dim": 3 + worth + 1000 / seen}
        found.append({**result_of(seen, metrics, 9000), "time_total_s": seen / 100})
    return found


def sweep(plan: Plan, concurrent: int) -> dict[str, list[float]]:
    """Seconds a trial of each block: of the driver's thread, in all and of a core, and until the tracker was told."""
    journal = Journal(plan.folder)
    study = open_study(plan, open_storage(plan.storage))
    board = Board(plan.trials, concurrent)
    events = Events(plan, board, journal, PlainLines(board), StopFlag(plan.folder), "search")
    searcher = OptunaSearcher(plan, study, events.started)
    tracker = Tracker(plan.tracking_uri, plan.experiment_name, study.user_attrs["sweep.id"], journal)
    journal.add("start", SWEEP, name=plan.name, tags={"stage": "sweep"}, params=flatten(plan.base))
    asha = scheduler(plan, searcher, events)
    found: dict[str, list[float]] = {"driver": [], "driver, of a core": [], "driver and tracker": []}
    ended, began, busy, working = 0, time.perf_counter(), 0.0, 0.0
    results = run(searcher, asha, results_of, concurrent, 0, events)
    tracker.start()
    while True:
        clock, core = time.perf_counter(), time.thread_time()
        result = next(results, None)
        busy, working = busy + time.perf_counter() - clock, working + time.thread_time() - core
        if result is None:
            break
        ended += result["done"]
        if result["done"] and ended % BLOCK == 0:
            found["driver"].append(busy / BLOCK)
            found["driver, of a core"].append(working / BLOCK)
            while next(journal.untold(), None):
                time.sleep(0.02)
            found["driver and tracker"].append((time.perf_counter() - began) / BLOCK)
            began, busy, working = time.perf_counter(), 0.0, 0.0
    tracker.close()
    journal.close()
    return found


def multiply(database: Path, times: int) -> int:
    """Copy every trial's run, and all that belongs to it, until there are so many of each; gives the number of runs."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
        of_runs = ["runs", *sorted(name for name in tables if "run_uuid" in columns[name] and name != "runs")]
        connection.execute(
            "CREATE TEMP TABLE trials AS SELECT run_uuid FROM tags WHERE key = 'stage' AND value = 'search'"
        )
        for number in range(1, times):
            for table in of_runs:
                names = ", ".join(columns[table])
                values = names.replace("run_uuid", f"substr('{number:04x}' || run_uuid, 1, 32)")
                connection.execute(
                    f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} "
                    "WHERE run_uuid IN (SELECT run_uuid FROM trials)"
                )
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


def seconds_of(arguments: list[str], repeats: int) -> float:
    """Median seconds of a program, from the shell's point of view."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--trials", type=at_least(1), default=1000, help="simulated trials (1000)")
    chosen = options.parse_args()
    os.environ["RAY_ADDRESS"] = "local"  # the plan's machine is this one
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            found = sweep(plan_of(root, chosen.trials), 8)
        rows: list[Row] = []
        for case, blocks in found.items():
            last = len(blocks) - 1  # the first hundred are not like the others: at first nobody is stopped
            for number in dict.fromkeys((1, last // 2, last)):
                which = f"a trial of {number * BLOCK + 1} to {(number + 1) * BLOCK}"
                goal = FLAT if number == last else None
                rows.append(faster(f"{case}, {which}", blocks[number], blocks[1], goal=goal))
        database = root / "mlflow.db"
        runs = multiply(database, 10_000 // chosen.trials)
        uri = ["--tracking-uri", f"sqlite:///{database}"]
        table = seconds_of(["analysis/table1.py", "--split", "valid", *uri], 3)
        page = seconds_of(["analysis/report.py", "--sweep", "many", "-o", str(root / "report.html"), *uri], 3)
        rows.append(faster(f"table1.py, {runs:,} runs", table, READ_IN, goal=1.0))
        rows.append(faster(f"report.py, {runs:,} runs", page, READ_IN, goal=1.0))
    show("many_trials", rows, chosen.json)


if __name__ == "__main__":
    main()
