"""The searcher tells Optuna what happened, and goes on where the last driver stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps._board import Board
from sweeps._journal import Journal
from sweeps._plan import Plan
from sweeps._resume import restore, row_of
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
    assert [specs[i].origin for i in "abc"] == ["the report", "the original paper", "spread evenly"]
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


def test_a_conditional_space_goes_through_to_the_end_of_a_sweep(make: Callable[..., Plan]) -> None:
    """Known points, study, continued study, ranking and importance, all with points of different dimensions."""
    from sweeps._importance import importance, importance_text
    from sweeps._ranking import ranking
    from sweeps._space import Sweep, choice, log_uniform, only_if

    space = {
        "model.quantizer": choice("ema", "gradient"),
        "model.ema_decay": only_if("model.quantizer", ["ema"], choice(0.9, 0.95)),
        "train.lr": log_uniform(1e-4, 1e-2),
    }
    sweep = Sweep("conditional", "?", space)
    plan = make("--trials", "24", sweep=sweep)
    study = open_study(plan, open_storage(plan.storage))
    assert importance_text(study) == "What mattered cannot be said from fewer than 10 trials."
    points = []
    for number in range(24):
        searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))  # a new driver each time
        searcher.suggest("x")
        point = specs["x"].point
        points.append(point)
        good = point["model.quantizer"] == "ema" and point["model.ema_decay"] == 0.95
        seen = plan.base.train.images if good or number % 2 else plan.base.train.images // 9
        searcher.on_trial_complete("x", result(seen, 3.0 if good else 5.0 + number / 100))
    assert points[0] == {"model.quantizer": "gradient", "train.lr": 3e-4}
    assert {len(point) for point in points} == {2, 3}
    board = Board(24, 1)
    board.rows = {row.run: row for row in (row_of(trial, plan.base) for trial in study.get_trials())}
    lines = ranking(board, 9.0).splitlines()
    assert lines[0].split()[2:5] == ["quantizer", "ema_decay", "lr"]
    shares = importance(study)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == set(space)
    assert importance_text(study).startswith(f"What told the best trials from the others: {next(iter(shares))} ")


def test_a_known_point_that_a_killed_driver_did_not_get_to_enqueue_is_tried(plan: Plan, study: optuna.Study) -> None:
    study.enqueue_trial({"model.beta": 1.0, "train.lr": 3e-4}, user_attrs={"origin": "the report"})
    searcher, specs = searcher_of(plan, study)
    for trial_id in "abc":
        searcher.suggest(trial_id)
    assert [specs[i].origin for i in "abc"] == ["the report", "the original paper", "spread evenly"]


def test_a_trial_that_a_killed_driver_had_asked_for_but_not_drawn_is_drawn_now(plan: Plan, study: optuna.Study) -> None:
    searcher_of(plan, study)
    for _ in range(3):
        study.ask()  # running, without any parameter
    searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))
    for trial_id in "abcdef":
        searcher.suggest(trial_id)
        searcher.on_trial_complete(trial_id, result(900, 4.0))
    assert [specs[i].number for i in "abcdef"] == list(range(6))
    assert specs["a"].point == {"model.beta": 1.0, "train.lr": 3e-4}  # it was the report's
    assert len({tuple(spec.point.values()) for spec in specs.values()}) == 6
    assert all(trial.state == TrialState.COMPLETE for trial in study.get_trials())


def test_two_sweeps_on_one_database_do_not_see_each_other(make: Callable[..., Plan]) -> None:
    plans = [make("--trials", "8", "--name", name) for name in ("one", "two")]
    assert plans[0].storage == plans[1].storage
    images = plans[0].base.train.images
    both = [searcher_of(plan, open_study(plan, open_storage(plan.storage))) for plan in plans]
    for number in range(8):  # in turn, as two drivers at the same time
        for offset, (searcher, _) in enumerate(both):
            searcher.suggest(str(number))
            searcher.on_trial_result(str(number), result(100, 9.0 + offset))
            searcher.on_trial_complete(str(number), result(images, number + 100.0 * offset))
    for offset, (searcher, specs) in enumerate(both):
        assert [spec.number for spec in specs.values()] == list(range(8))
        assert [trial.value for trial in searcher.study.get_trials()] == [n + 100.0 * offset for n in range(8)]
        assert searcher.suggest("one too many") == Searcher.FINISHED
    # The same seed and the same ends give the same points: what the other one did has no part in it.
    assert [s.point for s in both[0][1].values()][:5] == [s.point for s in both[1][1].values()][:5]


def killed_after(calls: int, monkeypatch: pytest.MonkeyPatch, owner: type, *names: str) -> None:
    """From now on, the driver is killed as it calls one of some methods once more than so many times."""
    left = iter(range(calls))

    def until_then(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return method(*args, **more)

        return call

    for name in names:
        monkeypatch.setattr(owner, name, until_then(getattr(owner, name)))


@pytest.mark.parametrize("drawn", [0, 1])
@pytest.mark.parametrize("ended", [4, 17], ids=["evenly", "by TPE"])
def test_a_point_that_a_killed_driver_had_half_drawn_is_what_it_would_have_been(
    ended: int, drawn: int, make: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("whole", "broken"):
        plan = make("--trials", "20", "--name", name)
        searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))
        for number in range(ended):
            searcher.suggest(str(number))
            searcher.on_trial_complete(str(number), result(plan.base.train.images, number / 10))
        if name == "broken":
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                killed_after(drawn, patch, optuna.Trial, "suggest_float")
                searcher.suggest("x")
            searcher, specs = searcher_of(plan, open_study(plan, open_storage(plan.storage)))
        searcher.suggest("x")
        assert specs["x"].number == ended
        found.append(specs["x"].point)
    assert found[0] == found[1]


@pytest.mark.parametrize("done", range(3))
def test_a_study_that_a_killed_driver_had_half_made_is_made(
    done: int, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_after(done, patch, optuna.Study, "set_user_attr", "set_metric_names")
        open_study(plan, open_storage(plan.storage))
    study = open_study(plan, open_storage(plan.storage))
    assert {"identity", "sweep.id"} <= set(study.user_attrs)
    assert study.metric_names == ["bits/dim"]
    assert open_study(plan, open_storage(plan.storage)).user_attrs == study.user_attrs


def test_an_end_that_a_killed_driver_told_the_study_alone_is_told_the_tracker_too(plan: Plan) -> None:
    study, journal = open_study(plan, open_storage(plan.storage)), Journal(plan.folder)
    searcher = OptunaSearcher(plan, study, lambda _, spec: journal.add("start", spec.run))
    folder = Path(searcher.suggest("a")["folder"])
    folder.mkdir(parents=True)
    (folder / "reconstructions.png").touch()
    searcher.on_trial_complete("a", result(900, 4.0))
    for _ in range(2):
        restore(plan, study, Board(6, 1), journal)
        events = [event for _, event in journal.untold()]
        assert [event["kind"] for event in events] == ["start", "report", "artifact", "end"]
    assert events[1]["metrics"] == {"valid/bits_per_dim": 4.0}
    assert events[2]["path"] == str(folder / "reconstructions.png")
    assert events[3]["tags"]["status.reason"] == "trained on all 900 images"
    journal.close()
