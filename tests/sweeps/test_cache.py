"""A trial that is complete in the tracker is taken from there: by another sweep, by a replicate, and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from sweeps._cache import Cache
from sweeps._launch import launch
from sweeps._plan import Plan
from vqvae_core.overrides import run_key, with_overrides

SMALL = ["--dataset", "digits", "--train.calibration_images", "64", "--model.hidden", "8"]
SMALL += ["--model.num_codes", "16", "--model.code_dim", "4"]


@pytest.fixture
def client(tracked: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tracked}/mlflow.db")


@pytest.fixture
def plan(make: Callable[..., Plan]) -> Plan:
    return replace(make("--images", "400"), data_fingerprint="these images")


@pytest.fixture
def cache(tracked: Path, plan: Plan) -> Iterator[Cache]:
    yield Cache(f"sqlite:///{tracked}/mlflow.db", "ours-00000000", tracked / "runs", "these images", lambda: False)


def tell(client: MlflowClient, plan: Plan, state: str = "complete", seen: int = 400, **tags: str) -> str:
    """A run in the tracker with two reports."""
    experiment = client.get_experiment_by_name("digits/other")
    number = experiment.experiment_id if experiment else client.create_experiment("digits/other")
    own = {"trial.key": run_key(plan.base, "these images"), "trial.state": state}
    own |= {"sweep.id": "theirs-0123abcd", "sweep.run": "007"} | {k.replace("_", "."): v for k, v in tags.items()}
    run = client.create_run(number, tags=own)
    for step, value in ((200, 4.0), (seen, 3.5)):
        metrics = {"valid/bits_per_dim": value, "train/loss": value / 2, "test/bits_per_dim": 9.0}
        client.log_batch(run.info.run_id, [Metric(name, v, 0, step) for name, v in metrics.items()])
    return str(run.info.run_id)


def test_a_complete_run_of_the_same_key_is_found_in_any_experiment(
    client: MlflowClient, plan: Plan, cache: Cache
) -> None:
    assert cache.find(plan.base, "000") is None
    run_id = tell(client, plan)
    found = cache.find(plan.base, "000")
    assert found is not None
    assert (found.run_id, found.origin) == (run_id, "trial 007 of theirs")
    assert found.reports == [
        (200, {"valid/bits_per_dim": 4.0, "train/loss": 2.0}),
        (400, {"valid/bits_per_dim": 3.5, "train/loss": 1.75}),
    ]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"model.beta": 0.7}, {"train.images": 800}, {"train.batch_size": 16}], ids=str
)
def test_another_configuration_seed_or_budget_is_not(
    client: MlflowClient, plan: Plan, cache: Cache, change: dict[str, float]
) -> None:
    tell(client, plan)
    assert cache.find(plan.base, "000") is not None
    assert cache.find(with_overrides(plan.base, change), "000") is None


def test_what_was_not_finished_is_not(client: MlflowClient, plan: Plan, cache: Cache) -> None:
    for state in ("pruned", "failed", "stopped"):
        tell(client, plan, state)
    tell(client, plan, "complete", seen=300)  # its last report was refused
    assert cache.find(plan.base, "000") is None


def test_a_trial_does_not_stand_for_itself_but_for_another_of_its_sweep(
    client: MlflowClient, plan: Plan, cache: Cache
) -> None:
    tell(client, plan, sweep_id="ours-00000000", sweep_run="004")
    assert cache.find(plan.base, "004") is None
    assert cache.find(plan.base, "005") is not None


def test_a_tracker_that_is_away_has_nothing(client: MlflowClient, plan: Plan, cache: Cache, tracked: Path) -> None:
    tell(client, plan)
    cache.away = lambda: True
    assert cache.find(plan.base, "000") is None
    nobody = Cache("http://127.0.0.1:9", "ours-00000000", tracked, "these images", lambda: False)
    assert nobody.find(plan.base, "000") is None


def runs_of(folder: Path, experiment: str, sweep: str) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    return {r.data.tags["sweep.run"]: r for r in runs if r.data.tags["sweep.id"].startswith(f"{sweep}-")}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_second_sweep_trains_only_what_the_first_did_not(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.beta_lr import sweep

    arguments = [*SMALL, "--images", "400", "--scheduler", "none", "--concurrent", "1"]
    launch(sweep, [*arguments, "--trials", "3", "--name", "first", "--seeds", "2", "--confirm", "1"])
    first = capsys.readouterr().out
    assert "taken from" not in first

    launch(sweep, [*arguments, "--trials", "4", "--name", "second", "--seeds", "2", "--confirm", "1"])
    second = capsys.readouterr().out
    for number in range(3):
        assert f"taken from trial {number:03d} of first" in second
    assert second.count("starts") <= 2  # trial 003, and a replicate where 003 is the best
    before, after = runs_of(tracked, "digits/beta_lr", "first"), runs_of(tracked, "digits/beta_lr", "second")
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    for run in ("000", "001", "002"):
        assert after[run].data.tags["cache.run"] == before[run].info.run_id
        assert after[run].data.tags["cache.from"] == f"trial {run} of first"
        assert after[run].data.tags["status.reason"].startswith(f"taken from trial {run} of first")
        points = [
            [(m.step, m.value) for m in client.get_metric_history(r.info.run_id, "valid/bits_per_dim")]
            for r in (before[run], after[run])
        ]
        assert points[0] == points[1]
    storage = f"sqlite:///{tracked}/optuna.db"
    theirs, ours = (optuna.load_study(study_name=name, storage=storage).trials for name in ("first", "second"))
    assert [t.value for t in ours[:3]] == [t.value for t in theirs]
    assert [t.intermediate_values for t in ours[:3]] == [t.intermediate_values for t in theirs]

    launch(sweep, [*arguments, "--trials", "4", "--name", "second", "--seeds", "2", "--confirm", "1"])
    again = capsys.readouterr().out
    assert again[again.index("rank") :] == second[second.index("rank") :]

    # All of a sweep, its winner's test figures from the checkpoint that came along; and nothing of it.
    launch(sweep, [*arguments, "--trials", "3", "--name", "third"])
    third = capsys.readouterr().out
    assert "starts" not in third and "trained again" not in third
    assert third[third.index("best: trial") :].split("\n")[0] in first or "best: trial" in third
    launch(sweep, [*arguments, "--trials", "3", "--name", "fourth", "--no-cache"])
    fourth = capsys.readouterr().out
    assert fourth.count("starts") == 3 and "taken from" not in fourth
    assert fourth[fourth.index("best: trial") :].split("\n")[0] == third[third.index("best: trial") :].split("\n")[0]
