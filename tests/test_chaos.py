"""A few rounds of ``make chaos``: the benchmark's own counts and comparisons, with its own programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks._disturbed import Wrong, check_equal

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--rounds", "3", "--seed", "1"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("3 kills (driver) in ")
    assert "none was lost" in done.stdout


def test_a_trial_that_is_no_longer_what_it_was_is_wrong() -> None:
    before = {0: ("COMPLETE", 3.5), 1: ("PRUNED", 4.0)}
    chaos.check_kept(before, {**before, 2: ("COMPLETE", 3.0)})
    for after in ({0: ("COMPLETE", 3.5)}, {**before, 0: ("COMPLETE", 3.4)}, {**before, 1: ("COMPLETE", 4.0)}):
        with pytest.raises(Wrong, match="trial 00"):
            chaos.check_kept(before, after)


def test_a_point_that_is_missing_or_another_is_wrong() -> None:
    points = {("000", "valid/mse", 100): 0.5, ("001", "valid/mse", 100): 0.25}
    check_equal("both", points, dict(points))
    for other in ({("000", "valid/mse", 100): 0.5}, {**points, ("000", "valid/mse", 100): 0.50001}):
        with pytest.raises(Wrong, match="1 points differ: both"):
            check_equal("both", points, other)
