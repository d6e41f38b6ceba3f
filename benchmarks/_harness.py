"""What every benchmark shares: interleaved repeats, medians, ratios, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from vqvae_core.overrides import OneLineParser, at_least


@dataclass(frozen=True)
class Row:
    """One measured case; ``ratio`` above 1 means that ours is better."""

    case: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    goal: float | None = None
    note: str = ""


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each function, run in turn (A B A B ...) after a warm-up round: drift hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if repeat:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def faster(case: str, ours: float, baseline: float, unit: str = "s", goal: float | None = None, note: str = "") -> Row:
    """A row for figures where less is better, such as seconds and bytes."""
    return Row(case, ours, baseline, unit, baseline / ours, goal, note)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 - no path of ours
            cpu = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark takes; add your own."""
    options = OneLineParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options.add_argument("--repeats", type=at_least(1), default=5, help="interleaved repeats per case (5)")
    return options


def show(name: str, rows: list[Row], as_json: bool) -> None:
    """Print the rows as a table and, when asked for, as JSON."""
    width = max(len(row.case) for row in rows)
    print(f"{name}\n{'case':{width}}  {'ours':>12}  {'baseline':>12}  {'unit':8}  {'ratio':>8}  goal")
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g} {'met' if row.ratio >= row.goal else 'MISSED'}"
        figures = f"{row.ours:12.4g}  {row.baseline:12.4g}  {row.unit:8}  {row.ratio:7.2f}x"
        print(f"{row.case:{width}}  {figures}  {goal} {row.note}".rstrip())
    if as_json:
        print(json.dumps({"benchmark": name, "machine": machine(), "rows": [asdict(row) for row in rows]}))
