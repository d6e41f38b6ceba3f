"""Importance: what decided comes first, also among trials that were stopped early."""

from __future__ import annotations

import json
import random
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from sweeps._importance import importance

SPACE = {"decides": FloatDistribution(0, 1), "does not": FloatDistribution(0, 1)}


def study_of(stopped: bool, trials: int = 60) -> optuna.Study:
    """Random points; where trials are stopped, only those with a small value of what decides come to the end."""
    chance = random.Random(0)
    study = optuna.create_study()
    for _ in range(trials):
        params = {name: chance.random() for name in SPACE}
        value = params["decides"]
        early = stopped and value > 0.3
        # What is worth less early on must not be taken for better than a complete trial.
        told = {10: value - 1} if early else {10: value, 90: value}
        study.add_trial(
            create_trial(
                params=params,
                distributions=SPACE,
                state=TrialState.PRUNED if early else TrialState.COMPLETE,
                value=None if early else value,
                intermediate_values=told,
                user_attrs={"record": json.dumps({"images_seen": max(told)})},
            )
        )
    return study


@pytest.mark.parametrize("stopped", [False, True])
def test_what_decides_has_the_larger_share(stopped: bool) -> None:
    shares = importance(study_of(stopped))
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares) == ["decides", "does not"]
    assert shares["decides"] > 0.8


def test_few_trials_say_nothing() -> None:
    assert importance(study_of(False, trials=9)) == {}


def test_failed_trials_and_those_in_flight_have_no_part() -> None:
    study = study_of(False)
    before = importance(study)
    study.add_trial(create_trial(params={}, distributions={}, state=TrialState.FAIL))
    study.ask(SPACE)
    assert importance(study) == before


def test_the_command_prints_the_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sweeps.__main__ import main
    from vqvae_core.overrides import flatten
    from vqvae_core.presets import tiny

    storage = f"sqlite:///{tmp_path}/optuna.db"
    study = optuna.create_study(study_name="mine", storage=storage)
    study.set_user_attr("identity", json.dumps({"sweep": "question", "data": "", **flatten(tiny())}))
    study.add_trials(study_of(True).get_trials())
    main(["importance", "mine", "--storage", storage, "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("What told the best trials from the others: decides ")
    main(["importance", "mine", "--storage", storage, "--out", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["importance"] == pytest.approx(importance(study))
