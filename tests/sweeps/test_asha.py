"""Successive halving: against the definition, and the same after a crash."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from sweeps._asha import Asha, Rungs
from sweeps._health import Limits

RUNGS = {100: 3, 300: 3}


class Someone:
    """What Tune's bracket and our scheduler want to know of a trial."""

    def __init__(self, name: int) -> None:
        self.trial_id = str(name)


class Numbers:
    """A searcher whose trials are numbered as they are named."""

    def __init__(self) -> None:
        self.rungs = Rungs(RUNGS)

    def number(self, trial_id: str) -> int:
        return int(trial_id)

    def values(self, result: dict[str, Any]) -> list[float]:
        return [result["objective"]]


def rungs_of(*histories: dict[int, float]) -> Rungs:
    rungs = Rungs(RUNGS)
    for trial, history in enumerate(histories):
        for seen, value in history.items():
            rungs.note(trial, seen, [value])
    return rungs


NEW = 99


def test_a_value_counts_at_the_first_step_at_or_after_the_rung() -> None:
    limit = rungs_of({90: 9.0, 110: 5.0, 130: 4.0})
    assert limit.stops(NEW, 100, [5.1])
    assert not limit.stops(NEW, 100, [5.0])
    assert not rungs_of({90: 1.0}).stops(NEW, 100, [9.0])  # nobody has come there
    late = rungs_of({350: 5.0})  # the first value at both rungs
    assert late.stops(NEW, 100, [5.1])
    assert late.stops(NEW, 300, [5.1])


def test_the_first_to_come_goes_on_and_the_worse_are_stopped() -> None:
    assert not rungs_of().stops(NEW, 100, [9.0])
    others = rungs_of({100: 1.0}, {100: 2.0}, {100: 3.0}, {50: 0.0})
    assert not others.stops(NEW, 100, [1.5])
    assert others.stops(NEW, 100, [1.7])


def test_nobody_is_judged_before_a_rung() -> None:
    others = rungs_of({100: 1.0, 300: 1.0})
    assert not others.stops(NEW, 50, [9.0])


def test_a_trial_goes_on_as_long_as_it_is_among_the_best_that_came_to_its_rung() -> None:
    rungs = Rungs({100: 3})
    rungs.note(NEW, 100, [2.0])
    came = [(3.0, False), (1.0, True), (1.1, True), (4.0, True), (5.0, True), (6.0, False)]
    for trial, (value, stopped) in enumerate(came):
        rungs.note(trial, 100, [value])
        assert rungs.stops(NEW, 200, [0.5]) == stopped  # what it is worth by now does not count
    assert not rungs.stops(1, 200, [9.0])


def test_a_later_rung_takes_the_place_of_an_earlier_one() -> None:
    rungs = rungs_of({100: 1.0, 300: 4.0}, {100: 1.1, 300: 5.0}, {100: 1.2, 200: 1.0})
    rungs.note(NEW, 100, [9.0])
    assert rungs.stops(NEW, 200, [1.0])
    assert not rungs.stops(NEW, 300, [3.0])
    rungs.note(NEW, 300, [3.0])
    assert not rungs.stops(NEW, 400, [9.0])


def test_what_a_continued_trial_tells_again_is_not_judged_again() -> None:
    others = rungs_of({100: 1.0}, {100: 1.1}, {100: 2.0, 120: 1.0})
    assert not others.stops(2, 100, [2.0])
    assert not others.stops(2, 120, [1.0])
    assert others.stops(2, 140, [1.0])


@pytest.mark.parametrize("seed", range(20))
def test_one_trial_at_a_time_decides_as_tunes_own_bracket_does(seed: int) -> None:
    chance = random.Random(seed)
    reduction = chance.choice([2, 3, 4])
    bracket = _Bracket(100, 100 * reduction**2, reduction, 0)
    rungs = Rungs({100: reduction, 100 * reduction: reduction})
    for number in range(30):
        for seen in range(50, 100 * reduction**2, 50):
            value = chance.random()
            ours = rungs.stops(number, seen, [value])
            theirs = bracket.on_result(Someone(number), seen, -value) == "STOP"
            assert ours == theirs
            rungs.note(number, seen, [value])  # a stopped trial's too
            if ours:
                break


def test_each_rung_lets_its_own_part_go_on() -> None:
    rungs = Rungs({100: 4, 200: 2, 400: 1})
    for trial in range(9):
        rungs.note(trial, 400, [float(trial)])
    assert [rungs.stops(NEW, 100, [value]) for value in (2.0, 2.1)] == [False, True]
    assert [rungs.stops(NEW, 200, [value]) for value in (4.0, 4.1)] == [False, True]
    assert not rungs.stops(NEW, 400, [9.0])


def test_of_several_objectives_what_is_best_in_another_goes_on() -> None:
    rungs = Rungs({100: 3})
    for trial, values in enumerate([[1.0, 50.0], [2.0, 40.0], [3.0, 60.0], [4.0, 70.0], [5.0, 80.0]]):
        rungs.note(trial, 100, values)
    assert rungs.stops(NEW, 100, [4.5])  # by its bits/dim alone
    assert not rungs.stops(NEW, 100, [4.5, 10.0])  # the smallest
    assert not rungs.stops(NEW, 100, [1.5, 90.0])  # its bits/dim are among the best third, whatever its size
    assert rungs.stops(NEW, 100, [4.5, 65.0])  # three are better in both
    assert rungs.stops(NEW, 100, [4.5, 45.0])  # small, but another is better in both


@pytest.mark.parametrize("seed", range(5))
def test_several_objectives_decide_the_same_in_whatever_order_a_study_gives_its_trials(seed: int) -> None:
    chance = random.Random(seed)
    points = {trial: [chance.random(), float(chance.randrange(4)), chance.random()] for trial in range(20)}
    candidates = [[chance.random(), float(chance.randrange(4)), chance.random()] for _ in range(40)]
    decisions = []
    for order in (list(points), chance.sample(list(points), len(points))):
        rungs = Rungs({100: 3})
        for trial in order:
            rungs.note(trial, 100, points[trial])
        decisions.append([rungs.stops(NEW, 100, candidate) for candidate in candidates])
    assert decisions[0] == decisions[1]
    assert len(set(decisions[0])) == 2  # it does decide


def result(seen: int, value: float, perplexity: float) -> dict[str, Any]:
    return {"images_seen": seen, "objective": value, "metrics/valid/perplexity": perplexity}


def test_a_trial_with_a_sick_codebook_is_stopped_from_the_first_rung_on_and_says_why() -> None:
    reasons: dict[str, str] = {}
    limits = Limits(min_perplexity=4, prune=True)
    asha: Any = Asha(Numbers(), limits, 100, reasons)  # type: ignore[arg-type]
    assert asha.on_trial_result(None, Someone(0), result(50, 1.0, 1.5)) == "CONTINUE"
    assert asha.on_trial_result(None, Someone(0), result(100, 1.0, 4.0)) == "CONTINUE"
    assert asha.on_trial_result(None, Someone(0), result(150, 1.0, 1.5)) == "STOP"
    assert reasons == {"0": "codebook: perplexity is 1.5, below 4 at 150 images"}
    assert asha.on_trial_result(None, Someone(0), result(900, 1.0, 1.5) | {"done": True}) == "CONTINUE"


def test_limits_that_only_a_winner_must_keep_to_stop_nothing() -> None:
    asha: Any = Asha(Numbers(), Limits(min_perplexity=4), 100, {})  # type: ignore[arg-type]
    assert asha.on_trial_result(None, Someone(0), result(100, 1.0, 1.5)) == "CONTINUE"
