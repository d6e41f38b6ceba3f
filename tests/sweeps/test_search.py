"""The searcher tells Optuna what happened, and goes on where the last driver stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps._plan import Plan
from sweeps._search import OptunaSearcher, TrialSpec
from sweeps._study import fresh_name, open_storage, open_study


def searcher_of(plan: Plan, study: optuna.Study) -> tuple[OptunaSearcher, dict[str, TrialSpec]]:
    specs: dict[str, TrialSpec] = {}
    return OptunaSearcher(plan, study, specs.__setitem__), specs


def result(seen: int, value: float) -> dict[str, Any]:
    return {"images_seen": seen, "objective": value, "metrics/valid/bits_per_dim": value}


@pytest.fixture
def plan(make: Callable[..., Plan]) -> Plan:
    return make("--trials", "6", "--images", "900")


@pytest.fixture
def study(plan: Plan) -> optuna.Study:
    return open_study(plan, open_storage(plan.storage))


def test_known_points_come_first_and_the_rest_is_sampled(plan: Plan, study: optuna.Study) -> None:
    searcher, specs = searcher_of(plan, study)
    for trial_id in "abcdef":
        assert searcher.suggest(trial_id)["experiment"]["model.type"] == "vqvae"  # type: ignore[index]
    assert searcher.suggest("g") == Searcher.FINISHED
    assert [specs[i].origin for i in "abc"] == ["the report", "the original paper", "TPE"]
    assert specs["a"].point == {"model.beta": 1.0, "train.lr": 3e-4}
    assert specs["a"].experiment.train.lr == 3e-4
    assert len({spec.experiment.train.lr for spec in specs.values()}) == 6


def test_each_end_has_its_own_state_and_its_values_on_the_way(plan: Plan, study: optuna.Study) -> None:
    searcher, _ = searcher_of(plan, study)
    for trial_id in "abcd":
        searcher.suggest(trial_id)
    searcher.on_trial_result("a", result(300, 5.0))
    searcher.on_trial_complete("a", result(900, 4.0))
    searcher.on_trial_complete("b", result(100, 6.0))
    searcher.on_trial_complete("c", {"failed": "Diverged: the loss", "done": True})
    searcher.on_trial_complete("d", error=True)
    trials = study.get_trials()
    assert [t.state for t in trials[:4]] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert trials[0].intermediate_values == {300: 5.0, 900: 4.0}
    assert trials[1].intermediate_values == {100: 6.0}
    assert trials[0].value == 4.0
    assert '"reason": "ASHA stopped it at 100 of 900 images"' in trials[1].user_attrs["record"]
    searcher.on_trial_complete("a", result(900, 9.0))  # told once is told
    assert study.get_trials()[0].value == 4.0


def test_nan_is_a_failure_and_not_a_zombie(plan: Plan, study: optuna.Study) -> None:
    searcher, _ = searcher_of(plan, study)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(100, float("nan")))
    searcher.on_trial_complete("a", result(900, float("nan")))
    assert study.get_trials()[0].state == TrialState.FAIL


def test_trials_in_flight_go_on_under_their_numbers_with_their_points(plan: Plan, study: optuna.Study) -> None:
    searcher, before = searcher_of(plan, study)
    for trial_id in "abc":
        searcher.suggest(trial_id)
    searcher.on_trial_complete("b", result(900, 4.0))
    again = open_study(plan, open_storage(plan.storage))
    searcher, after = searcher_of(plan, again)
    for trial_id in "xyzuv":
        searcher.suggest(trial_id)
    assert [after[i].number for i in "xyzuv"] == [0, 2, 3, 4, 5]
    assert after["x"].point == before["a"].point
    assert after["y"].point == before["c"].point
    assert after["y"].folder == before["c"].folder
    assert searcher.suggest("w") == Searcher.FINISHED


def test_a_continued_study_does_not_repeat_its_points(plan: Plan, study: optuna.Study) -> None:
    points = []
    for number in range(6):
        searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))
        searcher.suggest("a")
        searcher.on_trial_complete("a", result(900, float(number)))
        points.append(tuple(specs["a"].point.values()))
    assert len(set(points)) == 6


def test_the_same_history_gives_the_same_next_point(make: Callable[..., Plan]) -> None:
    found = []
    for name in ("one", "two"):
        plan = make("--trials", "9", "--name", name)
        searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))
        for number in range(9):
            searcher.suggest(str(number))
            searcher.on_trial_complete(str(number), result(plan.base.train.images, number / 10))
        found.append([spec.point for spec in specs.values()])
    assert found[0] == found[1]


def test_another_question_under_the_same_name_is_refused_with_the_difference(make: Callable[..., Plan]) -> None:
    first = make("--images", "900")
    open_study(first, open_storage(first.storage))
    other = make("--images", "1800", "--model.residual_blocks", "3")
    with pytest.raises(ValueError, match=r"model\.residual_blocks 2 -> 3.*train\.images 900 -> 1800") as caught:
        open_study(other, open_storage(other.storage))
    assert "\n" not in str(caught.value)


def test_fresh_takes_the_next_free_name_and_leaves_the_old_study(make: Callable[..., Plan]) -> None:
    plan = make()
    storage = open_storage(plan.storage)
    open_study(plan, storage)
    second = fresh_name(plan, storage)
    open_study(second, storage)
    third = fresh_name(plan, storage)
    assert (second.name, third.name) == ("question-digits-2", "question-digits-3")
    assert second.folder.name == "question-digits-2"
    assert {s.study_name for s in optuna.get_all_study_summaries(storage)} == {plan.name, second.name}


def test_a_conditional_space_goes_through_to_the_experiment(make: Callable[..., Plan]) -> None:
    from sweeps._space import Sweep, choice, only_if, uniform

    space = {
        "model.quantizer": choice("ema", "gradient"),
        "model.ema_decay": only_if("model.quantizer", ["ema"], uniform(0.9, 0.95)),
    }
    plan = make("--trials", "12", sweep=Sweep("conditional", "?", space))
    searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))
    for number in range(12):
        searcher.suggest(str(number))
    for spec in specs.values():
        swept = spec.experiment.model.quantizer == "ema"
        assert swept == (spec.experiment.model.ema_decay != 0.99)
    assert {spec.experiment.model.quantizer for spec in specs.values()} == {"ema", "gradient"}
