"""Successive halving: against the definition, and the same after a crash."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from sweeps._asha import Asha, Rungs
from sweeps._health import Limits

RUNGS = [100, 300]


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


def rungs_of(*histories: dict[int, float]) -> Rungs:
    rungs = Rungs(RUNGS)
    for trial, history in enumerate(histories):
        for seen, value in history.items():
            rungs.note(trial, seen, value)
    return rungs


NEW = 99


def test_a_value_counts_at_the_first_step_at_or_after_the_rung() -> None:
    limit = rungs_of({90: 9.0, 110: 5.0, 130: 4.0})
    assert limit.stops(NEW, 100, 5.1, 3)
    assert not limit.stops(NEW, 100, 5.0, 3)
    assert not rungs_of({90: 1.0}).stops(NEW, 100, 9.0, 3)  # nobody has come there
    late = rungs_of({350: 5.0})  # the first value at both rungs
    assert late.stops(NEW, 100, 5.1, 3)
    assert late.stops(NEW, 300, 5.1, 3)


def test_the_first_to_come_goes_on_and_the_worse_are_stopped() -> None:
    assert not rungs_of().stops(NEW, 100, 9.0, 3)
    others = rungs_of({100: 1.0}, {100: 2.0}, {100: 3.0}, {50: 0.0})
    assert not others.stops(NEW, 100, 1.5, 3)
    assert others.stops(NEW, 100, 1.7, 3)


def test_between_rungs_nobody_is_judged() -> None:
    others = rungs_of({100: 1.0, 300: 1.0})
    assert not others.stops(NEW, 50, 9.0, 3)
    others.note(NEW, 100, 9.0)
    assert not others.stops(NEW, 200, 9.0, 3)
    others.note(NEW, 200, 9.0)
    assert others.stops(NEW, 300, 9.0, 3)


def test_a_trial_that_is_continued_is_not_judged_again_where_it_had_passed() -> None:
    others = rungs_of({100: 1.0}, {100: 1.1}, {100: 0.5, 120: 5.0})  # the last is worse now, but it was judged at 100
    assert not others.stops(2, 120, 5.0, 3)  # told again after a crash
    assert not others.stops(2, 140, 5.0, 3)


@pytest.mark.parametrize("seed", range(20))
def test_one_trial_at_a_time_decides_as_tunes_own_bracket_does(seed: int) -> None:
    chance = random.Random(seed)
    reduction = chance.choice([2, 3, 4])
    bracket = _Bracket(100, 100 * reduction**2, reduction, 0)
    rungs = Rungs([100, 100 * reduction])
    for number in range(30):
        for seen in range(50, 100 * reduction**2, 50):
            value = chance.random()
            ours = rungs.stops(number, seen, value, reduction)
            theirs = bracket.on_result(Someone(number), seen, -value) == "STOP"
            assert ours == theirs
            rungs.note(number, seen, value)  # a stopped trial's too
            if ours:
                break


def result(seen: int, value: float, perplexity: float) -> dict[str, Any]:
    return {"images_seen": seen, "objective": value, "metrics/valid/perplexity": perplexity}


def test_a_trial_with_a_sick_codebook_is_stopped_from_the_first_rung_on_and_says_why() -> None:
    reasons: dict[str, str] = {}
    limits = Limits(min_perplexity=4, prune=True)
    asha: Any = Asha(Numbers(), 3, limits, 100, reasons)  # type: ignore[arg-type]
    assert asha.on_trial_result(None, Someone(0), result(50, 1.0, 1.5)) == "CONTINUE"
    assert asha.on_trial_result(None, Someone(0), result(100, 1.0, 4.0)) == "CONTINUE"
    assert asha.on_trial_result(None, Someone(0), result(150, 1.0, 1.5)) == "STOP"
    assert reasons == {"0": "codebook: perplexity is 1.5, below 4 at 150 images"}
    assert asha.on_trial_result(None, Someone(0), result(900, 1.0, 1.5) | {"done": True}) == "CONTINUE"


def test_limits_that_only_a_winner_must_keep_to_stop_nothing() -> None:
    asha: Any = Asha(Numbers(), 3, Limits(min_perplexity=4), 100, {})  # type: ignore[arg-type]
    assert asha.on_trial_result(None, Someone(0), result(100, 1.0, 1.5)) == "CONTINUE"
