"""TPE's short memory: nothing changes while it suffices, and the best are never forgotten."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from sweeps import _tpe
from sweeps._tpe import Tpe, View, seen_of

SPACE = {
    "x": optuna.distributions.FloatDistribution(0, 1),
    "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
}


def study_of(count: int, broken: int = -1) -> optuna.Study:
    """Trials that are the better the nearer x is to 0.3; the best ones came first, two in three were stopped."""
    study = optuna.create_study()
    for number in range(count):
        x = 0.3 + 0.7 * number / count
        state = TrialState.PRUNED if number % 3 else TrialState.COMPLETE
        params = {"x": x, "kind": "ab"[number % 2]}
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=SPACE,
                value=x,
                state=state,
                intermediate_values={1: x},
                user_attrs={"codebook": "a limit is broken"} if number == broken else {},
            )
        )
    return study


def choose(sampler: optuna.samplers.TPESampler, study: optuna.Study) -> dict[str, object]:
    study.sampler = sampler
    trial = study.ask()
    point = {"x": trial.suggest_float("x", 0, 1), "kind": trial.suggest_categorical("kind", ["a", "b"])}
    study.tell(trial, state=TrialState.FAIL)
    return point


@pytest.mark.parametrize("seed", range(5))
def test_a_short_study_is_seen_whole(seed: int) -> None:
    settings = {"seed": seed, "multivariate": False, "constant_liar": True}
    study = study_of(60)
    assert seen_of(study) is study
    own, optunas = choose(Tpe(**settings), study), choose(optuna.samplers.TPESampler(**settings), study)
    assert own == optunas


def test_of_a_long_study_the_best_and_the_latest_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tpe, "BEST", 10)
    monkeypatch.setattr(_tpe, "LATEST", 20)
    study = study_of(100)
    running = study.ask()
    view = seen_of(study)
    assert isinstance(view, View)
    numbers = [trial.number for trial in view._get_trials()]
    assert numbers == [*range(0, 30, 3), *range(80, 100), running.number]
    assert 0 not in [trial.number for trial in seen_of(study_of(100, broken=0))._get_trials()]


def test_it_proposes_what_was_good_though_that_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tpe, "BEST", 50)
    monkeypatch.setattr(_tpe, "LATEST", 100)
    study = study_of(600)
    chosen = [choose(Tpe(seed=seed, multivariate=False), study)["x"] for seed in range(20)]
    assert sum(0.25 <= x <= 0.45 for x in chosen) >= 15  # type: ignore[operator]
