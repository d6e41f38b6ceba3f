"""What the driver and the tracker spend on a trial and on a report, and how many GPUs that keeps busy.

Three things happen one after the other in a sweep: the searcher's choice, which grows with the trials before it; the
driver's other work, most of it writing the study; and what the tracker is told, by a thread of its own. Each is
measured by itself, the writes into SQLite and, where it is installed, into PostgreSQL on this machine.

A row's baseline is what 256 GPUs allow for trials of half an hour with nine reports: 1800 / 256 seconds a trial. Its
ratio says how many times that fits. Tune's own part is in ``trial_overhead``.

Run: python -m benchmarks.scale --json
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import TrialState, create_trial
from ray.tune.schedulers import FIFOScheduler

from benchmarks._harness import Row, faster, parser, show
from benchmarks._servers import Missing, postgres
from benchmarks._simulated import run
from benchmarks.many_trials import plan_of, results_of
from sweeps._board import Board
from sweeps._display import PlainLines
from sweeps._events import Events
from sweeps._execute import StopFlag
from sweeps._journal import Journal
from sweeps._plan import Plan
from sweeps._search import OptunaSearcher
from sweeps._study import open_storage, open_study
from sweeps._tracker import SWEEP, Tracker
from vqvae_core.overrides import flatten

GPUS, SECONDS, REPORTS, BEFORE = 256, 1800.0, 9, (100, 1000, 10_000)
ALLOWED = SECONDS / GPUS  # seconds from the end of one trial to the end of the next
TRIALS = 24  # whose writes are measured


def choice_after(plan: Plan, before: int, repeats: int) -> float:
    """Median seconds in which the searcher chooses a point, with so many trials in a study in memory."""
    study = open_study(replace(plan, name=f"after-{before}"), optuna.storages.InMemoryStorage())
    space = {name: dimension.distribution for name, dimension in plan.sweep.space.items()}
    draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(before):
        point = draw.ask(space).params
        value = 3 + abs(point["train.lr"] - 5e-4) * 1000
        state = TrialState.PRUNED if number % 3 else TrialState.COMPLETE
        study.add_trial(
            create_trial(state=state, value=value, params=point, distributions=space, intermediate_values={1000: value})
        )
    searcher = OptunaSearcher(replace(plan, trials=10**6), study, lambda trial_id, spec: None)
    found = []
    for number in range(repeats + 2):  # the first two are the known points
        began = time.perf_counter()
        searcher.suggest(str(number))
        found.append(time.perf_counter() - began)
    return statistics.median(found[2:])


def writes(plan: Plan, name: str, reports: int) -> tuple[float, float]:
    """Seconds a trial with so many reports of the driver's work, and then of the tracker's, one after the other."""
    plan = replace(plan, name=name, folder=plan.folder.with_name(name))
    journal = Journal(plan.folder)
    study = open_study(plan, open_storage(plan.storage))
    board = Board(TRIALS, 8)
    events = Events(plan, board, journal, PlainLines(board), StopFlag(plan.folder), "search")
    searcher = OptunaSearcher(plan, study, events.started)
    tracker = Tracker(plan.tracking_uri, plan.experiment_name, study.user_attrs["sweep.id"], journal)
    journal.add("start", SWEEP, name=plan.name, tags={"stage": "sweep"}, params=flatten(plan.base))
    began = time.perf_counter()
    for _ in run(searcher, FIFOScheduler(), partial(results_of, reports=reports), 8, 0, events):
        pass
    driver = time.perf_counter() - began
    tracker.start()  # only now
    began = time.perf_counter()
    while next(journal.untold(), None):
        time.sleep(0.01)
    told = time.perf_counter() - began
    tracker.close()
    journal.close()
    return driver / TRIALS, told / TRIALS


def rows_of(where: str, plan: Plan, choice: float) -> list[Row]:
    """What a trial and a report cost with a study and a tracker in one kind of database, and what that allows."""
    writes(plan, f"{where}-first", 1)  # for the tables, connections and imports
    few, many = writes(plan, f"{where}-few", 1), writes(plan, f"{where}-many", REPORTS)
    rows = []
    for who, one, nine in zip(("driver", "tracker"), few, many, strict=True):
        report = max(1e-4, (nine - one) / (REPORTS - 1))
        trial = max(1e-4, one - report)
        rows.append(faster(f"{where}, {who}, a report", report, ALLOWED / REPORTS))
        rows.append(faster(f"{where}, {who}, the rest of a trial", trial, ALLOWED))
        whole = nine + (choice if who == "driver" else 0)
        what = f"a trial in all, {BEFORE[-1]:,} before it" if who == "driver" else "a trial in all"
        note = f"as much as {SECONDS / whole:,.0f} GPUs need"
        rows.append(faster(f"{where}, {who}, {what}", whole, ALLOWED, goal=1.0, note=note))
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sqlite-only", action="store_true", help="leave PostgreSQL out")
    chosen = options.parse_args()
    os.environ["RAY_ADDRESS"] = "local"  # the plan's machine is this one
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        plan = replace(plan_of(Path(folder), TRIALS), scheduler="none")
        choices = {before: choice_after(plan, before, max(5, chosen.repeats)) for before in BEFORE}
        rows = [faster(f"choice of a point, {n:,} trials before it", s, ALLOWED) for n, s in choices.items()]
        most = choices[BEFORE[-1]]
        rows += rows_of("SQLite", plan, most)
        try:
            with contextlib.nullcontext() if chosen.sqlite_only else postgres("studies", "tracker", fsync=True) as url:
                if url:
                    there = replace(plan, storage=f"{url}studies", tracking_uri=f"{url}tracker")
                    rows += rows_of("PostgreSQL", there, most)
        except Missing as error:
            print(f"PostgreSQL is left out: {error}", file=sys.stderr)
    show("scale", rows, chosen.json)


if __name__ == "__main__":
    main()
