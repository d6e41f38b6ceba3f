"""The command line of every sweep file: flags for the sweep, dotted names for everything else."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from sweeps._budget import Budget
from sweeps._health import Limits, with_flags
from sweeps._objectives import OBJECTIVES, checked
from sweeps._space import Sweep, describe
from vqvae_core.overrides import OneLineParser, at_least, describe_fields, split_overrides
from vqvae_core.presets import preset_for

DEFAULT_TRACKER = "sqlite:///mlflow.db"
DEFAULT_STORAGE = "sqlite:///optuna.db"


@dataclass(frozen=True)
class Settings:
    """What a user asked of a sweep, as typed."""

    dataset: str
    data_source: str | None
    trials: int
    images: int | None
    workers: int
    gpus_per_trial: float | None
    concurrent: int | None
    seeds: int
    confirm: int
    scheduler: str
    objectives: tuple[str, ...]
    limits: Limits
    name: str | None
    fresh: bool
    dry_run: bool
    keep: int
    preflight: bool
    budget: Budget | None
    cache: bool
    out: Path
    tracking_uri: str
    storage: str
    overrides: dict[str, str]


def budget(text: str) -> Budget:
    """An argparse type: a time, or hours of GPUs."""
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse(sweep: Sweep, arguments: list[str], program: str) -> Settings:
    """The settings of a command line; leaves with status 2 and one line when they cannot be meant."""
    parser = OneLineParser(
        program,
        description=sweep.question,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog=_fields_help(sweep),
    )
    add = parser.add_argument
    add("--dataset", default="boxing", metavar="NAME", help="data set: a known one, an Atari game, your own (boxing)")
    add("--data-source", metavar="DIR", help="folder of parquet files in the hub's layout, instead of a download")
    add("--trials", type=at_least(1), default=20, metavar="N", help="trials in all (20)")
    add("--images", type=at_least(1), metavar="N", help="images that a full trial is trained on (the preset's)")
    add("--workers", type=at_least(1), default=1, metavar="N", help="data-parallel workers of one trial (1)")
    add("--gpus-per-trial", type=at_least(0, float), metavar="X", help="GPUs of one trial, fractions too (1 a worker)")
    add("--concurrent", type=at_least(1), metavar="N", help="trials at once (as many as fit)")
    add("--seeds", type=at_least(1), default=1, metavar="N", help="seeds that the best trials are confirmed with (1)")
    add("--confirm", type=at_least(1), default=3, metavar="M", help="how many of the best are confirmed (3)")
    add("--scheduler", choices=("asha", "none"), default="asha", help="none: every trial is trained to its end (asha)")
    names = ",".join(OBJECTIVES)
    add("--objectives", metavar="NAMES", help=f"what is minimised, of {names}; several give a Pareto front")
    add("--min-perplexity", type=float, metavar="X", help="a winner's codes have at least this perplexity (any)")
    add("--max-dead-codes", type=float, metavar="X", help="a winner's share of unused codes is at most this (any)")
    add("--max-latent-growth", type=float, metavar="X", help="a winner's latents grow at most so many times (any)")
    add("--prune-unhealthy", action="store_true", default=None, help="stop trials that break such a limit early")
    add("--name", metavar="TEXT", help="name of the sweep; the same name continues it (the file's and the data set's)")
    add("--fresh", action="store_true", help="start over, under a new name")
    add("--dry-run", action="store_true", help="print the resolved plan and run nothing")
    add("--preflight", action="store_true", help="measure the corners of the space first; with --dry-run, only that")
    add("--keep", type=at_least(1), default=1, metavar="K", help="best checkpoints kept of each trial (1)")
    add("--budget", type=budget, metavar="TIME", help="stop, with checkpoints, after 90m, 4h or 20gpuh in all (none)")
    add("--no-cache", action="store_true", help="train also what is complete in the tracker already")
    add("--out", type=Path, metavar="DIR", help="where checkpoints go ($VQSWEEP_RUNS or runs)")
    add("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    add("--storage", metavar="URL", help=f"Optuna's ($VQSWEEP_STORAGE or {DEFAULT_STORAGE})")
    chosen, rest = parser.parse_known_args(arguments)
    for name in ("trials", "seeds", "confirm", "scheduler") if sweep.fixed else ():
        if getattr(chosen, name) != parser.get_default(name):
            parser.error(f"--{name} is {getattr(chosen, name)}; allowed is none: each run of this list is trained once")
    try:
        overrides = split_overrides(rest)
    except ValueError as error:
        parser.error(str(error))
    for name in overrides:
        if "." not in name and name != "seed":
            parser.error(f"--{name} is not an option; see --help")
    try:
        asked = [name.strip() for name in chosen.objectives.split(",")] if chosen.objectives else sweep.objectives
        objectives = checked(asked)
        limits = with_flags(
            sweep.limits,
            min_perplexity=chosen.min_perplexity,
            max_dead_codes=chosen.max_dead_codes,
            max_latent_growth=chosen.max_latent_growth,
            prune=chosen.prune_unhealthy,
        )
    except ValueError as error:
        parser.error(str(error))
    return Settings(
        dataset=chosen.dataset,
        data_source=chosen.data_source,
        trials=chosen.trials,
        images=chosen.images,
        workers=chosen.workers,
        gpus_per_trial=chosen.gpus_per_trial,
        concurrent=chosen.concurrent,
        seeds=chosen.seeds,
        confirm=chosen.confirm,
        scheduler=chosen.scheduler,
        objectives=objectives,
        limits=limits,
        name=chosen.name,
        fresh=chosen.fresh,
        dry_run=chosen.dry_run,
        keep=chosen.keep,
        preflight=chosen.preflight,
        budget=chosen.budget,
        cache=not chosen.no_cache,
        out=chosen.out or Path(os.environ.get("VQSWEEP_RUNS") or "runs"),
        tracking_uri=chosen.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKER,
        storage=chosen.storage or os.environ.get("VQSWEEP_STORAGE") or DEFAULT_STORAGE,
        overrides=overrides,
    )


def _fields_help(sweep: Sweep) -> str:
    space = "\n".join(f"  {name}  {describe(dimension)}" for name, dimension in sweep.space.items())
    fields = describe_fields(preset_for("boxing", sweep.model)).replace("%", "%%")
    swept = f"swept:\n{space}\n\n" if space else ""
    return f"{swept}fields of a trial, as preset for boxing; each can be given:\n{fields}"
