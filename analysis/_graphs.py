"""Graphs of what the tracker holds: curves, rate against distortion, and how the codes are used."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from analysis._models import best_in_tracker, bits_of, images_for, in_folder
from analysis._rows import NAMES
from analysis._statistics import pareto
from analysis.runs import Query, Run, find_curves, find_runs
from vqvae_core import tables
from vqvae_core.files import write_whole
from vqvae_core.likelihood import to_unit
from vqvae_core.vqvae import VQVAE

PARTS = {"bits_per_dim": "bits/dim: D + R", "distortion": "distortion D", "rate_unigram": "rate R (unigram prior)"}
SEEDS = 5  # curves of one configuration's seeds, and configurations, that one graph shows
COLOURS = ["#2364aa", "#b45309", "#3a7d44", "#7c3aed", "#c1121f"]


def curves(uri: str, dataset: str | None, out: Path, chosen: argparse.Namespace) -> list[Path]:
    """Bits/dim and its parts over images seen: of each data set the best complete run of each model."""
    paths: list[Path] = []
    for name, runs in by_dataset(complete(uri), dataset).items():
        best: dict[str, Run] = {}
        for run in sorted(runs, key=lambda run: run.metrics["valid/bits_per_dim"]):
            best.setdefault(run.model, run)
        figure, axes = plt.subplots(1, len(PARTS), figsize=(11, 3.4), layout="constrained", squeeze=False)
        table: list[dict[str, object]] = []
        for (metric, title), axis in zip(PARTS.items(), axes[0], strict=True):
            found = find_curves(uri, list(best.values()), f"valid/{metric}")
            for (model, run), colour in zip(best.items(), COLOURS, strict=False):
                curve = [(step, value) for step, value in found[run.id] if math.isfinite(value)]
                if curve:
                    axis.plot(
                        *zip(*curve, strict=True), "o-", color=colour, markersize=3, label=NAMES.get(model, model)
                    )
                table += [
                    {"model": model, "run": run.id, "metric": metric, "images": step, "value": value}
                    for step, value in curve
                ]
            axis.set(title=title, xlabel="images seen", ylabel="bits/dim", xlim=(0, None))
            axis.xaxis.set_major_formatter(lambda count, place: f"{count:,.0f}")
            axis.xaxis.set_major_locator(plt.MaxNLocator(5))
            axis.grid(alpha=0.3)
        axes[0][0].legend(frameon=False)
        figure.suptitle(f"{NAMES.get(name, name)}, validation images")
        paths += save(figure, out / f"curves-{name}", table)
    return paths


def rate_distortion(uri: str, dataset: str | None, out: Path, chosen: argparse.Namespace) -> list[Path]:
    """Every VQ-VAE trained to its end as a point: what its codes cost against what they leave to pay for the pixels."""
    paths: list[Path] = []
    wanted = ("valid/bits_per_dim", "valid/distortion", "valid/rate_unigram")
    for name, runs in by_dataset(complete(uri, wanted), dataset).items():
        runs = trained_once([run for run in runs if run.model == "vqvae"])
        points = [(run.metrics["valid/rate_unigram"], run.metrics["valid/distortion"]) for run in runs]
        if len(points) < 2:
            continue
        front = sorted(pareto(points), key=lambda i: points[i])
        figure, axis = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
        groups = sorted({number(run, "model.codes_per_position") for run in runs})
        sizes = sorted({number(run, "model.num_codes") for run in runs})
        shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(sizes)))
        for group, marker in zip(groups, "osD^v<>pP*", strict=False):
            for size, shade in zip(sizes, shades, strict=True):
                own = [
                    point
                    for run, point in zip(runs, points, strict=True)
                    if (number(run, "model.codes_per_position"), number(run, "model.num_codes")) == (group, size)
                ]
                if own:
                    words = f"K {size}, {group} a position"
                    axis.plot(*zip(*own, strict=True), marker, color=shade, label=words, markersize=6, linestyle="")
        axis.plot(*zip(*(points[i] for i in front), strict=True), color="#555", linewidth=1, zorder=0, label="frontier")
        sums(axis, points)
        axis.set(xlabel="rate R, bits/dim (unigram prior)", ylabel="distortion D, bits/dim")
        axis.set_title(f"{NAMES.get(name, name)}, validation images; dashed: equal bits/dim")
        axis.legend(fontsize=7, frameon=False, ncols=2 if len(axis.get_legend_handles_labels()[0]) > 9 else 1)
        table = [
            {
                "run": run.id,
                "num_codes": number(run, "model.num_codes"),
                "codes_per_position": number(run, "model.codes_per_position"),
                "code_dim": run.params.get("model.code_dim"),
                "images": run.steps["valid/bits_per_dim"],
                "rate": point[0],
                "distortion": point[1],
                "on_frontier": index in front,
            }
            for index, (run, point) in enumerate(zip(runs, points, strict=True))
        ]
        paths += save(figure, out / f"rate_distortion-{name}", table)
    return paths


def codebook_usage(uri: str, dataset: str | None, out: Path, chosen: argparse.Namespace) -> list[Path]:
    """How often each code of the best VQ-VAE is used on the test images, most used first."""
    if chosen.checkpoint:
        found = [in_folder(chosen.checkpoint)]
    else:
        names = [dataset] if dataset else list(by_dataset(complete(uri), None))
        found = [best for name in names if (best := best_in_tracker(uri, name, "vqvae"))]
    paths: list[Path] = []
    for one in found:
        model = one.model
        if not isinstance(model, VQVAE):
            raise ValueError(f"the checkpoint is a {one.experiment.model.type}; allowed is a vqvae")
        images = images_for(one, chosen.data_root)
        counts = usage(model, images.images("test"))
        figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
        table: list[dict[str, object]] = []
        for group, (own, colour) in enumerate(zip(counts, COLOURS * len(counts), strict=False)):
            order = np.argsort(-own, kind="stable")
            shares = own[order] / own.sum()
            perplexity = float(np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()))
            words = f"{int((own > 0).sum())} of {len(own)} used, perplexity {perplexity:.1f}"
            axis.plot(np.arange(1, len(own) + 1), shares, color=colour, label=words, drawstyle="steps-mid")
            table += [{"codebook": group, "code": int(code), "count": int(own[code])} for code in order]
        axis.axhline(1 / counts.shape[1], color="#555", linestyle="--", linewidth=1, label="even use")
        axis.set(yscale="log", xlabel="code, most used first", ylabel="share of positions", xlim=(0, None))
        name = one.experiment.data.name
        axis.set_title(f"{NAMES.get(name, name)}, test images ({bits_of(one.metrics)})", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
        paths += save(figure, out / f"codebook_usage-{name}", table)
    return paths


def usage(model: VQVAE, images: Any, batch: int = 256) -> np.ndarray[Any, Any]:
    """How often each code is used in some images: (G, K)."""
    groups, num_codes = model.latent_shape[0], model.config.num_codes
    counts = np.zeros((groups, num_codes), np.int64)
    for start in range(0, len(images), batch):
        part = torch.tensor(images[start : start + batch]).permute(0, 3, 1, 2)
        codes = model.encode(to_unit(part)).transpose(0, 1).flatten(1).numpy()
        counts += np.stack([np.bincount(own, minlength=num_codes) for own in codes])
    return counts


def sums(axis: Any, points: Sequence[tuple[float, float]]) -> None:
    """Lines on which rate and distortion have one sum."""
    low = min(map(sum, points))
    rates = np.array(axis.get_xlim())
    limits = axis.get_ylim()
    for step in range(1, 6):
        total = low + (step - 1) * 0.25 * max(1e-9, limits[1] - limits[0])
        axis.plot(rates, total - rates, "--", color="#bbb", linewidth=0.7, zorder=-1)
    axis.set(xlim=rates, ylim=limits)


def complete(uri: str, measured: Sequence[str] = ("valid/bits_per_dim",)) -> list[Run]:
    """Complete trials and replicates that have some metrics."""
    return find_runs(uri, Query("FINISHED", tuple(measured), tags_not={"stage": "sweep"}))


def trained_once(runs: Sequence[Run]) -> list[Run]:
    """Each training once: a trial that took the result of another run is shown only where that run is not."""
    known = {run.id: run for run in runs}

    def origin(run: Run) -> str:
        while (taken := run.tags.get("cache.run", run.id)) in known and taken != run.id:
            run = known[taken]
        return taken

    return list({origin(run): run for run in sorted(runs, key=lambda run: "cache.run" not in run.tags)}.values())


def by_dataset(runs: Iterable[Run], only: str | None) -> Mapping[str, list[Run]]:
    """Runs by their data set; of one data set only, where it is named."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if only in (None, run.dataset):
            groups.setdefault(run.dataset, []).append(run)
    return dict(sorted(groups.items()))


def number(run: Run, name: str) -> int:
    """A setting of a run that is a whole number; 0 where it is none."""
    text = run.params.get(name, "")
    return int(text) if text.isdecimal() else 0


def save(figure: Any, stem: Path, table: Sequence[Mapping[str, object]]) -> list[Path]:
    """The PNG and its CSV."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    picture = stem.with_name(f"{stem.name}.png")
    temporary = picture.with_name(f".{picture.name}.tmp")
    figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
    temporary.replace(picture)
    numbers = stem.with_name(f"{stem.name}.csv")
    write_whole(numbers, tables.comma_separated(table) + "\n")
    return [picture, numbers]
