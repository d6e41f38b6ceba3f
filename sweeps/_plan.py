"""A sweep resolved: what will run, on what, and where its results go; checked before anything is written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import atari_collect
from sweeps._budget import Budget
from sweeps._cluster import Cluster, find
from sweeps._even import STARTUP
from sweeps._health import NO_LIMITS, Limits
from sweeps._images import game_of, to_be_collected
from sweeps._objectives import FIRST, LABELS
from sweeps._settings import Settings
from sweeps._space import Point, Sweep, describe, fields_of, known_points
from vqvae_core.config import Experiment, SecondStageConfig
from vqvae_core.data import KNOWN
from vqvae_core.data.prepare import find_source, folder_of
from vqvae_core.overrides import flatten, with_overrides
from vqvae_core.presets import preset_for
from vqvae_core.second_stage import pinned

# Of ASHA, by `python -m benchmarks.search_quality`: from a ninth of the budget on, a trial goes on while it is among
# the best third of those that came there; one that has come half way is trained to its end. A rung at a third as well
# stops what learns slowly, once the searcher proposes little else than good points.
RUNGS = {9: 3, 2: 1}  # this part of the budget: the best such part of the trials
REPORTS = 9  # of a trial, so that there is one at every rung


@dataclass(frozen=True)
class Plan:
    """Everything a sweep needs to know, fixed before it starts."""

    sweep: Sweep
    name: str
    base: Experiment
    trials: int
    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    concurrent: int
    seeds: int
    confirm: int
    scheduler: str
    folder: Path
    tracking_uri: str
    storage: str
    cluster: Cluster
    objectives: tuple[str, ...] = (FIRST,)
    limits: Limits = NO_LIMITS
    restarts: int = 2  # of a trial whose process died, without progress in between
    keep: int = 1  # best checkpoints of each trial, besides its last two
    preflight: bool = False  # whether all corners are measured first
    part: int | None = None  # images that one worker takes at a time, where preflight found that more do not fit
    budget: Budget | None = None  # of training in all
    cache: bool = True  # whether a trial that is complete in the tracker is taken from there
    dataset_folder: Path = Path()  # known once the images are there
    data_fingerprint: str = ""
    data_tags: Point = field(default_factory=dict)

    @property
    def experiment_name(self) -> str:
        """The tracker's experiment: ``<dataset>/<study>``."""
        return f"{self.base.data.name}/{self.sweep.name}"

    @property
    def rungs(self) -> dict[int, int]:
        """Images seen from which ASHA compares trials, each with the part that goes on; none without it."""
        if self.scheduler != "asha":
            return {}
        return {self.base.train.images // part: reduction for part, reduction in RUNGS.items()}

    @property
    def grace(self) -> int:
        """Images that a trial may see before it can be stopped for its codebook."""
        return self.base.train.images // REPORTS

    def experiment(self, point: Point, seed: int | None = None) -> Experiment:
        """The experiment at a point, which may name another ``model.type``; ``ValueError`` when it cannot be."""
        fields = dict(fields_of(self.sweep, point))
        base = of_kind(self.base, fields.pop("model.type", self.base.model.type))
        changed = in_parts(with_overrides(base, fields), self.workers, self.part)
        return changed if seed is None else replace(changed, seed=seed)

    def identity(self) -> dict[str, Any]:
        """What may not change when a sweep of this name is continued."""
        same_elsewhere = ["data.root", "data.source", "train.device", "train.eval_batch"]
        if self.sweep.fixed:  # each run may have a first stage of its own, which its checkpoints know
            same_elsewhere.append("model.first")
        fields = {k: v for k, v in flatten(self.base).items() if k not in same_elsewhere}
        space = {f"space {name}": describe(dimension) for name, dimension in self.sweep.space.items()}
        asked: dict[str, Any] = {"limits": self.limits.described()} if self.limits.given() else {}
        if len(self.objectives) > 1:
            asked["objectives"] = ", ".join(self.objectives)
        return {"sweep": self.sweep.name, **fields, **space, **asked, "data": self.data_fingerprint}


def in_parts(experiment: Experiment, workers: int, most: int | None) -> Experiment:
    """The experiment with its batch cut so that a worker takes at most so many images at a time."""
    share, parts = experiment.train.batch_size // workers, experiment.train.accumulate
    if most is None or share <= most * parts:
        return experiment
    parts = next(n for n in range(parts, share + 1) if share % n == 0 and share // n <= most)
    return with_overrides(experiment, {"train.accumulate": parts})


def make_plan(sweep: Sweep, settings: Settings) -> Plan:
    """Resolve and check; raises ``ValueError`` that names what cannot be. Writes and starts nothing."""
    base = base_experiment(sweep, settings)
    check_dataset(base)
    plan = Plan(
        sweep=sweep,
        name=settings.name or f"{sweep.name}-{base.data.name}",
        base=base,
        trials=0 if sweep.fixed else settings.trials,
        workers=settings.workers,
        cpus_per_worker=1,
        gpus_per_worker=0,
        concurrent=1,
        seeds=settings.seeds,
        confirm=settings.confirm,
        scheduler=settings.scheduler,
        folder=Path(),
        tracking_uri=absolute_sqlite(settings.tracking_uri),
        storage=absolute_sqlite(settings.storage),
        cluster=find(settings.workers > 1),
        objectives=settings.objectives,
        limits=settings.limits,
        keep=settings.keep,
        preflight=settings.preflight,
        budget=settings.budget,
        cache=settings.cache,
    )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", plan.name):
        raise ValueError(f"--name is {plan.name!r}; allowed are letters, digits, '_', '-' and '.'")
    if settings.budget and settings.budget.of_gpus and not plan.cluster.gpus:
        raise ValueError(f"--budget is {settings.budget.text!r}, but there is no GPU on {plan.cluster}; give a time")
    plan = replace(share_out(plan, settings), folder=(settings.out / plan.name).absolute())
    check_writable(plan.folder, "--out", str(settings.out))
    if plan.storage.startswith("sqlite:///"):
        check_writable(Path(plan.storage.removeprefix("sqlite:///")).parent, "--storage", plan.storage, made=False)
    for point in sweep.fixed.values() or known_points(sweep, flatten(base)).values() or [{}]:
        check_batch(plan, plan.experiment(point))
    return plan


def check_writable(folder: Path, flag: str, value: str, made: bool = True) -> None:
    """``ValueError`` when a folder cannot be written to; one that is ``made`` on the way need not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK) or (there != folder and not made):
        what = there if made else folder
        raise ValueError(f"{flag} is {value}; allowed is a place to write, but {what} is not a writable folder")


def check_batch(plan: Plan, experiment: Experiment) -> None:
    """``ValueError`` when a batch cannot be cut into equal parts for the workers."""
    batch, parts = experiment.train.batch_size, experiment.train.accumulate
    if experiment.train.images < batch:
        raise ValueError(f"train.images is {experiment.train.images}; allowed is at least train.batch_size, {batch}")
    if batch % (plan.workers * parts):
        raise ValueError(
            f"train.batch_size is {batch}; allowed is a multiple of {plan.workers * parts} "
            f"(--workers {plan.workers} x train.accumulate {parts})"
        )


def base_experiment(sweep: Sweep, settings: Settings) -> Experiment:
    """The preset of the data set with the sweep's, the flags' and the user's changes, in that order."""
    name = settings.dataset
    experiment = preset_of(name, sweep.model)
    changes: dict[str, Any] = {"data.name": name, **sweep.base}
    if settings.data_source is not None:
        changes["data.source"] = settings.data_source
    if "VQSWEEP_DATA" in os.environ:
        changes["data.root"] = os.environ["VQSWEEP_DATA"]
    if settings.images:
        changes["train.images"] = settings.images
    for flag, given, name in (
        ("--dataset", settings.dataset, "data.name"),  # which chooses the preset too
        ("--images", settings.images, "train.images"),
        ("--data-source", settings.data_source, "data.source"),
    ):
        if name in settings.overrides and given is not None:
            raise ValueError(f"--{name} is {settings.overrides[name]} beside {flag} {given}; allowed is one, {flag}")
    swept = set(sweep.space) & set(settings.overrides)
    if swept:
        name = swept.pop()
        raise ValueError(
            f"{name} is {settings.overrides[name]!r}, but the sweep varies it: {describe(sweep.space[name])}"
        )
    experiment = with_overrides(experiment, {**changes, **settings.overrides})
    if not experiment.train.eval_every:
        interval = -(-experiment.train.images // REPORTS)
        experiment = with_overrides(experiment, {"train.eval_every": interval})
    root = Path(experiment.data.root).absolute()
    return pinned(with_overrides(experiment, {"data.root": str(root)}))


def preset_of(name: str, model: str) -> Experiment:
    """The preset of a data set; any Atari game takes Boxing's."""
    return preset_for("boxing" if game_of(name) else name, model)


def of_kind(base: Experiment, kind: str) -> Experiment:
    """An experiment with the preset of another kind of model, as far as that allows with the same changes to it."""
    if kind == base.model.type:
        return base
    before, preset = flatten(preset_of(base.data.name, base.model.type)), preset_of(base.data.name, kind)
    changes = {
        name: value
        for name, value in flatten(base).items()
        if name.startswith("model.") and name in flatten(preset) and value != before[name] and name != "model.type"
    }
    return with_overrides(replace(base, model=preset.model), changes)


def check_dataset(base: Experiment) -> None:
    """``ValueError`` when the images can be had from nowhere; reads no more than a list of files."""
    data = base.data
    if to_be_collected(data):
        atari_collect.check(data.name, data.frames)
        return
    if (folder_of(data) / "dataset.json").exists() or (data.source is None and data.name in KNOWN):
        return  # there, or to be downloaded
    find_source(data, atari_collect.near_games(data.name))


def share_out(plan: Plan, settings: Settings) -> Plan:
    """Trials at once and what each worker gets; ``ValueError`` when one trial is more than the whole cluster."""
    cpus, gpus, workers = plan.cluster.cpus, plan.cluster.gpus, plan.workers
    wanted = settings.gpus_per_trial
    per_worker = (min(1.0, gpus) if wanted is None else wanted / workers) if gpus or wanted else 0.0
    if per_worker * workers > gpus:
        raise ValueError(
            f"--gpus-per-trial is {per_worker * workers:g}; allowed is up to {gpus}, the GPUs of {plan.cluster}"
            if wanted is not None
            else f"--workers is {workers}; allowed is up to {gpus}, the GPUs of {plan.cluster}"
        )
    if plan.base.train.device == "cuda" and not gpus:
        raise ValueError(f"train.device is 'cuda'; allowed is auto or cpu on {plan.cluster}")
    if workers > cpus:
        raise ValueError(f"--workers is {workers}; allowed is up to {cpus}, the CPUs of {plan.cluster}")
    most = int(cpus // workers)
    if per_worker:
        most = min(most, int(gpus / (per_worker * workers) + 1e-9))
    concurrent = settings.concurrent or min(most, settings.trials)
    if concurrent > most:
        raise ValueError(f"--concurrent is {concurrent}; allowed is up to {most} on {plan.cluster}")
    return replace(
        plan,
        concurrent=concurrent,
        gpus_per_worker=per_worker,
        cpus_per_worker=max(1, cpus // (concurrent * workers)),
    )


def absolute_sqlite(url: str) -> str:
    """``sqlite:///file.db`` with the file's absolute path: Ray's processes have folders of their own."""
    kind, separator, path = url.partition(":///")
    if kind == "sqlite" and separator and path and not path.startswith("/"):
        return f"sqlite:///{Path(path).absolute()}"
    return url


def describe_plan(plan: Plan) -> str:
    """The plan as a user reads it."""
    preset = preset_of(plan.base.data.name, plan.sweep.model)
    before = flatten(preset)
    changed = [
        f"{name} = {value}"
        for name, value in flatten(plan.base).items()
        if before.get(name) != value and not name.startswith("data.")
    ]
    known = known_points(plan.sweep, flatten(plan.base))
    points = [f"{origin}: {point_text(point)}" for origin, point in list(known.items())[: plan.trials]]
    points += [f"{name}: {point_text(point)}" for name, point in plan.sweep.fixed.items()]
    if plan.trials > len(known):
        later = f", by TPE once {STARTUP} have ended" if plan.trials > STARTUP else ""
        points.append(f"{plan.trials - len(known)} spread evenly{later}")
    worker = f"{plan.cpus_per_worker:g} CPU" + (f" and {plan.gpus_per_worker:g} GPU" if plan.gpus_per_worker else "")
    rungs = " to ".join(f"{rung:,}" for rung in plan.rungs)
    entries = {
        "sweep": [plan.name, plan.sweep.question],
        "data": [data_line(plan)],
        "model": [f"preset {preset.data.name}_{plan.base.model.type}", *changed],
        "space": [f"{name} in {describe(dimension)}" for name, dimension in plan.sweep.space.items()],
        "points": points,
        "budget": [f"{len(plan.sweep.fixed)} runs, each trained to its end and tested"]
        if plan.sweep.fixed
        else [
            f"{plan.trials} trials x {plan.base.train.images:,} images at most",
            f"ASHA lets the best third go on, from {rungs} images"
            if plan.scheduler == "asha"
            else "none is stopped early",
        ]
        + ([f"stops when {plan.budget.text} of training are spent"] if plan.budget else []),
        "seeds": [seeds_line(plan)],
        "objective": objective_lines(plan),
        "resources": [
            f"{plan.concurrent} at once, each {plan.workers} x {worker}, on {plan.cluster}",
        ],
        "results": [str(plan.folder)],
        "tracker": [f"{plan.tracking_uri}, experiment {plan.experiment_name}"],
        "study": [f"{plan.storage}, {plan.name}"],
    }
    return "\n".join(
        f"{title if not i else '':10}{line}" for title, lines in entries.items() for i, line in enumerate(lines)
    )


def objective_lines(plan: Plan) -> list[str]:
    """What is minimised, and what a winner's codebook must keep to."""
    prior = "learned" if isinstance(plan.base.model, SecondStageConfig) else "unigram"
    lines = [f"least valid/bits_per_dim: distortion plus rate under the {prior} prior"]
    if len(plan.objectives) > 1:
        further = " and ".join(LABELS[name] for name in plan.objectives[1:])
        lines.append(f"and least {further}: the trials that no other beats in all are the Pareto front")
    if plan.limits.given():
        stopped = f"; a trial that breaks one from {plan.grace:,} images on is stopped" if plan.limits.prune else ""
        lines.append(f"codebook: {plan.limits.described()}{stopped}")
    return lines


def data_line(plan: Plan) -> str:
    data = plan.base.data
    if to_be_collected(data):
        return f"{data.name}, {data.frames:,} frames of {game_of(data.name)} to be collected"
    folder = folder_of(data)
    if (folder / "dataset.json").exists():
        return f"{data.name}, prepared in {folder}"
    return f"{data.name}, " + (f"to be read from {data.source}" if data.source else "to be downloaded")


def seeds_line(plan: Plan) -> str:
    first = plan.base.seed
    if plan.sweep.fixed:
        return "as the points say" if any("seed" in point for point in plan.sweep.fixed.values()) else str(first)
    if plan.seeds == 1:
        return f"{first}, one for every trial"
    last = first + plan.seeds - 1
    return (
        f"{first} for the search; then the best {plan.confirm} with {first} to {last}, at most {extra_runs(plan)} runs"
    )


def extra_runs(plan: Plan) -> int:
    """Runs that confirming adds."""
    return min(plan.confirm, plan.trials) * (plan.seeds - 1)


def point_text(point: Point) -> str:
    """``beta 0.25, lr 0.0002``."""
    return ", ".join(f"{name.rpartition('.')[2]} {short(value)}" for name, value in point.items())


def short(value: Any) -> str:
    """A value with three digits where it has more."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
