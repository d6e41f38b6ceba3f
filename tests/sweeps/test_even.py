"""The first points of a search: every part of each dimension has its share of them, and a crash changes none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from sweeps._even import STARTUP, coordinates, value_at
from sweeps._plan import Plan
from sweeps._search import OptunaSearcher, TrialSpec
from sweeps._space import Sweep, choice, integer, log_uniform, only_if, uniform
from sweeps._study import open_storage, open_study

SPACE = {
    "train.lr": log_uniform(1e-4, 1e-2),
    "train.batch_size": choice(16, 32, 64, 128),
    "model.residual_blocks": integer(1, 2),
    "model.quantizer": choice("ema", "gradient"),
    "model.ema_decay": only_if("model.quantizer", ["ema"], uniform(0.9, 0.98)),
}


@pytest.mark.parametrize("seed", range(5))
def test_sixteen_points_have_one_in_each_sixteenth_and_one_in_each_cell_of_four_by_four(seed: int) -> None:
    points = [coordinates(5, seed, number) for number in range(16)]
    for dimension in zip(*points, strict=True):
        assert sorted(math.floor(16 * share) for share in dimension) == list(range(16))
    assert len({(math.floor(4 * a), math.floor(4 * b)) for a, b, *_ in points}) == 16
    assert points[3] == coordinates(5, seed, 3) != coordinates(5, seed + 1, 3)


@pytest.mark.parametrize(
    ("distribution", "least", "middle", "most"),
    [
        (CategoricalDistribution(["a", "b", "c"]), "a", "b", "c"),
        (IntDistribution(1, 9, step=4), 1, 5, 9),
        (FloatDistribution(1e-4, 1e-2, log=True), 1e-4, 1e-3, 1e-2),
        (FloatDistribution(-1.0, 3.0), -1.0, 1.0, 3.0),
    ],
)
def test_shares_reach_from_one_end_to_the_other(
    distribution: BaseDistribution, least: object, middle: object, most: object
) -> None:
    found = [value_at(distribution, share) for share in (0.0, 0.5, 1 - 2**-53)]
    assert found == [pytest.approx(value) if isinstance(value, float) else value for value in (least, middle, most)]
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in found)


def searcher_of(plan: Plan) -> tuple[OptunaSearcher, dict[str, TrialSpec]]:
    specs: dict[str, TrialSpec] = {}
    return OptunaSearcher(plan, open_study(plan, open_storage(plan.storage)), specs.__setitem__), specs


def result(plan: Plan, value: float) -> dict[str, object]:
    return {"images_seen": plan.base.train.images, "objective": value}


def test_a_search_begins_evenly_and_looks_at_its_values_after_sixteen_ends(make: Callable[..., Plan]) -> None:
    plan = make("--trials", "40", sweep=Sweep("even", "?", SPACE, known={}))
    searcher, specs = searcher_of(plan)
    kinds = []
    for number in range(STARTUP + 1):
        searcher.suggest(str(number))
        kinds.append(type(searcher.study.sampler).__name__)
        searcher.on_trial_complete(str(number), result(plan, float(number)))
    assert kinds == ["Evenly"] * STARTUP + ["Tpe"]
    assert [specs[str(number)].origin for number in range(STARTUP + 1)] == ["spread evenly"] * STARTUP + ["TPE"]
    points = [specs[str(number)].point for number in range(STARTUP)]
    assert set(Counter(point["train.batch_size"] for point in points).values()) == {4}
    assert set(Counter(point["model.residual_blocks"] for point in points).values()) == {8}
    assert all(("model.ema_decay" in point) == (point["model.quantizer"] == "ema") for point in points)


def test_a_trial_that_a_killed_driver_had_not_drawn_gets_the_point_that_it_would_have_had(
    make: Callable[..., Plan],
) -> None:
    undisturbed, disturbed = (
        make("--trials", "9", "--name", name, sweep=Sweep("even", "?", SPACE)) for name in ("one", "two")
    )
    searcher, before = searcher_of(undisturbed)
    for number in range(6):
        searcher.suggest(str(number))
    searcher, _ = searcher_of(disturbed)
    for number in range(4):
        searcher.suggest(str(number))
    searcher.study.sampler = optuna.samplers.RandomSampler()
    searcher.study.ask()  # and then it was killed
    searcher, after = searcher_of(disturbed)
    for number in range(6):
        searcher.suggest(str(number))
    assert [after[str(n)].point for n in range(6)] == [before[str(n)].point for n in range(6)]
    assert all(trial.state == TrialState.RUNNING for trial in searcher.study.get_trials())
