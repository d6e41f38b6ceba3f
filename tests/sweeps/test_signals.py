"""Ctrl-C while Tune runs: it is the sweep's to stop in order, and not Tune's to end the search."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps._events import INTERRUPTED
from sweeps._execute import StopFlag, stop_on_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:  # as in a terminal, whoever started the tests: nohup and shells' `&` have some ignored
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_raises_the_flag_also_where_tune_has_looked_for_it(tmp_path: Path, number: signal.Signals) -> None:
    from ray.tune.tune import _setup_signal_catching

    flag = StopFlag(tmp_path)
    with stop_on_signals(flag):
        ended = _setup_signal_catching()
        signal.raise_signal(number)
    assert flag.raised.is_set() and not ended.is_set()
    assert (flag.status, flag.cause) == (INTERRUPTED, "the sweep was stopped")
    assert not flag.stop_all() or (tmp_path / "stop").exists()


def test_the_second_is_for_whoever_was_there_before(tmp_path: Path) -> None:
    flag = StopFlag(tmp_path)
    with pytest.raises(KeyboardInterrupt), stop_on_signals(flag):
        signal.raise_signal(signal.SIGINT)
        assert flag.raised.is_set()
        signal.raise_signal(signal.SIGINT)
