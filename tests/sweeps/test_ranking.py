"""The last lines of a sweep."""

from __future__ import annotations

import math

import pytest

from sweeps._board import Board, Row, verdict
from sweeps._ranking import confirmed, outcome, ranking, within_noise


def row(run: str, state: str, value: float, parent: str = "sweep", point: float = 0.1) -> Row:
    reason = "ASHA stopped it at 50 of 100 images" if state == "pruned" else "because"
    made = Row(run, "TPE", {"train.lr": point}, 0, parent, 100, state, reason, 100, value)
    made.metrics = {"valid/bits_per_dim": value}
    return made


def board(*rows: Row) -> Board:
    made = Board(len(rows), 2)
    made.rows = {each.run: each for each in rows}
    return made


def test_a_stopped_trial_never_ranks_before_a_complete_one() -> None:
    lines = ranking(board(row("000", "complete", 3.0), row("001", "pruned", 2.0), row("002", "failed", math.inf)), 5.0)
    order = [line.split()[1] for line in lines.splitlines()[2:5]]
    assert order == ["000", "001", "002"]
    assert lines.splitlines()[3].split()[0] == "-"
    assert "stopped early by ASHA" in lines
    assert "failed: because" in lines
    assert "5.0000" in lines.splitlines()[-1]


def test_confirmed_trials_are_ranked_by_their_mean_and_marked_when_they_overlap() -> None:
    rows = [row("000", "complete", 3.0), row("001", "complete", 2.9), row("002", "complete", 9.0)]
    rows += [row(f"000-seed-{s}", "complete", 3.0 + s / 100, "000") for s in (1, 2)]
    rows += [row(f"001-seed-{s}", "complete", 3.4 + s / 100, "001") for s in (1, 2)]
    rows += [row(f"002-seed-{s}", "complete", 9.0 + s / 100, "002") for s in (1, 2)]
    lines = confirmed(board(*rows)).splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["000", "001", "002"]
    assert "not separable from the best" in lines[1]
    assert "worse than the best" in lines[2]


def test_a_trial_of_one_seed_is_told_from_the_best_by_the_spread_between_seeds() -> None:
    rows = [row("000", "complete", 3.0), row("001", "complete", 3.05), row("002", "complete", 3.5)]
    rows += [row("003", "pruned", 3.0)]
    assert within_noise(board(*rows)) == set()  # nothing is known of the spread
    rows += [row(f"000-seed-{s}", "complete", 3.0 + s / 100, "000") for s in (1, 2)]
    # Mean 3.01, spread 0.01 with two degrees of freedom: 3.01 + 4.303 * 0.01 * sqrt(1 + 1/3) = 3.0597.
    assert within_noise(board(*rows)) == {"001"}
    rows[1].value = 3.0598
    assert within_noise(board(*rows)) == set()
    rows[1].value = 3.0596
    lines = ranking(board(*rows), 5.0).splitlines()
    assert lines[3].endswith("not separable from the best")
    assert "separable" not in lines[2] + lines[4] + lines[5]


def test_a_sick_codebook_ranks_behind_a_healthy_one_and_says_why() -> None:
    rows = [row("000", "complete", 3.0), row("001", "complete", 4.0)]
    rows[0].unhealthy = "perplexity is 1, below 4"
    lines = ranking(board(*rows), 5.0).splitlines()
    assert [line.split()[1] for line in lines[2:4]] == ["001", "000"]
    assert lines[3].endswith("codebook: perplexity is 1, below 4")
    assert "out of its limits (perplexity is 1, below 4)" in outcome(rows[0])
    assert "limits" not in outcome(rows[1])


def test_a_trial_that_was_stopped_for_another_reason_than_asha_says_so() -> None:
    stopped = row("000", "pruned", 3.0)
    stopped.reason = "codebook: perplexity is 1, below 4 at 50 images"
    assert ranking(board(stopped), 5.0).splitlines()[2].endswith(f"stopped early: {stopped.reason}")


def test_no_complete_trial_is_no_winner() -> None:
    assert "no winner" in outcome(None)


@pytest.mark.parametrize(
    ("result", "state", "reason"),
    [
        (None, "failed", "its process died"),
        ({"failed": "Diverged: at 5"}, "failed", "Diverged: at 5"),
        ({"images_seen": 100, "objective": 3.0}, "complete", "trained on all 100 images"),
        ({"images_seen": 40, "objective": 3.0}, "pruned", "ASHA stopped it at 40 of 100 images"),
        ({"images_seen": 40, "objective": 3.0, "stopped_for": "codebook"}, "pruned", "codebook"),
        ({"images_seen": 100, "objective": math.nan}, "failed", "valid/bits_per_dim was nan at 100 images"),
    ],
)
def test_verdict(result: dict[str, object] | None, state: str, reason: str) -> None:
    assert verdict(result, 100) == (state, reason)


def test_the_estimate_of_the_time_left() -> None:
    made = board(row("000", "complete", 1.0), row("001", "running", 1.0))
    made.planned = 4
    assert Board(3, 1).seconds_left() is None
    made.rows["000"].seconds, made.rows["001"].seconds = 10.0, 4.0
    assert made.rows["001"].budget == 100
    made.rows["001"].images_seen = 0
    assert made.seconds_left() == pytest.approx((2 * 10 + 10) / 2)
    made.rows["001"].state = "stopped"  # with the sweep: continued, it takes as long, and says nothing of the others
    assert made.seconds_left() == pytest.approx((2 * 10 + 10) / 2)
    made.rows["001"].images_seen = 25  # at its own speed it needs three times as long again
    assert made.seconds_left() == pytest.approx((2 * 10 + 12) / 2)
