"""The simulated Tune of the benchmarks: what searchers and schedulers are asked and told, and what is made of it."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from benchmarks import search_quality
from benchmarks._simulated import run
from benchmarks._table import Recorded

TABLES = [search_quality.table_of(name) for name in search_quality.TABLES]


class Heard(Searcher):
    """Three trials, and what it was told of them."""

    def __init__(self) -> None:
        super().__init__(metric="objective", mode="min")
        self.left, self.told = 3, list[tuple[str, str, int]]()

    def suggest(self, trial_id: str) -> Any:
        if not self.left:
            return Searcher.FINISHED
        self.left -= 1
        return {}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.told.append(("result", trial_id, result["training_iteration"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        assert result and result["done"]
        self.told.append(("complete", trial_id, result["training_iteration"]))


class StopsTheSecond(FIFOScheduler):
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return "STOP" if trial.trial_id == "00001" and result["training_iteration"] == 2 else "CONTINUE"


def test_every_end_is_told_once_and_with_the_last_result() -> None:
    searcher = Heard()
    results = [{"training_iteration": n, "done": n == 3} for n in (1, 2, 3)]
    order = [
        (r["trial_id"], r["training_iteration"])
        for r in run(searcher, StopsTheSecond(), lambda config: results, 2, seed=0)
    ]
    ends = {trial: step for kind, trial, step in searcher.told if kind == "complete"}
    assert ends == {"00000": 3, "00001": 2, "00002": 3}
    assert len(searcher.told) == len(order) == 8
    assert order.index(("00002", 1)) > order.index(("00001", 2))  # two at once: the third waits for an end


@pytest.mark.parametrize("table", TABLES)
def test_every_recorded_run_is_the_nearest_of_an_equal_part_of_the_space(table: Recorded) -> None:
    rates = table.grid["train.lr"]
    low, high = search_quality.ends(rates)
    point = {name: values[0] for name, values in table.grid.items()}
    count = 100 * len(rates)
    found = [
        search_quality.cell(table, point | {"train.lr": low * (high / low) ** ((n + 0.5) / count)})[0]
        for n in range(count)
    ]
    assert all(abs(found.count(place) - 100) <= 3 for place in range(len(rates)))  # they have three digits
    assert [r["images_seen"] for r in search_quality.results_of(table, point)] == table.steps


@pytest.mark.parametrize("table", TABLES)
def test_a_repeat_of_ours_stops_trials_as_a_sweep_does(table: Recorded) -> None:
    results = list(islice(search_quality.ours(table, 2, seed=1), 200))
    ends = [r["images_seen"] for r in results if r["done"]]
    ninth = table.steps[-1] // 9
    assert ends.count(ninth) > 4
    assert all(seen == table.steps[-1] or ninth <= seen <= table.steps[-1] / 2 for seen in ends)
    assert len(ends) > 8
    again = list(islice(search_quality.ours(table, 2, seed=1), 200))
    assert [r["objective"] for r in again] == [r["objective"] for r in results]


def test_hyperband_gives_each_bracket_its_budget() -> None:
    (table,) = TABLES[:1]
    results = islice(search_quality.hyperband(table, 2, seed=0), 27 + 9 * 2 + 3 * 6 + 18 + 12 * 3)
    steps = [r["training_iteration"] for r in results]
    assert steps[:27] == 27 * [1]
    assert steps[27:45] == 9 * [2, 3]
    assert steps[45:63] == 3 * [4, 5, 6, 7, 8, 9]
    assert steps[63:81] == list(range(10, 28))
    assert steps[81:] == 12 * [1, 2, 3]  # the next bracket, from new points


def test_what_is_never_reached_is_infinite() -> None:
    assert search_quality.needed([5.0, 4.0, 4.0, 3.0], 4.0) == 0.5
    assert search_quality.needed([5.0, 4.0, 4.0, 3.0], 2.0) == math.inf
    share, (low, high) = search_quality.compare([[5.0, 4.0, 3.0, 3.0]] * 4, [[9.0, 3.5]] * 3)
    assert (share, low, high) == (0.75, 0.75, 0.75)
