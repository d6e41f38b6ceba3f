"""A sweep's winner: shown, and exported as a folder that needs neither the study nor the sweep's own folder."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

from sweeps._board import Row
from sweeps._display import number
from sweeps._images import game_of, images_on_this_node
from sweeps._leaderboard import finite
from sweeps._past import Past
from sweeps._plan import short
from sweeps._ranking import half_width, replicated
from vqvae_core.checkpoint import MANIFEST, TRAINING, Checkpoint
from vqvae_core.config import Experiment
from vqvae_core.data.prepare import folder_of
from vqvae_core.files import whole_folder
from vqvae_core.overrides import flatten, run_key
from vqvae_core.pictures import save_picture
from vqvae_core.presets import PRESETS

COMMAND, FIGURES = "command.txt", "figures.json"
PLACES = ("data.root", "data.source", "train.device", "train.eval_batch")  # where it ran, not what it is


def show(past: Past, row: Row, as_json: bool) -> str:
    """The winner, or another run, in a few lines or as one JSON object."""
    checkpoint = past.checkpoint(row.run)
    figures = figures_of(past, row, checkpoint)
    if as_json:
        return json.dumps(figures)
    valid, test = (parts(row, split) for split in ("valid", "test"))
    seeds = replicated(past.board).get(row.run, [])
    lines = {
        "sweep": f"{past.name}, experiment {past.experiment_name}, begun {past.begun}",
        "run": f"{row.run} ({row.origin}), seed {row.seed}, {row.state}",
        "point": ", ".join(f"{name} {short(value)}" for name, value in row.point.items()),
        "valid": valid,
        "test": test,
        "seeds": f"{statistics.mean(seeds):.4f} +-{number(half_width(seeds))} bits/dim over {len(seeds)}"
        if seeds
        else "",
        "trained": f"on {checkpoint.images_seen:,} images",
        "checkpoint": str(checkpoint.folder),
        "repeat": training_command(checkpoint.experiment),
    }
    return "\n".join(f"{title:11}{line}" for title, line in lines.items() if line)


def parts(row: Row, split: str) -> str:
    """``3.9 bits/dim = 3.1 distortion + 0.8 rate (unigram prior), perplexity 40``; empty when it was not measured."""
    value = row.metrics.get(f"{split}/bits_per_dim")
    if value is None:
        return ""
    distortion, perplexity = (row.metrics.get(f"{split}/{name}", math.inf) for name in ("distortion", "perplexity"))
    prior = "learned" if f"{split}/rate_prior" in row.metrics else "unigram"
    return (
        f"{value:.4f} bits/dim = {number(distortion)} distortion + {number(value - distortion)} rate "
        f"({prior} prior), perplexity {number(perplexity, 1)}"
    )


def figures_of(past: Past, row: Row, checkpoint: Checkpoint) -> dict[str, Any]:
    """All that is known of a run, in plain values."""
    seeds = replicated(past.board).get(row.run, [])
    return {
        "sweep": past.name,
        "experiment": past.experiment_name,
        "run": row.run,
        "origin": row.origin,
        "seed": row.seed,
        "state": row.state,
        "point": row.point,
        "images_seen": checkpoint.images_seen,
        "metrics": {name: finite(value) for name, value in row.metrics.items()},
        "seeds": {"values": seeds, "mean": statistics.mean(seeds), "half_width_95": finite(half_width(seeds))}
        if seeds
        else None,
        "data_fingerprint": past.fingerprint,
        "trial_key": run_key(checkpoint.experiment, past.fingerprint),
        "config": flatten(checkpoint.experiment),
        "checkpoint": str(checkpoint.folder),
        "repeat": training_command(checkpoint.experiment),
    }


def training_command(experiment: Experiment) -> str:
    """The command that trains an experiment without Ray, from the nearest preset."""
    flat = flatten(experiment)
    like = "boxing" if game_of(experiment.data.name) else "cifar10"  # as the sweep took its own
    names = (f"{dataset}_{flat['model.type']}" for dataset in (flat["data.name"], like))
    preset = next(name for name in names if name in PRESETS)
    base = flatten(PRESETS[preset]())
    changed = {k: v for k, v in flat.items() if k not in (*PLACES, "model.type") and base.get(k) != v}
    words = [word for name, value in changed.items() for word in (f"--{name}", str(value))]
    return shlex.join(["python", "-m", "vqvae_core", preset, *words])


def export(past: Past, row: Row, to: Path | None) -> str:
    """Write a run's weights, config, figures, pictures and command as one new folder, whole or not at all.

    ``vqvae_core.checkpoint.read(folder).model()`` opens it. ``ValueError`` when the folder is there already.
    """
    folder = to or Path(f"{past.name}-{row.run}")
    if folder.exists():
        raise ValueError(f"--to is {str(folder)!r}, which is there already; give a new folder")
    checkpoint = past.checkpoint(row.run)
    manifest = json.loads((checkpoint.folder / MANIFEST).read_text())
    del manifest["files"][TRAINING]  # what only training on needs
    manifest["metrics"] = row.metrics
    try:
        with whole_folder(folder) as temporary:
            for name in manifest["files"]:
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(checkpoint.folder / name, temporary / name)
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
            (temporary / FIGURES).write_text(json.dumps(figures_of(past, row, checkpoint), indent=1))
            (temporary / COMMAND).write_text(training_command(checkpoint.experiment) + "\n")
            pictures = sorted(past.trial_folder(row.run).glob("*.png"))
            for picture in pictures:
                shutil.copyfile(picture, temporary / picture.name)
            if not pictures:  # of a trial that another machine has drawn where we cannot see it
                data = checkpoint.experiment.data
                images = images_on_this_node(folder_of(data), data, past.fingerprint)
                save_picture(checkpoint.model(), images, "valid", temporary)
            names = sorted(path.name for path in temporary.iterdir())
    except OSError as error:
        raise ValueError(f"--to is {str(folder)!r}, which cannot be written ({error.strerror})") from None
    return f"{folder}: {', '.join(names)}"
