"""Kill what can be killed at random moments of a real sweep, give the same command again, and compare the end.

Run:  python -m benchmarks.chaos --rounds 20
      python -m benchmarks.chaos --what actor --rounds 10     (driver, actor, worker, raylet or tracker)

A round is one SIGKILL. Finished trials must be kept, each metric point be once in the journal and once in the tracker,
and all values and the final table be those of a sweep that nobody disturbed. Leaves with status 1 when they are not.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._disturbed import Place, Wrong, below, check_run, end_all, places, wait_for
from benchmarks._harness import parser

SMALL = ["--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4", "--train.calibration_images", "64"]
# One trial after the other: so the same history gives the same points, whenever it was broken off.
BUDGET = ["--trials", "6", "--images", "13500", "--concurrent", "1"]


@dataclass
class Count:
    """What a chaos run has seen."""

    kills: int = 0
    sweeps: int = 0
    kept: int = 0  # finished trials, summed over the kills that they outlived
    points: int = 0
    moments: list[str] = field(default_factory=list)


def kill_driver(place: Place, dice: random.Random, most: int, longest: float, count: Count) -> str:
    """SIGKILL of the driver alone, or of all its processes at once, then the same command; gives the final table."""
    kills = 0
    while True:
        before, events = place.finished(), len(place.events())
        driver = place.start()
        if kills < most:
            # At any moment of its start, or of its work: most of the time of a short sweep is the start.
            early = dice.random() < 0.3
            if not early:
                wait_for("a start", lambda events=events: len(place.events()) > events + 2, driver)
            began = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                driver.wait(dice.uniform(0, longest / 4))
            moment = f"{time.monotonic() - began:.1f} s after its {'start' if early else 'first event'}"
        if driver.poll() is not None or kills >= most:
            table = place.finish(driver)
            check_kept(before, place.finished())
            return table
        everything = dice.random() < 0.5
        victims = below(driver.pid)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        if everything:
            end_all(victims)
        kills += 1
        after = place.finished()
        check_kept(before, after)
        count.kills += 1
        count.kept += len(after)
        who = "driver and all its processes" if everything else "driver"
        print(f"kill {count.kills}: {who} {moment}, {len(after)} trials over, {place.reports()} reports", flush=True)


def check_kept(before: dict[int, tuple[str, float | None]], after: dict[int, tuple[str, float | None]]) -> None:
    """``Wrong`` when a trial that was over is no longer what it was."""
    for number, end in before.items():
        if after.get(number) != end:
            raise Wrong(f"trial {number:03d} was {end}, and then {after.get(number)}")


def kill_process(name: str) -> Callable[[Place, random.Random, int, float, Count], str]:
    """SIGKILL of a process that trains, at random moments of one driver's sweep."""

    def kill(place: Place, dice: random.Random, most: int, longest: float, count: Count) -> str:
        driver = place.start()
        for _ in range(most):
            reports = place.reports()
            # A trial that dies again and again without getting further is failed, and rightly.
            if not wait_for("a report", lambda reports=reports: place.reports() > reports, driver):
                break
            time.sleep(dice.uniform(0, longest / 10))
            victims = below(driver.pid, name)
            if driver.poll() is not None or not victims:
                continue
            before = place.finished()
            end_all([dice.choice(victims)])
            count.kills += 1
            count.kept += len(before)
            print(f"kill {count.kills}: one of {len(victims)} {name}, {len(before)} trials over", flush=True)
            time.sleep(1)
            check_kept(before, place.finished())
        return place.finish(driver)

    return kill


def disturb(what: str, rounds: int, seed: int, root: Path) -> Count:
    """Run the calm sweep, then disturbed ones until so many rounds are done."""
    dice, count = random.Random(seed), Count()
    workers = ["--workers", "2", "--trials", "3"] if what == "worker" else []
    kill = {
        "driver": kill_driver,
        "actor": kill_process("ray::TrialActor"),
        "worker": kill_process("ray::RayTrainWorker"),
    }[what]
    with places(root, [*SMALL, *BUDGET, *workers]) as make:
        calm = make("calm")
        began = time.monotonic()
        table = calm.finish(calm.start())
        longest = time.monotonic() - began
        points = check_run(calm, table, None, "")
        print(f"undisturbed: {longest:.0f} s, {len(calm.finished())} trials, {points} points{table}", flush=True)
        while count.kills < rounds:
            place = make(f"disturbed-{count.sweeps}")
            ours = kill(place, dice, rounds - count.kills, longest, count)
            found = check_run(place, ours, calm, table)
            count.sweeps += 1
            count.points += found
            print(f"sweep {count.sweeps}: as the undisturbed one, {found} points once each", flush=True)
    return count


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=20, help="kills in all (20)")
    options.add_argument("--what", choices=("driver", "actor", "worker", "raylet", "tracker"), default="driver")
    options.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="vq", ignore_cleanup_errors=True) as folder:
        try:
            count = disturb(chosen.what, chosen.rounds, chosen.seed, Path(folder))
        except Wrong as error:
            print(f"WRONG: {error}", file=sys.stderr)
            raise SystemExit(1) from None
    print(
        f"{count.kills} kills ({chosen.what}) in {count.sweeps} sweeps: {count.kept} times a finished trial outlived "
        f"one, none was lost; {count.points} metric points, each once; all {count.sweeps} final tables as undisturbed"
    )


if __name__ == "__main__":
    main()
