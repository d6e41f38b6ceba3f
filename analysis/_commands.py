"""The commands that make what the tracker lacks, and that make again what it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqvae_core.overrides import flatten
from vqvae_core.presets import PRESETS

SWEEPS = Path(__file__).parents[1] / "sweeps"

ROWS = ("vqvae_mse", "vqvae_ema", "vae_mse", "vqvae", "vae", "vimco", "dvae")  # of sweeps/table1.py

# Fields that say where and on what a run was made, not what it is.
PLACES = ("data.root", "data.source", "train.device", "train.eval_batch")


# Those without which another machine, or this one from another folder, finds other images or none; with their defaults.
IMAGES = {"data.source": "None", "data.root": "data"}

# Options that say where things lie on the machine of whoever typed them.
FOLDERS = re.compile(r"(--(?:data[-.](?:source|root)|out)[ =])(?:'[^']*'|\S+)")
# A first stage that is named by its checkpoint's folder; a sweep's or run's name is everybody's.
CHECKPOINT = re.compile(r"(--model\.first[ =])(?:'/[^']*'|/\S+)")


def without_places(command: str | None) -> str | None:
    """A command as it may be published: folders of one machine become DIR, and a checkpoint's FIRST."""
    return command and CHECKPOINT.sub(r"\1FIRST", FOLDERS.sub(r"\1DIR", command))


def how_to_make(dataset: str, row: str, sweeps: Path = SWEEPS) -> str | None:
    """The command that trains and tests a row of Table 1; None when no sweep for it exists."""
    first = row.removesuffix("_prior")
    if first not in ROWS or not (sweeps / "table1.py").exists():
        return None
    if first != row:
        return f"python sweeps/table1_prior.py --model.first table1-{shlex.quote(dataset)} --only {first}"
    return f"python sweeps/table1.py --only {row} --dataset {shlex.quote(dataset)}"


def how_to_repeat(config: Mapping[str, str], seeds: Sequence[int | None]) -> str | None:
    """The command that trains a configuration with each of its seeds; None when no preset is near enough.

    Where the images come from and lie is in it as far as the configuration says so.
    """
    dataset, model = config.get("data.name", ""), config.get("model.type", "")
    preset = next((name for name in (f"{dataset}_{model}", f"cifar10_{model}") if name in PRESETS), None)
    if preset is None or None in seeds:
        return None
    base = {name: str(value) for name, value in flatten(PRESETS[preset]()).items()}
    fields = [name for name in base if name not in ("model.type", "seed", *PLACES)]
    words = [
        f"--{name} {shlex.quote(config[name])}" for name in fields if name in config and config[name] != base[name]
    ]
    words += [
        f"--{name} {shlex.quote(config[name])}" for name, usual in IMAGES.items() if config.get(name, usual) != usual
    ]
    train = " ".join(["python -m vqvae_core", preset, *words])
    if len(seeds) == 1:
        own = config.get("out", f"runs/{preset}")  # where it lies, which later commands name it by
        return f"{train} --seed {seeds[0]}" + (f" --out {shlex.quote(own)}" if own != f"runs/{preset}" else "")
    numbers = " ".join(map(str, seeds))
    return f"for seed in {numbers}; do {train} --seed $seed --out runs/{preset}-$seed; done"


def how_to_collect(source: Mapping[str, object], name: str) -> str | None:
    """The command that collects a data set of frames, from what was noted of it; None where its sweep does that."""
    if not source or name.partition("-")[0] == str(source["game"]).lower():
        return None
    size = f"{source['height']}" + (f"x{source['width']}" if source["width"] != source["height"] else "")
    chosen = {
        "game": (source["game"], None),
        "frames": (source["frames"], 60_000),
        "size": (size, "84"),
        "seed": (source["seed"], 0),
        "frame-skip": (source["frame_skip"], 4),
        "stickiness": (source["stickiness"], 0.25),
        "policy": (source["policy"], "random"),
        "kernel": (source["kernel"], "area"),
    }
    words = [f"--{option} {shlex.quote(str(value))}" for option, (value, usual) in chosen.items() if value != usual]
    return " ".join(["python -m atari_collect", *words, "--out", f"data/{name}"])


def repeatable(command: str) -> str:
    """A command as another reader types it: folders of images are DIR, paths of one machine their last names."""
    words = shlex.split(command)
    for number, word in enumerate(words[2:], 2):
        if words[number - 1] == "--data-source":
            words[number] = "DIR"
        elif word.startswith(("/", "..", "~")) or "://" in word:
            words[number] = Path(word).name
    return shlex.join(words)
