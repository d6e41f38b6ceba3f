"""Several objectives: the front by its definition, and a study of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeps._board import Board, Row
from sweeps._objectives import OBJECTIVES, checked, front, ranked, values_of
from sweeps._plan import Plan
from sweeps._ranking import pareto, pareto_table
from sweeps._resume import row_of
from sweeps._search import OptunaSearcher, TrialSpec, history_of
from sweeps._study import open_storage, open_study


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_no_other_point_dominates(seed: int) -> None:
    chance = random.Random(seed)
    points = {str(n): [chance.randint(0, 5) for _ in range(chance.choice([1, 2, 3]))] for n in range(1)}
    width = len(points["0"])
    points |= {str(n): [chance.randint(0, 5) for _ in range(width)] for n in range(1, 30)}
    found = set(front(points))
    for name, own in points.items():
        dominated = any(
            all(b <= a for a, b in zip(own, other, strict=True)) and any(b < a for a, b in zip(own, other, strict=True))
            for other in points.values()
        )
        assert (name in found) == (not dominated)


@pytest.mark.parametrize("seed", range(10))
def test_promising_points_are_ranked_front_by_front(seed: int) -> None:
    chance = random.Random(seed)
    width = chance.choice([1, 2, 3])
    points = {n: [float(chance.randint(0, 6)) for _ in range(width)] for n in range(25)}
    order = ranked([*points.values()])
    assert sorted(order) == list(points)
    while points:
        layer = {int(name) for name in front({str(n): point for n, point in points.items()})}
        first, order = order[: len(layer)], order[len(layer) :]
        assert set(first) == layer
        assert points[first[0]] == min(points[n] for n in layer)
        for n in layer:
            del points[n]


def test_within_a_front_the_ends_come_first_and_then_the_middle() -> None:
    sizes = [1e6, 5e6, 2e6, 3e6, 4e6]
    points = [[-size, size] for size in sizes]
    assert [sizes[n] for n in ranked(points)] == [5e6, 1e6, 3e6, 2e6, 4e6]
    assert ranked([[2.0, 1.0], [1.0, math.nan], [1.0, math.inf], [1.0, 5.0]]) == [3, 0, 1, 2]  # not known is the worst


def test_a_trial_without_a_figure_is_not_on_the_front() -> None:
    assert front({"a": [1.0, float("inf")], "b": [2.0, 5.0]}) == ["b"]
    assert values_of({"valid/bits_per_dim": 3.0}, ("bits_per_dim", "seconds")) == [3.0, float("inf")]


def test_bits_per_dim_comes_first_and_must_be_there() -> None:
    assert checked(["seconds", "bits_per_dim"]) == ("bits_per_dim", "seconds")
    for names in (["seconds"], ["bits_per_dim", "memory"], ["bits_per_dim", "bits_per_dim"], []):
        with pytest.raises(ValueError, match="--objectives is"):
            checked(names)


def result(seen: int, value: float, parameters: float, seconds: float) -> dict[str, Any]:
    figures = {"valid/bits_per_dim": value, "train/parameters": parameters, "train/seconds": seconds}
    return {"images_seen": seen, "objective": value, **{f"metrics/{name}": v for name, v in figures.items()}}


@pytest.fixture
def plan(make: Callable[..., Plan]) -> Plan:
    return make("--trials", "5", "--images", "900", "--objectives", "bits_per_dim,parameters,seconds")


def searched(plan: Plan) -> tuple[OptunaSearcher, dict[str, TrialSpec]]:
    specs: dict[str, TrialSpec] = {}
    return OptunaSearcher(plan, open_study(plan, open_storage(plan.storage)), specs.__setitem__), specs


def test_each_end_is_told_and_the_front_is_optunas(plan: Plan) -> None:
    searcher, _ = searched(plan)
    study = searcher.study
    assert study.metric_names == ["bits/dim", "parameters", "seconds"]
    for trial_id in "abcde":
        searcher.suggest(trial_id)
        searcher.on_trial_result(trial_id, result(100, 6.0, 10.0, 1.0))
    searcher.on_trial_complete("a", result(900, 3.0, 500.0, 9.0))
    searcher.on_trial_complete("b", result(900, 4.0, 100.0, 5.0))
    searcher.on_trial_complete("c", result(900, 4.5, 200.0, 6.0))  # dominated by b
    searcher.on_trial_complete("d", result(300, 5.0, 10.0, 1.0))
    searcher.on_trial_complete("e", {"failed": "Diverged"})
    trials = study.get_trials()
    states = [TrialState.COMPLETE] * 3 + [TrialState.PRUNED, TrialState.FAIL]
    assert [trial.state for trial in trials] == states
    assert trials[0].values == [3.0, 500.0, 9.0]
    board = Board(5, 1)
    board.rows = {row.run: row for row in (row_of(trial, plan.base) for trial in trials)}
    ours = [row.run for row in pareto(board, plan.objectives)]
    assert ours == ["000", "001"]
    assert ours == [f"{trial.number:03d}" for trial in study.best_trials]
    board.rows["001"].unhealthy = "perplexity is 1, below 4"
    assert [row.run for row in pareto(board, plan.objectives)] == ["000", "002"]  # c is no longer beaten
    lines = pareto_table(board, plan.objectives).splitlines()
    assert lines[1].split()[:4] == ["trial", "bits/dim", "parameters", "seconds"]
    assert lines[3].split()[:4] == ["000", "3.0000", "500", "9.0"]


def test_every_objective_has_its_figure_in_the_table() -> None:
    metrics = dict.fromkeys(OBJECTIVES.values(), 0.25)
    board = Board(1, 1)
    board.rows["000"] = Row("000", "TPE", {}, 0, "sweep", 100, state="complete", metrics=metrics)
    lines = pareto_table(board, list(OBJECTIVES)).splitlines()
    assert lines[3].split() == ["000", "0.2500", "0", "0.2", "0.2500"]


def test_successive_halving_remembers_its_rungs_after_a_crash(plan: Plan) -> None:
    searcher, _ = searched(plan)
    for trial_id in "ab":
        searcher.suggest(trial_id)
    searcher.on_trial_result("a", result(100, 4.0, 1.0, 1.0))
    searcher.on_trial_result("a", result(200, 3.5, 1.0, 1.0))
    again, _ = searched(plan)
    assert history_of(again.study.get_trials()[0]) == {100: 4.0, 200: 3.5}
    for values, stopped in (([4.1, 1.0, 1.0], True), ([4.1, 1.0, math.inf], True), ([3.9, 9.0, 9.0], False)):
        assert again.rungs.stops(1, 100, values) == searcher.rungs.stops(1, 100, values) == stopped
    assert not again.rungs.stops(0, 120, [9.0, 1.0, 1.0])  # it had passed


def test_a_continued_sweep_decides_by_all_objectives_as_an_undisturbed_one(plan: Plan) -> None:
    searcher, _ = searched(plan)
    for trial_id, size in zip("abcd", (50.0, 40.0, 60.0, 70.0), strict=True):
        searcher.suggest(trial_id)
        searcher.on_trial_result(trial_id, result(100, size / 10, size, 1.0))
    again, _ = searched(plan)
    for candidate in (result(100, 8.0, 10.0, 1.0), result(100, 8.0, 65.0, 1.0)):
        values = searcher.values(candidate)
        assert values == again.values(candidate)
        assert again.rungs.stops(4, 100, values) == searcher.rungs.stops(4, 100, values) == (values[1] == 65.0)


def test_a_study_of_several_objectives_goes_on_after_many_ends(make: Callable[..., Plan]) -> None:
    """Among them stopped trials, which Optuna cannot rank where there are several objectives."""
    plan = make("--trials", "25", "--images", "900", "--objectives", "bits_per_dim,parameters")
    searcher, specs = searched(plan)
    for number in range(25):
        trial_id = str(number)
        searcher.suggest(trial_id)
        value = abs(specs[trial_id].point["model.beta"] - 1)
        searcher.on_trial_result(trial_id, result(100, value, number % 7, 1.0))
        seen = 300 if number % 3 else 900
        searcher.on_trial_complete(trial_id, result(seen, value, number % 7, 1.0))
    assert len({tuple(spec.point.values()) for spec in specs.values()}) == 25


def test_other_objectives_under_the_same_name_are_refused(make: Callable[..., Plan], plan: Plan) -> None:
    open_study(plan, open_storage(plan.storage))
    other = make("--images", "900")
    with pytest.raises(ValueError, match="objectives bits_per_dim, parameters, seconds -> None"):
        open_study(other, open_storage(other.storage))
