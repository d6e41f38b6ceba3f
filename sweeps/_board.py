"""What is known of a sweep at this moment: a row for every run, for the display, the ranking and the tracker."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from sweeps._space import Point


def verdict(result: dict[str, Any] | None, budget: int) -> tuple[str, str]:
    """How a run ended by its last result, and why: complete at its full budget, stopped before it, or failed."""
    if result and "interrupted" in result:
        return "stopped", f"the sweep was stopped when it had seen {result.get('images_seen', 0):,} images"
    if not result or "failed" in result:
        return "failed", result["failed"] if result else "its process died"
    seen = result.get("images_seen", 0)
    if not math.isfinite(result.get("objective", math.nan)):
        return "failed", f"valid/bits_per_dim was {result.get('objective')} at {seen:,} images"
    if "stopped_for" in result:
        return "pruned", result["stopped_for"]
    if seen < budget:
        return "pruned", f"ASHA stopped it at {seen:,} of {budget:,} images"
    return "complete", f"trained on all {seen:,} images"


@dataclass
class Row:
    """One trial or replicate."""

    run: str
    origin: str
    point: Point
    seed: int
    parent: str
    budget: int
    state: str = "running"  # running, complete, pruned, failed
    reason: str = ""
    images_seen: int = 0
    value: float = math.inf  # valid/bits_per_dim at the last report
    metrics: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    unhealthy: str = ""  # which limits of the codebook were broken at the last report
    taken: str = ""  # the run of another sweep that stands for it; empty where it was trained


def by_merit(row: Row) -> tuple[bool, float, str]:
    """What rows of the same state are sorted by, best first."""
    return bool(row.unhealthy), row.value, row.run


class Board:
    """The rows of a sweep, by run; ``planned`` is how many there will be."""

    def __init__(self, planned: int, concurrent: int) -> None:
        self.planned, self.concurrent = planned, concurrent
        self.rows: dict[str, Row] = {}

    def report(self, run: str, result: dict[str, Any]) -> Row:
        """Note a result that is not a failure."""
        row = self.rows[run]
        row.images_seen, row.value, row.metrics = result["images_seen"], result["objective"], result["metrics"]
        row.seconds = time.monotonic() - row.began
        return row

    def end(self, run: str, state: str, reason: str) -> Row:
        """Note that a run is over."""
        row = self.rows[run]
        row.state, row.reason = state, reason
        row.seconds = time.monotonic() - row.began
        return row

    def count(self, *states: str) -> int:
        """Rows in any of some states."""
        return sum(row.state in states for row in self.rows.values())

    @property
    def ended(self) -> int:
        """Rows that are over; one that was stopped with the sweep is not."""
        return self.count("complete", "pruned", "failed")

    def best(self) -> Row | None:
        """The complete trial with the fewest bits/dim, or the best so far while none is complete.

        One whose codebook is out of its limits comes after all others.
        """
        for states in (("complete",), ("running", "pruned")):
            found = [row for row in self.rows.values() if row.state in states and math.isfinite(row.value)]
            if found:
                return min(found, key=by_merit)
        return None

    def seconds_left(self) -> float | None:
        """An estimate from the runs that are over; None before there are any."""
        goes_on = ("running", "stopped")  # with the sweep, to be continued
        over = [row.seconds for row in self.rows.values() if row.state not in goes_on and row.seconds]
        if not over:
            return None
        waiting = self.planned - len(self.rows)
        mean = sum(over) / len(over)
        begun = sum(seconds_to_its_end(row, mean) for row in self.rows.values() if row.state in goes_on)
        return (waiting * mean + begun) / self.concurrent


def seconds_to_its_end(row: Row, mean: float) -> float:
    """How long a run still takes at the speed that it had; before its first report, what others took in the mean."""
    if row.images_seen and row.seconds:
        return row.seconds * max(0, row.budget - row.images_seen) / row.images_seen
    return mean
