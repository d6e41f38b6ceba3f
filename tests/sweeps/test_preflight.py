"""What a sweep will cost: its corners, what is measured of them, and what follows from it for the plan."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps import _measure
from sweeps import _preflight as preflight
from sweeps._launch import with_dataset
from sweeps._measure import Measured, TooLarge
from sweeps._plan import Plan, in_parts, make_plan
from sweeps._search import config_of
from sweeps._settings import parse
from sweeps._space import Sweep, choice, integer, log_uniform, only_if
from vqvae_core.config import Experiment
from vqvae_core.data import prepare
from vqvae_core.train import Report, fit

GIB = 1 << 30
SWEEPS = Path(__file__).parents[2] / "sweeps"


def sized(**more: object) -> Sweep:
    space = {
        "train.lr": log_uniform(1e-4, 1e-2),
        "train.batch_size": choice(8, 32),
        "model.num_codes": integer(4, 64),
    }
    return Sweep(name="sized", question="?", space=space, known={}, **more)  # type: ignore[arg-type]


def plan_of(sweep: Sweep, *arguments: str) -> Plan:
    """The plan of a command line on the digits that leaves the model's sizes to the sweep."""
    return make_plan(sweep, parse(sweep, ["--dataset", "digits", *arguments], "sweeps/sized.py"))


def by_part(limit: int) -> preflight.Runner:
    """A machine on which a trial may take ``limit`` images at a time."""

    def run(plan: Plan, experiment: Experiment) -> Measured:
        part = experiment.train.batch_size // experiment.train.accumulate
        if part > 2 * limit:
            raise TooLarge("CUDA out of memory")
        return Measured(0.1, 1.0, part * GIB, int(limit * GIB / preflight.HEADROOM) + 1, 1 << 20)

    return run


def test_corners_are_the_ends_of_what_changes_sizes(workplace: Path) -> None:
    plan = plan_of(sized())
    found = preflight.corners(plan)
    assert [(point["train.batch_size"], point["model.num_codes"]) for point in found] == [
        (8, 4),
        (32, 4),
        (8, 64),
        (32, 64),
    ]
    assert len({point["train.lr"] for point in found}) == 1


def test_a_dimension_without_a_meaning_makes_no_corner(workplace: Path) -> None:
    space = {
        "model.quantizer": choice("gradient", "ema"),
        "model.num_codes": only_if("model.quantizer", ["ema"], integer(4, 64)),
    }
    found = preflight.corners(plan_of(Sweep("some", "?", space, known={})))
    assert [tuple(point.values()) for point in found] == [("ema", 4), ("gradient",), ("ema", 64)]


def test_of_many_corners_the_smallest_and_the_largest_are_among_those_measured(workplace: Path) -> None:
    space = {name: integer(2, 4) for name in ("model.num_codes", "model.code_dim", "model.hidden")}
    space["train.batch_size"] = choice(4, 8)
    found = preflight.corners(plan_of(Sweep("many", "?", space, known={})))
    assert len(found) == preflight.MOST
    assert list(found[0].values()) == [2, 2, 2, 4]
    assert list(found[-1].values()) == [4, 4, 4, 8]


def test_a_batch_that_does_not_fit_is_cut_as_the_report_did(workplace: Path) -> None:
    plan = plan_of(sized(), "--concurrent", "2")
    cut, text = preflight.full(plan, by_part(4))
    assert cut.part == 4
    assert "8 x 4" not in text and "4 x 8" in text  # 32 images, four at a time
    cut, text = preflight.full(plan, by_part(8))
    assert cut.part == 8 and "8 x 4" in text
    large, small = ({"train.lr": 1e-3, "train.batch_size": batch, "model.num_codes": 4} for batch in (32, 8))
    assert (cut.experiment(large).train.batch_size, cut.experiment(large).train.accumulate) == (32, 4)
    assert (cut.experiment(small).train.batch_size, cut.experiment(small).train.accumulate) == (8, 1)
    assert cut.concurrent == 1  # one such trial fills the machine
    assert preflight.full(plan, by_part(1000))[0].part is None
    assert preflight.full(plan, by_part(1000))[0].concurrent == 2


def test_what_does_not_fit_at_all_is_one_line(workplace: Path) -> None:
    with pytest.raises(ValueError, match=r"^preflight: .*num_codes 4 does not fit, not even one image at a time: .*$"):
        preflight.full(plan_of(sized()), by_part(0))


def test_a_part_is_that_of_one_worker_and_divides_the_batch(make: Callable[..., Plan]) -> None:
    base = make().base
    for batch, workers, most, parts in [(32, 1, 8, 4), (32, 2, 8, 2), (12, 1, 5, 3), (7, 1, 3, 7), (8, 1, 8, 1)]:
        experiment = replace(base, train=replace(base.train, batch_size=batch))
        assert in_parts(experiment, workers, most).train.accumulate == parts
        assert in_parts(experiment, workers, None) == experiment


def test_time_and_disk_follow_from_what_was_measured(workplace: Path) -> None:
    plan = plan_of(sized(), "--trials", "6", "--images", "3200", "--concurrent", "2", "--keep", "2")
    corners = [preflight.fitting(plan, point, by_part(1000)) for point in preflight.corners(plan)]
    # 400 steps of 8 images at 0.1 s, and 9 reports at 1 s, three times one after the other.
    reports = -(-3200 // plan.base.train.report_interval)
    assert preflight.seconds_of_all(plan, corners, most=True) == pytest.approx((40 + reports) * 3)
    assert preflight.seconds_of_all(plan, corners, most=False) == pytest.approx((25 + reports) * 3)
    assert preflight.disk(plan, corners) == 6 * 4 * (1 << 20)


def test_checkpoints_that_the_disk_has_no_room_for_are_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(sized(), "--trials", "6", "--keep", "2")
    run = by_part(1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=(24 << 20) - 1))  # for 24 of a MiB
    refused = r"^preflight: the checkpoints of all runs take 24 MiB; allowed are the 24 MiB free in .*--keep.*$"
    with pytest.raises(ValueError, match=refused):
        preflight.full(plan, run)
    assert preflight.short(plan, run).endswith(
        "24 MiB of disk are free: fewer --trials, a smaller --keep or another --out"
    )
    plan.folder.mkdir(parents=True)
    (plan.folder / "left").write_bytes(b"1")  # by this sweep, which is continued
    assert "disk: 24 MiB of checkpoints" in preflight.full(plan, run)[1]
    assert "disk are free" not in preflight.short(plan, run)


def test_measuring_trains_evaluates_and_leaves_nothing(make: Callable[..., Plan], workplace: Path) -> None:
    plan = make("--images", "4000")
    plan = with_dataset(plan, prepare(plan.base.data))
    before = sorted(workplace.rglob("*"))
    found = _measure.measure(config_of(plan.base, Path(), plan), 4)
    assert sorted(workplace.rglob("*")) == before
    assert 0 < found.seconds < 60 and found.evaluation > 0
    assert found.checkpoint > 10_000
    assert 50 << 20 < found.memory <= found.free
    short = _measure.measure(config_of(plan.base, Path(), plan), 3, short=True)
    assert short.evaluation == 0 and abs(short.checkpoint - found.checkpoint) < 2000  # metrics
    wider = replace(plan, base=make("--model.hidden", "64").base)
    wide = _measure.measure(config_of(wider.base, Path(), wider), 3, short=True)
    assert wide.checkpoint > 4 * short.checkpoint


LITTLE_MEMORY = """
import json, resource, sys
from sweeps import _measure

_measure.memory_left = lambda: 8 << 20
before = resource.getrlimit(resource.RLIMIT_DATA)
try:
    _measure.measure(json.load(sys.stdin), 3, short=True)
except _measure.TooLarge as error:
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    print(f"too large: {error}")
"""


def test_what_the_machine_has_not_got_is_too_large_and_nobody_is_killed(make: Callable[..., Plan]) -> None:
    plan = make("--model.hidden", "128", "--train.batch_size", "1024", "--images", "4096")
    plan = with_dataset(plan, prepare(plan.base.data))
    config = json.dumps(config_of(plan.base, Path(), plan))
    # In a process of its own, as always: torch does not get over it.
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY],
        input=config,
        env={**os.environ, "PYTHONPATH": str(SWEEPS.parent)},
        capture_output=True,
        text=True,
    )
    assert re.fullmatch(r"too large: .+\n", done.stdout), done.stdout + done.stderr

    def refused(plan: Plan, experiment: Experiment) -> Measured:
        raise TooLarge("no memory")

    assert "does not fit into this machine's memory (no memory)" in preflight.short(plan, refused)


def test_the_first_step_which_loads_much_is_not_what_a_step_takes(
    make: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make("--images", "4000")
    plan = with_dataset(plan, prepare(plan.base.data))
    seconds = iter([0.0, 30.0, 30.5, 99.0])  # the beginning, two steps, the end
    monkeypatch.setattr(_measure, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))

    def reports(watch: Callable[[int], bool]) -> list[Report]:
        stopped = [watch(32 * step) for step in (1, 2)]
        assert stopped == [False, True]  # it has taken long enough
        return [Report(64, {}, next(iter(fit(plan.base, None, prepare(plan.base.data)))).state)]

    monkeypatch.setattr(_measure, "fit", lambda experiment, state, dataset, watch: reports(watch))
    assert _measure.measure(config_of(plan.base, Path(), plan), 4, short=True).seconds == 0.5


def test_the_short_form_is_a_line_that_names_time_memory_and_disk(make: Callable[..., Plan]) -> None:
    plan = make("--trials", "4", "--images", "4000")
    plan = with_dataset(plan, prepare(plan.base.data))
    assert re.fullmatch(
        r"[\d.e-]+ s a step, [\d.]+ [GM]iB a trial, at most [\d:]+ of training and [\d.]+ [KM]iB of checkpoints",
        preflight.short(plan, lambda plan, experiment: Measured(0.007, 0.0, 999 << 20, 1 << 34, 360_000)),
    )
    assert preflight.size_of(999.7 * 1024**2) == "0.976 GiB"


@pytest.mark.slow
def test_only_measuring_writes_neither_tracker_nor_study(tracked: Path, workplace: Path) -> None:
    (tracked / "mlflow.db").unlink()
    command = [sys.executable, str(SWEEPS / "batch_size.py"), "--dataset", "digits", "--trials", "4", "--images", "600"]
    command += ["--model.hidden", "8", "--train.calibration_images", "64", "--preflight", "--dry-run"]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tracked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("preflight, 20 steps of each corner:") :].splitlines()
    assert table[1].split()[:4] == ["batch", "memory", "s/step", "s/report"]
    assert [line.split()[0] for line in table[3:-4]] == ["32", "128"]
    assert [line.split(":")[0] for line in table[-4:]] == ["memory", "trials at once", "time", "disk"]
    assert sorted(path.name for path in tracked.iterdir()) == ["data"]
