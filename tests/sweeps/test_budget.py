"""A sweep's budget: what may be written, how it adds up, and a sweep that stops at it and goes on with more."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps import _budget
from sweeps._budget import Budget, Meter
from sweeps._settings import parse
from sweeps._space import Sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


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
def test_a_sweep_stops_with_checkpoints_when_it_is_spent_and_goes_on_with_more(
    tracked: Path, digits_root: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SWEEPS / "beta_lr.py"), "--dataset", "digits", "--trials", "2", "--concurrent", "1"]
    command += ["--images", "20000", "--scheduler", "none", "--model.hidden", "8", "--model.num_codes", "16"]
    command += ["--model.code_dim", "4", "--train.calibration_images", "64", "--train.eval_every", "2000"]

    def run(*more: str) -> str:
        done = subprocess.run([*command, *more], cwd=tracked, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    empty = tmp_path / "empty.db"
    shutil.copy(tracked / "mlflow.db", empty)
    first = run("--budget", "0.1s")  # less than an actor's start: nothing is trained, and it is said
    assert "the budget of 0.1s is spent; 0 of 2 done" in first
    again = run("--budget", "0.1s")
    assert "starts" not in again
    assert "The same command with a larger --budget continues it." in again
    part = run("--budget", "9s")
    assert "the budget of 9s is spent" in part
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    experiment = client.get_experiment_by_name("digits/beta_lr")
    assert experiment is not None
    found = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert found["beta_lr-digits"].info.status == "KILLED"
    assert found["beta_lr-digits"].data.tags["status.reason"].startswith("the budget of 9s is spent: ")
    stopped = [r for r in found.values() if r.data.tags.get("trial.state") == "stopped"]
    if stopped:
        assert "the budget of 9s is spent; it had seen" in part
        assert all(r.data.tags["status.reason"].startswith("the budget of 9s is spent; it had") for r in stopped)
    rest = run("--budget", "1h")
    assert rest.count("rank  trial") == 1
    shutil.copy(empty, tracked / "mlflow.db")
    calm = run("--name", "calm", "--storage", f"sqlite:///{tmp_path}/calm.db")
    table = rest[rest.index("rank  trial") :].split("\n\n")[0]
    assert table == calm[calm.index("rank  trial") :].split("\n\n")[0]
