"""A sweep's budget: what may be written, how it adds up, and a sweep that stops at it and goes on with more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps import _budget
from sweeps._budget import Budget, Meter
from sweeps._launch import launch
from sweeps._settings import parse
from sweeps._space import Sweep


@pytest.mark.parametrize(
    ("text", "seconds", "of_gpus"),
    [
        ("45s", 45, False),
        ("90m", 5400, False),
        ("4h", 14400, False),
        ("1.5h", 5400, False),
        ("2d", 172800, False),
        ("20gpuh", 72000, True),
    ],
)
def test_a_budget_is_a_time_or_gpu_hours(text: str, seconds: float, of_gpus: bool) -> None:
    budget = Budget.parse(text)
    assert (budget.seconds, budget.of_gpus) == (seconds, of_gpus)


@pytest.mark.parametrize("text", ["", "4", "h", "-1h", "0h", "4 hours", "nan h", "infh", "4h30", "1e3s"])
def test_any_other_is_one_line_that_says_what_is_allowed(
    text: str, question: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(question, [f"--budget={text}"], "sweeps/question.py")
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"argument --budget: {text!r}; allowed is a number > 0 and s, m, h, d or gpuh" in said


def test_gpu_hours_need_a_gpu(make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match="--budget is '20gpuh', but there is no GPU on this machine"):
        make("--budget", "20gpuh")


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_budget, "time", clock)
    return clock


def test_time_adds_up_over_drivers_and_rests_between_them(tmp_path: Path, clock: Clock) -> None:
    budget = Budget.parse("100s")
    for _ in range(2):
        meter = Meter(tmp_path, budget, 0, lambda: 1)
        for _ in range(5):
            meter.tick()
            clock.now += 10
        meter.tick()
        assert meter.spent == (meter.seconds >= 100)
        meter.rest()
        clock.now += 1000
    assert meter.seconds == 100
    assert meter.spent
    assert meter.reason == "the budget of 100s is spent"
    assert not Meter(tmp_path, Budget.parse("101s"), 0, lambda: 1).spent
    assert not Meter(tmp_path, None, 0, lambda: 1).spent


def test_gpu_hours_are_those_of_all_trials_that_run(tmp_path: Path, clock: Clock) -> None:
    running = 4
    meter = Meter(tmp_path, Budget.parse("1gpuh"), 0.5, lambda: running)
    meter.tick()
    clock.now += 1000
    meter.tick()
    running = 1
    clock.now += 1000
    meter.tick()
    assert meter.gpu_seconds == 4 * 0.5 * 1000 + 0.5 * 1000
    assert not meter.spent
    clock.now += 2200
    meter.tick()
    assert meter.spent


def test_a_killed_driver_loses_no_more_than_since_the_last_save(tmp_path: Path, clock: Clock) -> None:
    meter = Meter(tmp_path, Budget.parse("1h"), 0, lambda: 1)
    for _ in range(100):
        meter.tick()
        clock.now += 1
    again = Meter(tmp_path, Budget.parse("1h"), 0, lambda: 1)
    assert 0 <= meter.seconds - again.seconds <= _budget.SAVED_EVERY + 1
    assert math.isclose(meter.seconds, 99)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_sweep_stops_with_checkpoints_when_it_is_spent_and_goes_on_with_more(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.beta_lr import sweep

    journal = tracked / "runs" / "beta_lr-digits" / "journal.jsonl"

    arguments = ["--dataset", "digits", "--trials", "1", "--images", "8000"]
    arguments += ["--scheduler", "none", "--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4"]
    arguments += ["--train.calibration_images", "64", "--train.eval_every", "2000"]

    def run(budget: str) -> str:
        launch(sweep, [*arguments, "--budget", budget])
        return capsys.readouterr().out

    first = run("0.1s")  # less than an actor's start
    assert "stops when 0.1s of training are spent" in first
    assert "the budget of 0.1s is spent; 0 of 1 done" in first
    assert "The same command with a larger --budget continues it." in first
    assert "starts" not in run("0.1s")
    with monkeypatch.context() as patched:  # spent in the middle of a trial, however fast the machine is
        patched.setattr(Meter, "spent", property(lambda meter: journal.read_text().count('"report"') >= 1))
        part = run("8s")
    assert "the budget of 8s is spent; 0 of 1 done" in part
    assert "stopped: the budget of 8s is spent; it had seen" in part  # the ranking's remark
    runs = runs_of(tracked)
    assert runs["beta_lr-digits"].info.status == "KILLED"
    assert runs["beta_lr-digits"].data.tags["status.reason"].startswith("the budget of 8s is spent: ")
    stopped = [r for r in runs.values() if r.data.tags.get("trial.state") == "stopped"]
    assert len(stopped) == 1
    assert stopped[0].data.tags["status.reason"].startswith("the budget of 8s is spent; it had seen ")
    assert list((tracked / "runs" / "beta_lr-digits" / "trials").glob("*/checkpoints/at-*"))

    rest = run("1h")
    assert "best: trial" in rest and "is spent" not in rest
    assert {r.info.status for r in runs_of(tracked).values()} == {"FINISHED"}
    for name, r in runs_of(tracked).items():
        if name != "beta_lr-digits":
            points = MlflowClient(f"sqlite:///{tracked}/mlflow.db").get_metric_history(
                r.info.run_id, "valid/bits_per_dim"
            )
            assert sorted(point.step for point in points) == [2016, 4000, 6016, 8000]  # whole batches of 32


def runs_of(folder: Path) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("digits/beta_lr")
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
