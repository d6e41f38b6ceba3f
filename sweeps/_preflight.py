"""What a sweep will cost, measured before it starts: its corner configurations, trained for a few steps.

Only what changes sizes makes a corner: whole numbers and choices. A learning rate costs the same everywhere.
"""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps._cluster import connect
from sweeps._display import clock
from sweeps._measure import HEADROOM, Measured, TooLarge, measure
from sweeps._plan import Plan, point_text
from sweeps._ranking import table
from sweeps._search import config_of
from sweeps._space import Dimension, Point, counts
from vqvae_core.config import Experiment
from vqvae_core.overrides import first_line, flatten, with_overrides

STEPS = 20  # of each corner; the first ones are not typical, so the median counts
SHORT = 4  # of the largest corner, where nobody asked for more; the last would be evaluated, and is left out
MOST = 8  # corners


@dataclass(frozen=True)
class Corner:
    """One configuration, cut into as many parts as it needs to fit, and what it cost."""

    point: Point
    experiment: Experiment
    measured: Measured


def values_of(dimension: Dimension) -> list[Any]:
    """The values of a dimension that corners have: the ends of what changes sizes, the middle of what does not."""
    match dimension.distribution:
        case IntDistribution(low=low, high=high):
            return [low, high]
        case FloatDistribution(low=low, high=high, log=log):
            return [math.sqrt(low * high) if log else (low + high) / 2]
        case CategoricalDistribution(choices=choices):
            if any(isinstance(choice, float) for choice in choices):
                return [choices[0]]
            whole = [choice for choice in choices if isinstance(choice, int) and not isinstance(choice, bool)]
            return sorted({min(whole), max(whole)}) if len(whole) == len(choices) else list(choices)
    raise TypeError(f"no corner is known of {dimension.distribution}")


def weight(experiment: Experiment) -> float:
    """A guess at how much a configuration costs beside others of its sweep, to have an order."""
    fields = flatten(experiment)
    counted = ("train.batch_size", "model.hidden", "model.num_codes", "model.code_dim", "model.codes_per_position")
    return math.prod(float(fields.get(name) or 1) for name in counted)


def corners(plan: Plan) -> list[Point]:
    """The corner points, the largest last; ``MOST`` of them, the smallest and the largest included."""
    base = flatten(plan.base)
    if plan.sweep.fixed:
        found = [dict(point) for point in plan.sweep.fixed.values()]
    else:
        found = []
        names = list(plan.sweep.space)
        for values in itertools.product(*(values_of(plan.sweep.space[name]) for name in names)):
            point: Point = {}
            for name, value in zip(names, values, strict=True):
                if counts(plan.sweep, name, point, base):
                    point[name] = value
            if point not in found:
                found.append(point)
    found.sort(key=lambda point: weight(plan.experiment(point)))
    if len(found) <= MOST:
        return found
    return [found[round(place * (len(found) - 1) / (MOST - 1))] for place in range(MOST)]


Runner = Callable[[Plan, Experiment], Measured]


def in_its_own_process(plan: Plan, experiment: Experiment, steps: int = STEPS, short: bool = False) -> Measured:
    """``measure`` where trials run; raises ``TooLarge`` also when the machine killed the process for its memory."""
    import ray
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    connect(plan.cluster, with_groups=plan.workers > 1)
    gpus = 1 if plan.gpus_per_worker else 0  # alone on it, for its memory is looked at as a whole
    remote = ray.remote(num_cpus=plan.cpus_per_worker, num_gpus=gpus, max_calls=1, max_retries=0)(measure)
    try:
        found: Measured = ray.get(remote.remote(config_of(experiment, Path(), plan), steps, short))
    except (OutOfMemoryError, WorkerCrashedError) as error:
        raise TooLarge(first_line(error)) from None
    except RayTaskError as error:
        raise error.cause from None
    return found


briefly = partial(in_its_own_process, steps=SHORT, short=True)


def fitting(plan: Plan, point: Point, run: Runner) -> Corner:
    """A corner with its batch cut into as few parts as fit, whose gradients add up: the report had 8 x 4 images.

    Raises ``ValueError`` when not even single images fit.
    """
    experiment, reason = plan.experiment(point), ""
    share = experiment.train.batch_size // plan.workers  # of one worker
    for parts in range(experiment.train.accumulate, share + 1):
        if share % parts or (parts & (parts - 1) and parts != share):  # 1, 2, 4 ..., and at last single images
            continue
        tried = with_overrides(experiment, {"train.batch_size": share, "train.accumulate": parts})
        try:
            found = run(plan, tried)
        except TooLarge as error:
            reason = str(error)
            continue
        if fits(found):
            return Corner(point, with_overrides(experiment, {"train.accumulate": parts}), found)
        reason = f"it takes {size_of(found.memory)} of {size_of(found.free)}"
    raise ValueError(
        f"preflight: {point_text(point) or 'the configuration'} does not fit, not even one image at a time: {reason}"
    )


def fits(found: Measured) -> bool:
    """Whether a trial alone on its device or machine has enough memory."""
    return not found.free or found.memory <= HEADROOM * found.free


def largest_part(plan: Plan, found: Sequence[Corner]) -> int | None:
    """Images that one worker may take at a time, None where no batch had to be cut."""
    cut = [c.experiment for c in found if c.experiment.train.accumulate > plan.base.train.accumulate]
    return min((e.train.batch_size // (plan.workers * e.train.accumulate) for e in cut), default=None)


def at_once(plan: Plan, found: Sequence[Corner]) -> int:
    """Trials that fit beside each other, by the largest corner; at most those that were planned."""
    if plan.gpus_per_worker:  # shares of a GPU: as many as its memory has room for
        shared = max(1, round(1 / plan.gpus_per_worker))
        room = min(shared, trials_per_device(found))
        return max(1, plan.concurrent * room // shared)
    if plan.cluster.address != "local":
        return plan.concurrent  # which machine gets which trial is Ray's affair
    return max(1, min(plan.concurrent, trials_per_device(found) // plan.workers))


def trials_per_device(found: Sequence[Corner]) -> int:
    """Processes like the largest corner's that a GPU, or else the machine, has memory for."""
    return min((int(HEADROOM * c.measured.free / c.measured.memory) for c in found if c.measured.free), default=1 << 30)


def seconds_of_all(plan: Plan, found: Sequence[Corner], most: bool) -> float:
    """Seconds of the whole search if no trial is stopped early: of the mean corner, or of the slowest."""
    images = plan.base.train.images
    reports = math.ceil(images / plan.base.train.report_interval)
    each = [
        c.measured.seconds * images / c.experiment.train.batch_size + c.measured.evaluation * reports for c in found
    ]
    trials = len(plan.sweep.fixed) or plan.trials
    return (max(each) if most else statistics.mean(each)) * math.ceil(trials / plan.concurrent)


def disk(plan: Plan, found: Sequence[Corner]) -> int:
    """Bytes of checkpoints at the end: the last two and the best of each run."""
    kept = 2 + plan.keep
    runs = (len(plan.sweep.fixed) or plan.trials) + min(plan.confirm, plan.trials) * (plan.seeds - 1)
    return max(c.measured.checkpoint for c in found) * kept * runs


def disk_room(plan: Plan) -> int:
    """Bytes that the checkpoints may take: what is free, and what those of a continued sweep have already."""
    own = sum(path.stat().st_size for path in plan.folder.rglob("*") if path.is_file())
    return shutil.disk_usage(existing(plan.folder)).free + own


def report(plan: Plan, found: Sequence[Corner]) -> str:
    """The table of the corners, and what they mean for the sweep."""
    lines = [["batch", "memory", "s/step", "s/report", "checkpoint", "corner"]]
    for corner in found:
        train, measured = corner.experiment.train, corner.measured
        batch = f"{train.batch_size // train.accumulate} x {train.accumulate}"
        lines.append(
            [
                batch if train.accumulate > 1 else str(train.batch_size),
                size_of(measured.memory),
                f"{measured.seconds:.3g}",
                f"{measured.evaluation:.3g}",
                size_of(measured.checkpoint),
                point_text(corner.point) or "the only one",
            ]
        )
    room, last = trials_per_device(found), found[-1].measured
    share = f": --gpus-per-trial {1 / room:.3g}" if plan.gpus_per_worker and room > 1 else ""
    entries = [
        f"memory: {size_of(last.free)} for trials, room for {room} of the largest at once{share}",
        f"trials at once: {plan.concurrent}",
        f"time: {clock(seconds_of_all(plan, found, False))} if no trial is stopped early, at most "
        f"{clock(seconds_of_all(plan, found, True))}",
        f"disk: {size_of(disk(plan, found))} of checkpoints; {size_of(disk_room(plan))} are free",
    ]
    return "\n".join([f"preflight, {STEPS} steps of each corner:", table(lines), *entries])


def existing(folder: Path) -> Path:
    """The folder or the first one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def size_of(number: float) -> str:
    """``1.4 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if number < 999.5:  # of which three digits are 1000
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} GiB"


def adjusted(plan: Plan, found: Sequence[Corner]) -> Plan:
    """The plan with as many trials at once as fit, and the batches cut that do not."""
    concurrent = at_once(plan, found)
    cpus = plan.cpus_per_worker
    if concurrent < plan.concurrent and plan.cluster.address == "local" and not plan.gpus_per_worker:
        cpus = max(1, plan.cluster.cpus // (concurrent * plan.workers))
    return replace(plan, concurrent=concurrent, cpus_per_worker=cpus, part=largest_part(plan, found) or plan.part)


def full(plan: Plan, run: Runner = in_its_own_process) -> tuple[Plan, str]:
    """Measure all corners with ``STEPS`` steps each; the plan as it can run, and the table.

    Raises ``ValueError`` for a corner that cannot be trained however its batch is cut, and for checkpoints that have
    no room.
    """
    found = [fitting(plan, point, run) for point in corners(plan)]
    plan = adjusted(plan, found)
    wanted, room = disk(plan, found), disk_room(plan)
    if wanted > room:
        raise ValueError(
            f"preflight: the checkpoints of all runs take {size_of(wanted)}; allowed are the {size_of(room)} free in "
            f"{plan.folder}: fewer --trials, a smaller --keep or another --out"
        )
    return plan, report(plan, found)


def short(plan: Plan, run: Runner = briefly) -> str:
    """A few steps of the largest corner, where trials run on the CPUs of this machine; one line.

    Empty on a GPU and on a cluster: a few steps say little there, and a worker may have to come up for them.
    """
    if plan.gpus_per_worker or plan.cluster.address != "local" or torch.cuda.is_available():
        return ""
    try:
        point = corners(plan)[-1]
        experiment = plan.experiment(point)
        measured = run(plan, experiment)
    except TooLarge as error:
        return f"the largest trial does not fit into this machine's memory ({error}): give --preflight"
    except (ValueError, ArithmeticError):  # a corner that cannot be: the trial that comes there will say why
        return ""
    found = [Corner(point, experiment, measured)]
    text = f"{measured.seconds:.2g} s a step, {size_of(measured.memory)} a trial, at most "
    text += f"{clock(seconds_of_all(plan, found, True))} of training and {size_of(disk(plan, found))} of checkpoints"
    if not fits(measured) or at_once(plan, found) < plan.concurrent:
        text += f"; {plan.concurrent} at once do not fit into {size_of(measured.free)}: give --preflight"
    if disk(plan, found) > (room := disk_room(plan)):
        text += f"; {size_of(room)} of disk are free: fewer --trials, a smaller --keep or another --out"
    return text
