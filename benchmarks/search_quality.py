"""How many images a sweep must train to find a good trial: ours against random search, stock Tune and Hyperband.

The learning curves are real (``record_table``), the clock is simulated: the very searcher and scheduler of a sweep, and
Ray's own ``OptunaSearch`` and ``ASHAScheduler``, are asked and told as Tune's controller does it.

A baseline has a budget of 20 full trainings, in images. Its result is the best validation bits/dim that any of its
trials reported; ours is the budget after which our best is as good. A row's ratio is the baseline's budget over the
median of ours over all pairs of a repeat of one with a repeat of the other; a repeat that never gets there counts as
infinite.

Run: python -m benchmarks.search_quality --json
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks._harness import Row, parser, show
from benchmarks._simulated import run
from benchmarks._table import RESULTS, Recorded, read_table
from sweeps._cluster import Cluster
from sweeps._execute import scheduler
from sweeps._plan import Plan
from sweeps._search import OptunaSearcher
from sweeps._space import Dimension, Point, Sweep, choice, log_uniform
from sweeps._study import open_study
from sweeps._trial import Result, result_of
from vqvae_core.config import Experiment
from vqvae_core.overrides import at_least, unflatten

TABLES = ("digits", "mnist")
FULL = 20  # full trainings of which a baseline's budget is made: as many as a sweep has trials by default
LOG = ("train.lr", "model.beta")  # searched on a continuous scale; a point takes the curve of the nearest one recorded
GOALS = {"random": 1 / 0.5, "Tune OptunaSearch + ASHA": 1 / 0.7}

Best = list[float]  # the best value so far after each report of a sweep


@cache
def table_of(name: str) -> Recorded:
    return read_table(RESULTS / f"tabular_{name}.json.gz")


def ends(values: Sequence[float]) -> tuple[float, float]:
    """The range in which every recorded value of a logarithmic grid is the nearest one of an equal part."""
    half = math.sqrt(values[1] / values[0])
    return values[0] / half, values[-1] * half


def cell(table: Recorded, point: Point) -> tuple[int, ...]:
    """Where a point falls on the grid."""
    return tuple(
        min(range(len(values)), key=lambda i: abs(math.log(values[i] / point[name])))
        if name in LOG
        else values.index(point[name])
        for name, values in table.grid.items()
    )


def results_of(table: Recorded, point: Point) -> list[Result]:
    """What a trial at a point reports to Tune."""
    curves = table.runs[cell(table, point)].curves
    found = []
    for number, seen in enumerate(table.steps):
        metrics = {f"valid/{name}": values[number] for name, values in curves.items()}
        result = result_of(seen, metrics, table.steps[-1])
        found.append({**result, "training_iteration": number + 1, "time_total_s": float(seen)})
    return found


def space_of(table: Recorded) -> dict[str, Dimension]:
    return {name: log_uniform(*ends(values)) if name in LOG else choice(*values) for name, values in table.grid.items()}


def plan_of(table: Recorded, seed: int) -> Plan:
    """The plan of a sweep over a table, with a sweep's own defaults and no end."""
    fields = {**table.about["base"], **{name: values[0] for name, values in table.grid.items()}}
    name = table.about["data"].split(",")[0]
    base: Experiment = replace(unflatten({**fields, "data.name": name}), seed=seed)
    sweep = Sweep("quality", "?", space_of(table))
    return Plan(
        sweep=sweep, name=f"quality-{seed}", base=base, trials=10**6, workers=1, cpus_per_worker=1, gpus_per_worker=0,
        concurrent=1, seeds=1, confirm=0, scheduler="asha", folder=Path("nowhere"), tracking_uri="", storage="",
        cluster=Cluster(1, 0, "simulated"),
    )  # fmt: skip


def ours(table: Recorded, concurrent: int, seed: int) -> Iterator[Result]:
    """A sweep as ``launch`` sets it up, with its study in memory."""
    plan = plan_of(table, seed)
    study = open_study(plan, optuna.storages.InMemoryStorage())
    searcher = OptunaSearcher(plan, study, lambda trial_id, spec: None)
    asha = scheduler(plan, searcher, cast(Any, SimpleNamespace(stopped_for={})))

    def results(config: dict[str, Any]) -> list[Result]:
        return results_of(table, {name: config["experiment"][name] for name in table.grid})

    return run(searcher, asha, results, concurrent, seed)


def stock(table: Recorded, concurrent: int, seed: int, **settings: Any) -> Iterator[Result]:
    """``OptunaSearch`` and ``ASHAScheduler``; with ``settings`` of the scheduler, otherwise as they are by default."""
    space = {
        name: tune.loguniform(*ends(values)) if name in LOG else tune.choice(values)
        for name, values in table.grid.items()
    }
    searcher = OptunaSearch(OptunaSearch.convert_search_space(space), metric="objective", mode="min", seed=seed)
    asha = ASHAScheduler(metric="objective", mode="min", max_t=len(table.steps), **settings)
    return run(searcher, asha, partial(results_of, table), concurrent, seed)


class AtRandom(Searcher):
    """Points drawn without looking at anything."""

    def __init__(self, table: Recorded, seed: int) -> None:
        super().__init__(metric="objective", mode="min")
        self._grid, self._chance = table.grid, random.Random(seed)

    def suggest(self, trial_id: str) -> Point:
        return {name: self._chance.choice(values) for name, values in self._grid.items()}

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        pass


def at_random(table: Recorded, concurrent: int, seed: int) -> Iterator[Result]:
    """Random search, every trial to its end."""
    return run(AtRandom(table, seed), FIFOScheduler(), partial(results_of, table), concurrent, seed)


def hyperband(table: Recorded, concurrent: int, seed: int, eta: int = 3) -> Iterator[Result]:
    """Hyperband (Li et al. 2018, Algorithm 1) over and over, trials going on from where they were paused.

    A rung is over before the next begins, so that the order within it, and with it ``concurrent``, changes nothing.
    """
    chance, most = AtRandom(table, seed), len(table.steps)
    deepest = round(math.log(most, eta))
    while True:
        for bracket in range(deepest, -1, -1):
            count = math.ceil((deepest + 1) / (bracket + 1) * eta**bracket)
            alive, before = [results_of(table, chance.suggest("")) for _ in range(count)], 0
            for rung in range(bracket, -1, -1):
                until = most // eta**rung
                for results in alive:
                    yield from results[before:until]
                alive = sorted(alive, key=lambda results: results[until - 1]["objective"])[: len(alive) // eta]
                before = until


Method = Callable[[Recorded, int, int], Iterator[Result]]

METHODS: dict[str, Method] = {
    "ours": ours,
    "random": at_random,
    "Tune OptunaSearch + ASHA": stock,
    "Tune, rungs at 1/9 and 1/3": partial(stock, grace_period=3, reduction_factor=3),
    "Hyperband": hyperband,
}


def best_so_far(method: str, table: str, concurrent: int, seed: int) -> Best:
    """A repeat: the best value after each report, until the budget is spent."""
    recorded = table_of(table)
    budget, best, found = FULL * len(recorded.steps), math.inf, []
    for result in METHODS[method](recorded, concurrent, seed):
        best = min(best, result["objective"])
        found.append(best)
        if len(found) == budget:
            break
    return found


def needed(mine: Best, value: float) -> float:
    """The share of the budget after which a value was reached."""
    return next((number / len(mine) for number, best in enumerate(mine, 1) if best <= value), math.inf)


def compare(mine: Sequence[Best], theirs: Sequence[Best]) -> tuple[float, list[float]]:
    """The median share of their budget that mine need for their final values, and its 95 % interval (bootstrap)."""
    shares = [[needed(one, other[-1]) for other in theirs] for one in mine]
    chance, medians = random.Random(0), []
    for _ in range(300):
        rows = chance.choices(range(len(mine)), k=len(mine))
        columns = chance.choices(range(len(theirs)), k=len(theirs))
        medians.append(statistics.median(shares[i][j] for i in rows for j in columns))
    medians.sort()
    return statistics.median(share for row in shares for share in row), [medians[7], medians[-8]]


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(repeats=100)
    options.add_argument("--concurrent", type=at_least(1), nargs="+", default=[2, 8], help="trials at once (2 8)")
    chosen = options.parse_args()
    cases = [(table, concurrent) for table in TABLES for concurrent in chosen.concurrent]
    tasks = [
        (method, table, concurrent, seed)
        for table, concurrent in cases
        for method in METHODS
        for seed in range(chosen.repeats)
    ]
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(tasks, pool.starmap(best_so_far, tasks, chunksize=5), strict=True))
    rows = []
    for table, concurrent in cases:
        all_of = {
            method: [found[method, table, concurrent, seed] for seed in range(chosen.repeats)] for method in METHODS
        }
        budget = FULL * table_of(table).steps[-1]
        final = statistics.median(best[-1] for best in all_of["ours"])
        for method in METHODS:
            if method == "ours":
                continue
            share, (low, high) = compare(all_of["ours"], all_of[method])
            value = statistics.median(best[-1] for best in all_of[method])
            case = f"{table}, {concurrent} at once, {method}"
            note = f"at {share:.2f} ({low:.2f} .. {high:.2f}); after all images {final:.4f} against {value:.4f}"
            rows.append(Row(case, share * budget, budget, "images", 1 / share, GOALS.get(method), note))
    show("search_quality", rows, chosen.json)


if __name__ == "__main__":
    main()
