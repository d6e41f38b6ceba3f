"""Successive halving: against the definition, and the same after a crash."""

from __future__ import annotations

import random

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from sweeps._asha import is_stopped, value_at

RUNGS = [100, 300]


class Someone:
    """What Tune's bracket wants to know of a trial."""

    def __init__(self, name: int) -> None:
        self.trial_id = str(name)


def test_a_value_counts_at_the_first_step_at_or_after_the_rung() -> None:
    assert value_at({90: 9.0, 110: 5.0, 130: 4.0}, 100) == 5.0
    assert value_at({100: 7.0}, 100) == 7.0
    assert value_at({90: 9.0}, 100) is None


def test_the_first_to_come_goes_on_and_the_worse_are_stopped() -> None:
    assert not is_stopped(RUNGS, 3, {}, 100, 9.0, [])
    others = [{100: 1.0}, {100: 2.0}, {100: 3.0}, {50: 0.0}]
    assert not is_stopped(RUNGS, 3, {}, 100, 1.5, others)
    assert is_stopped(RUNGS, 3, {}, 100, 1.7, others)


def test_between_rungs_nobody_is_judged() -> None:
    others = [{100: 1.0, 300: 1.0}]
    assert not is_stopped(RUNGS, 3, {}, 50, 9.0, others)
    assert not is_stopped(RUNGS, 3, {100: 9.0}, 200, 9.0, others)
    assert is_stopped(RUNGS, 3, {100: 9.0, 200: 9.0}, 300, 9.0, others)


def test_a_trial_that_is_continued_is_not_judged_again_where_it_had_passed() -> None:
    others = [{100: 1.0}, {100: 1.1}]
    passed = {100: 0.5, 120: 5.0}  # worse now, but it was judged at 100
    assert not is_stopped(RUNGS, 3, passed, 120, 5.0, others)  # told again after a crash
    assert not is_stopped(RUNGS, 3, passed, 140, 5.0, others)


@pytest.mark.parametrize("seed", range(20))
def test_one_trial_at_a_time_decides_as_tunes_own_bracket_does(seed: int) -> None:
    chance = random.Random(seed)
    reduction = chance.choice([2, 3, 4])
    bracket = _Bracket(100, 100 * reduction**2, reduction, 0)
    rungs = [100, 100 * reduction]
    histories: list[dict[int, float]] = []
    for number in range(30):
        own: dict[int, float] = {}
        for seen in range(50, 100 * reduction**2, 50):
            value = chance.random()
            ours = is_stopped(rungs, reduction, own, seen, value, histories)
            theirs = bracket.on_result(Someone(number), seen, -value) == "STOP"
            assert ours == theirs
            own[seen] = value
            if ours:
                break
        histories.append(own)
