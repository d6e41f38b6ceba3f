"""A sweep of which no trial comes to its end says so, and its exit status too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow import MlflowClient

from sweeps._events import NOTHING, Events
from sweeps._launch import launch
from sweeps._search import OptunaSearcher
from sweeps._space import Sweep, choice
from sweeps._trial import TrialActor

SMALL = ["--dataset", "digits", "--train.calibration_images", "64", "--model.hidden", "8"]


def without_tune(
    plan: object, searcher: OptunaSearcher, count: int, scheduler: object, events: Events, *_: Any
) -> None:
    """Trials one after the other in this process, told of to the same listeners."""
    for number in range(count):
        trial = cast(Any, SimpleNamespace(trial_id=str(number), last_result={}))
        actor = object.__new__(TrialActor)
        actor.reset_config(searcher.suggest(trial.trial_id))
        events.on_trial_start(0, [], trial)
        while not trial.last_result.get("done"):
            trial.last_result = actor.step()
            searcher.on_trial_result(trial.trial_id, trial.last_result)
            events.on_trial_result(0, [], trial, trial.last_result)
        searcher.on_trial_complete(trial.trial_id, trial.last_result)
        events.on_trial_complete(0, [], trial)


def test_no_trial_that_is_complete_is_exit_status_1(
    tracked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps._launch.execute", without_tune)
    monkeypatch.setattr("sweeps._launch.connect", lambda *_, **__: None)
    monkeypatch.setattr("sweeps._preflight.short", lambda plan: "")
    sweep = Sweep("broken", "?", {"train.lr": choice(1e30, 1e31)}, known={})
    said = []
    for _ in range(2):  # the second time, there is nothing left to train
        with pytest.raises(SystemExit) as caught:
            launch(sweep, [*SMALL, "--images", "400", "--trials", "2"])
        assert caught.value.code == NOTHING == 1
        said.append(capsys.readouterr().out)
    assert said[0].count("failed: Diverged") >= 2 and "starts" not in said[1]
    assert all("No trial was completed: there is no winner." in text for text in said)
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    found = client.get_experiment_by_name("digits/broken")
    assert found is not None
    runs = {run.info.run_name: run for run in client.search_runs([found.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "broken-digits": "FINISHED",
        "000": "FAILED",
        "001": "FAILED",
    }
    assert runs["broken-digits"].data.tags["status.reason"] == "no trial was completed"
