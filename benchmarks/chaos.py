"""Kill what can be killed at random moments of a real sweep, give the same command again, and compare the end.

Run:  python -m benchmarks.chaos --rounds 20
      python -m benchmarks.chaos --what actor --rounds 10     (driver, actor, worker, raylet or tracker)

A round is one SIGKILL; of the tracker, one outage of a minute with 8 trials writing. Finished trials must be kept, each
metric point be once in the journal and once in the tracker, and all values and the final table be those of a sweep that
nobody disturbed. Leaves with status 1 when they are not.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._disturbed import Place, Wrong, below, check_run, end_all, places, wait_for
from benchmarks._harness import parser
from benchmarks._nodes import plain_environment, ray_head, ray_node, short_folder
from benchmarks._servers import free_port, mlflow_server
from vqvae_core.overrides import at_least

SMALL = ["--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4", "--train.calibration_images", "64"]
# One trial after the other: so the same history gives the same points, whenever it was broken off.
BUDGET = ["--trials", "6", "--images", "13500", "--concurrent", "1"]
# What Ray calls the processes that train: a TrialActor, as Tune wraps it, and a worker of Train's.
ACTOR, WORKER = "ray::ResourceTrainable", "ray::RayTrainWorker"


@dataclass
class Count:
    """What a chaos run has seen."""

    kills: int = 0
    sweeps: int = 0
    restarts: int = 0  # of drivers that were lost with a node
    kept: int = 0  # finished trials, summed over the kills that they outlived
    continued: int = 0  # times that a trial went on from its last report or later
    points: int = 0


@dataclass(frozen=True)
class Calm:
    """A sweep that nobody disturbed."""

    place: Place
    table: str
    seconds: float  # from its first trial's start to the last's end: the start of a driver can take as long
    interval: float  # seconds between two reports of a trial, the median


def undisturbed(make: Callable[[str], Place]) -> Calm:
    """Run it."""
    place, began = make("calm"), time.monotonic()
    table = place.finish(place.start())
    whole = time.monotonic() - began
    points, moments = check_run(place, table, None, ""), [event["time"] for event in place.events_of_trials()]
    seconds, interval = (moments[-1] - moments[0]) / 1000, place.report_interval()
    print(
        f"undisturbed: {whole:.0f} s, {seconds:.0f} of them at work, {interval:.1f} between reports, "
        f"{points} points{table}",
        flush=True,
    )
    return Calm(place, table, seconds, interval)


def kill_driver(place: Place, dice: random.Random, most: int, longest: float, count: Count) -> str:
    """SIGKILL of the driver alone, or of all its processes at once, then the same command; gives the final table.

    ``longest`` is how many seconds after its start, or that of a trial, it may come.
    """
    kills = 0
    while True:
        before, events = place.finished(), len(place.events_of_trials())
        reported, known = place.last_steps(), len(place.continued())
        driver = place.start()
        if kills < most:
            # At any moment of its start, or of its work.
            early = dice.random() < 0.3
            if not early:
                wait_for("a trial", lambda events=events: len(place.events_of_trials()) > events, driver)
            began = time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                driver.wait(dice.uniform(0, longest))
            moment = f"{time.monotonic() - began:.1f} s after {'its start' if early else 'a trial started'}"
        if driver.poll() is not None or kills >= most:
            table = place.finish(driver)
            check_kept(before, place.finished())
            count.continued += check_continued(reported, place.continued()[known:])
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
        count.continued += check_continued(reported, place.continued()[known:])
        who = "driver and all its processes" if everything else "driver"
        print(f"kill {count.kills}: {who} {moment}, {len(after)} trials over, {place.reports()} reports", flush=True)


def check_kept(before: dict[int, tuple[str, float | None]], after: dict[int, tuple[str, float | None]]) -> None:
    """``Wrong`` when a trial that was over is no longer what it was."""
    for number, end in before.items():
        if after.get(number) != end:
            raise Wrong(f"trial {number:03d} was {end}, and then {after.get(number)}")


def check_continued(reported: dict[str, int], continued: list[tuple[str, int]]) -> int:
    """``Wrong`` when a trial went on from before its last report, by what had been ``reported`` then; counts them."""
    for run, seen in continued:
        if seen < reported.get(run, 0):
            raise Wrong(f"trial {run} had reported {reported[run]} images and went on from {seen}")
    return len(continued)


def kill_process(name: str) -> Callable[[Place, random.Random, int, float, Count], str]:
    """SIGKILL of a process that trains, at random moments of one driver's sweep.

    ``longest`` is how many seconds after a report it may come: the time to the next, for the last report of a trial may
    be the end of its processes.
    """

    def kill(place: Place, dice: random.Random, most: int, longest: float, count: Count) -> str:
        driver, kills = place.start(), 0
        reported, known = place.last_steps(), 0
        while kills < most:
            # At least one: a trial that dies again and again without getting further is failed, and rightly.
            wanted = place.reports() + dice.randint(1, 3)
            if not wait_for("reports", lambda wanted=wanted: place.reports() >= wanted, driver):
                break
            time.sleep(dice.uniform(0, longest))
            victims = below(driver.pid, name)
            if not victims:  # between two trials
                continue
            continued = place.continued()
            count.continued += check_continued(reported, continued[known:])
            before, reported, known = place.finished(), place.last_steps(), len(continued)
            end_all([dice.choice(victims)])
            count.kills += 1
            kills += 1
            count.kept += len(before)
            print(f"kill {count.kills}: one of {len(victims)} {name}, {len(before)} trials over", flush=True)
            time.sleep(1)
            check_kept(before, place.finished())
        table = place.finish(driver)
        count.continued += check_continued(reported, place.continued()[known:])
        if not kills:
            raise Wrong(f"the sweep ended before there was a {name} to kill")
        return table

    return kill


def kill_raylet(
    address: str, root: Path, environment: Mapping[str, str], place: Place, dice: random.Random, most: int, count: Count
) -> str:
    """SIGKILL of the node of a cluster that has the CPUs, as if its machine were lost; another one joins.

    A driver that was attached to that node is lost with it, and the same command is given again.
    """
    flags = [f"--address={address}", "--num-cpus=2"]
    driver, before = place.start(), place.finished()
    reported, known = place.last_steps(), 0
    for _ in range(most):
        name = root / f"node-{count.kills}"
        with ray_node(name, environment, *flags) as node:
            wanted = place.reports() + dice.randint(1, 6)
            while not wait_for("reports", lambda wanted=wanted: place.reports() >= wanted, driver):
                if driver.returncode == 0:
                    return place.finish(driver)
                driver = place.start()
            time.sleep(dice.uniform(0, 3))
            continued = place.continued()
            count.continued += check_continued(reported, continued[known:])
            before, reported, known = place.finished(), place.last_steps(), len(continued)
            end_all([psutil.Process(node.pid), *below(node.pid)])
        count.kills += 1
        count.kept += len(before)
        print(f"kill {count.kills}: a node with its raylet, {len(before)} trials over", flush=True)
        check_kept(before, place.finished())
    with ray_node(root / "node-last", environment, *flags):
        while driver.wait():
            count.restarts += 1
            if count.restarts > 2 * most:
                break  # it says why
            driver = place.start()
        table = place.finish(driver)
    count.continued += check_continued(reported, place.continued()[known:])
    return table


def disturb_raylet(rounds: int, seed: int, root: Path) -> Count:
    """The same for the node of a cluster that trains; its head, where no trial runs, stays."""
    dice, count = random.Random(seed), Count()
    environment = plain_environment(root, RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1", VQSWEEP_GROWS_TO="CPU=2")
    with (
        short_folder() as folder,
        ray_head(folder / "head", environment, "--num-cpus=0") as address,
        places(root, [*SMALL, *BUDGET], RAY_AUTH_MODE="disabled", VQSWEEP_GROWS_TO="CPU=2") as make,
    ):
        calm = undisturbed(make)
        while count.kills < rounds:
            place = make(f"disturbed-{count.sweeps}", RAY_ADDRESS=address)
            ours = kill_raylet(address, folder, environment, place, dice, rounds - count.kills, count)
            count.points += check_run(place, ours, calm.place, calm.table)
            count.sweeps += 1
    return count


def disturb_tracker(rounds: int, seconds: float, root: Path) -> Count:
    """``rounds`` times a tracker that goes away while 8 trials write, and comes back after so many seconds.

    Without ASHA, and before TPE looks at any, what a trial is does not depend on which of them is first.
    """
    count = Count()
    environment = plain_environment(
        root, RAY_AUTH_MODE="disabled", OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true"
    )
    budget = ["--trials", "8", "--images", "18000", "--scheduler", "none", "--train.eval_every", "600"]
    with (
        short_folder() as folder,
        ray_head(folder / "head", environment, "--num-cpus=8") as address,
        places(root, [*SMALL, *budget], RAY_ADDRESS=address, RAY_AUTH_MODE="disabled") as make,
    ):
        calm = undisturbed(lambda name: make(name, RAY_ADDRESS="local"))
        while count.kills < rounds:
            port = free_port()
            uri = f"http://127.0.0.1:{port}"
            place = make(f"disturbed-{count.sweeps}", MLFLOW_TRACKING_URI=uri)
            store, artifacts = f"sqlite:///{place.folder}/mlflow.db", place.folder / "artifacts"
            with mlflow_server(store, artifacts, environment, port):
                driver = place.start()
                wait_for("a report of each trial", lambda place=place: len(place.writing()) == 8, driver)
            count.kills += 1
            away = time.monotonic()
            before = place.reports()
            while time.monotonic() - away < seconds and driver.poll() is None:
                time.sleep(0.5)
            kept = place.reports() - before
            if driver.poll() is not None or kept < 8:
                raise Wrong(f"the sweep was over while the tracker was away, or made too few reports ({kept})")
            print(f"outage {count.kills}: {time.monotonic() - away:.0f} s, {kept} reports kept meanwhile", flush=True)
            with mlflow_server(store, artifacts, environment, port):
                ours = place.finish(driver)
            count.points += check_run(place, ours, calm.place, calm.table)
            count.sweeps += 1
    return count


def disturb(what: str, rounds: int, seed: int, root: Path) -> Count:
    """Run the calm sweep, then disturbed ones until so many rounds are done."""
    dice, count = random.Random(seed), Count()
    # To start a group of workers takes longer than to train it: so few trials, all of them to their end.
    workers = ["--workers", "2", "--trials", "3", "--scheduler", "none"] if what == "worker" else []
    with places(root, [*SMALL, *BUDGET, *workers]) as make:
        calm = undisturbed(make)
        kill, longest = {
            "driver": (kill_driver, calm.seconds / 2),
            "actor": (kill_process(ACTOR), calm.interval),
            "worker": (kill_process(WORKER), calm.interval),
        }[what]
        while count.kills < rounds:
            # Every second one makes its tracker itself, and may be killed while it does.
            place = make(f"disturbed-{count.sweeps}", with_tracker=count.sweeps % 2 == 0)
            ours = kill(place, dice, rounds - count.kills, longest, count)
            found = check_run(place, ours, calm.place, calm.table)
            count.sweeps += 1
            count.points += found
            print(f"sweep {count.sweeps}: as the undisturbed one, {found} points once each", flush=True)
    return count


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=at_least(1), default=20, help="kills in all (20)")
    options.add_argument("--what", choices=("driver", "actor", "worker", "raylet", "tracker"), default="driver")
    options.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    options.add_argument("--seconds", type=at_least(0, float), default=60, help="that a tracker is away (60)")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and with it ends what it has started
    with tempfile.TemporaryDirectory(prefix="vq", ignore_cleanup_errors=True) as folder:
        try:
            match chosen.what:
                case "raylet":
                    count = disturb_raylet(chosen.rounds, chosen.seed, Path(folder))
                case "tracker":
                    count = disturb_tracker(chosen.rounds, chosen.seconds, Path(folder))
                case what:
                    count = disturb(what, chosen.rounds, chosen.seed, Path(folder))
        except Wrong as error:
            print(f"WRONG: {error}", file=sys.stderr)
            raise SystemExit(1) from None
    print(
        f"{count.kills} kills ({chosen.what}) in {count.sweeps} sweeps: {count.kept} times a finished trial outlived "
        f"one, none was lost; {count.continued} times a trial went on, always from its last report or later; "
        f"{count.points} metric points, each once; all {count.sweeps} final tables as undisturbed"
    )


if __name__ == "__main__":
    main()
