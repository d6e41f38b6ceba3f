"""A finite space is searched without repeats, to its last point."""

from __future__ import annotations

import math
from collections.abc import Callable

import optuna
import pytest

from sweeps._plan import Plan
from sweeps._search import OptunaSearcher, TrialSpec
from sweeps._space import Sweep, choice, integer, log_uniform, only_if
from sweeps._study import open_storage, open_study
from sweeps._unseen import points, unseen

FINITE = Sweep(
    "finite",
    "?",
    {
        "model.quantizer": choice("gradient", "ema"),
        "model.ema_decay": only_if("model.quantizer", ["ema"], choice(0.9, 0.95, 0.99)),
        "model.residual_blocks": integer(0, 4),
    },
    known={"one": {"model.quantizer": "gradient", "model.residual_blocks": 2}},
)
ALL = 5 + 3 * 5


def search(plan: Plan, study: optuna.Study, trials: int) -> list[str]:
    """Ask for so many trials, tell all but the last of each three, and return their points as text."""
    specs: dict[str, TrialSpec] = {}
    searcher = OptunaSearcher(plan, study, specs.__setitem__)
    for number in range(trials):
        name = str(number)
        searcher.suggest(name)
        if number % 3 != 2:
            searcher.on_trial_result(name, {"images_seen": 900, "objective": 1.0 / (1 + number)})
            searcher.on_trial_complete(name, {"images_seen": 900, "objective": 1.0 / (1 + number)})
    return [str(spec.point) for spec in specs.values()]


@pytest.mark.parametrize("seed", ["0", "1"])
def test_every_point_of_a_finite_space_comes_once_before_any_comes_again(make: Callable[..., Plan], seed: str) -> None:
    plan = make("--trials", str(ALL + 3), "--images", "900", "--seed", seed, sweep=FINITE)
    found = search(plan, open_study(plan, open_storage(plan.storage)), ALL + 3)
    assert len(set(found[:17])) == 17  # the last few of a space are found by chance
    assert len(found) == ALL + 3


def test_a_driver_that_was_killed_between_a_choice_and_its_trial_leaves_the_choice_to_the_next(
    make: Callable[..., Plan],
) -> None:
    plan = make("--trials", "9", "--images", "900", sweep=FINITE)
    study = open_study(plan, open_storage(plan.storage))
    before = search(plan, study, 4)
    chosen = {"model.quantizer": "ema", "model.ema_decay": 0.99, "model.residual_blocks": 4}
    if str(chosen) in before:
        chosen["model.residual_blocks"] = 0
    study.enqueue_trial(chosen)
    searcher = OptunaSearcher(plan, study, lambda name, spec: after.append(spec))
    after: list[TrialSpec] = []
    for number in range(6):
        searcher.suggest(f"again {number}")
    assert str(chosen) in [str(spec.point) for spec in after]
    assert len({spec.number for spec in after}) == 6
    assert len(study.trials) == 9


def test_a_continuous_space_needs_none_of_this(make: Callable[..., Plan]) -> None:
    space = Sweep("lr", "?", {"train.lr": log_uniform(1e-4, 1e-2), "model.residual_blocks": integer(0, 4, step=2)})
    assert points(space) == math.inf and points(FINITE) == 2 * 3 * 5
    plan = make("--trials", "3", sweep=space)
    study = open_study(plan, open_storage(plan.storage))
    assert unseen(study, space, {}, lambda attempt: optuna.samplers.RandomSampler(attempt)) is None
