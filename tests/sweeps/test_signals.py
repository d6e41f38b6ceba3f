"""Ctrl-C, SIGTERM, a lost terminal: at any moment it is the sweep's to stop in order, not Tune's nor Ray's."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from sweeps import _node
from sweeps._events import INTERRUPTED
from sweeps._execute import StopFlag
from sweeps._launch import launch
from sweeps._signals import Signals
from sweeps._space import Sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
EACH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:  # as in a terminal, whoever started the tests: nohup and shells' `&` have some ignored
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@EACH
def test_a_signal_raises_the_flag_also_where_tune_has_looked_for_it(tmp_path: Path, number: signal.Signals) -> None:
    from ray.tune.tune import _setup_signal_catching

    flag = StopFlag(tmp_path)
    with Signals() as signals, signals.tell(flag.ask):
        ended = _setup_signal_catching()
        signal.raise_signal(number)
    assert flag.raised.is_set() and not ended.is_set()
    assert (flag.status, flag.cause) == (INTERRUPTED, "the sweep was stopped")
    assert not flag.stop_all() or (tmp_path / "stop").exists()


def test_the_second_ends_it_at_once_and_a_third_is_for_whoever_was_there_before() -> None:
    told: list[str] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.append("before"))
    with pytest.raises(KeyboardInterrupt), Signals() as signals, signals.tell(lambda: told.append("flag")):
        signal.raise_signal(signal.SIGTERM)
        assert told == ["flag"]
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
            assert told == ["flag", "before"]


@EACH
def test_where_no_trial_runs_each_is_an_interrupt(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), Signals():
        signal.raise_signal(number)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ray_does_not_keep_sigterm_for_itself() -> None:
    def like_ray(*_: object) -> None:
        sys.exit(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), Signals():  # in the middle of ray.init
        signal.signal(signal.SIGTERM, like_ray)
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Signals() as signals:  # and after it
        signal.signal(signal.SIGTERM, like_ray)
        signals.take()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt
    with pytest.raises(SystemExit, match="2"), Signals():
        sys.exit(2)


def test_one_that_a_library_has_swallowed_counts_when_trials_are_to_start(tmp_path: Path) -> None:
    flag = StopFlag(tmp_path)
    with Signals() as signals:
        with suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        with signals.tell(flag.ask):
            assert flag.raised.is_set()


def test_a_signal_while_images_are_prepared_is_one_line(
    workplace: Path, question: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps._launch.images_of", lambda data: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        launch(question, ["--dataset", "digits"])
    assert caught.value.code == INTERRUPTED
    assert capsys.readouterr().err == "\nstopped; the same command continues it\n"


def processes(driver: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    """Those below a driver whose name begins so."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if process.name().startswith(name) else []
    return found


@pytest.mark.slow
def test_a_signal_in_the_seconds_of_start_up_stops_it_in_order(tracked: Path) -> None:
    """As the tracker is opened, as Ray starts, and as the sweep measures what it will cost."""
    command = [sys.executable, str(SWEEPS / "beta_lr.py"), "--dataset", "digits", "--trials", "2", "--images", "900"]
    log = tracked / "log"
    moments: dict[str, tuple[Callable[[subprocess.Popen[bytes]], object], signal.Signals]] = {
        "planned": (lambda driver: "study  " in log.read_text(), signal.SIGINT),
        "ray starts": (lambda driver: processes(driver, "gcs_server"), signal.SIGTERM),
        "measures": (lambda driver: processes(driver, "ray::measure"), signal.SIGTERM),
    }
    for moment, (reached, number) in moments.items():
        with log.open("w") as output:
            driver = subprocess.Popen(command, cwd=tracked, stdout=output, stderr=output, start_new_session=True)
        try:
            while driver.poll() is None and not reached(driver):
                time.sleep(0.02)
            assert driver.poll() is None, log.read_text()
            below = psutil.Process(driver.pid).children(recursive=True)
            driver.send_signal(number)
            driver.wait(120)
        finally:
            driver.kill()
            driver.wait()
        said = log.read_text()
        assert driver.returncode == INTERRUPTED, (moment, said)
        assert re.search(r"^stopped; .*the same command continues it\.?\n\Z", said, re.M | re.I), (moment, said)
        assert "Traceback" not in said and "starts:" not in said, (moment, said)
        _, left = psutil.wait_procs(below, timeout=60)
        assert not left, (moment, left)
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    found = client.get_experiment_by_name("digits/beta_lr")
    assert found is not None
    assert {run.info.status for run in client.search_runs([found.experiment_id])} <= {"KILLED"}  # nor left running


def test_a_driver_whose_ray_is_gone_does_not_wait_for_it_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a SIGTERM to a whole process group: Ray's own shutdown would look for its processes for a minute."""
    left: list[int] = []
    monkeypatch.setitem(sys.modules, "ray", sys)
    monkeypatch.setattr(_node, "end_the_rest", lambda: None)
    monkeypatch.setattr("sweeps._node.os._exit", left.append)
    for death in ("", "Ray's raylet was ended"):
        monkeypatch.setattr(_node, "lost", lambda death=death: death)
        _node.leave_if_lost(130)
    assert left == [130]
