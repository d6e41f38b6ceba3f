"""The rows of Table 1: what the papers say, and the best that the tracker has, with its uncertainty."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis._commands import PLACES, how_to_make, how_to_repeat, without_places
from analysis.published import OF_FIRST, Result, row_of
from analysis.runs import Query, Run, find_runs
from vqvae_core.intervals import interval

DATASETS = {"cifar10": "CIFAR10", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}  # of Table 1
MODELS = {"vqvae": "VQ-VAE", "vae": "VAE", "vimco": "VIMCO"}  # of Table 1
NAMES = {**DATASETS, **MODELS, "mini_imagenet": "Mini-ImageNet", "boxing": "Boxing", "dvae": "dVAE"}

# van den Oord, Vinyals, Kavukcuoglu (2017), as Table 1 of the report quotes it.
ORIGINAL_PAPER = {("cifar10", "vqvae"): 4.670, ("cifar10", "vae"): 4.510, ("cifar10", "vimco"): 5.140}
# Kumar, Deleu, Racah (2018), Table 1; its VIMCO row is blank.
REPORT = {
    ("cifar10", "vqvae"): 5.852,
    ("mnist", "vqvae"): 6.221,
    ("fashion_mnist", "vqvae"): 6.228,
    ("cifar10", "vae"): 5.681,
    ("mnist", "vae"): 5.705,
    ("fashion_mnist", "vae"): 5.685,
}

PRIORS = {"unigram": "unigram", "prior": "learned", "uniform": "uniform"}  # metric rate_... -> the prior's name
SAME_SUM = 1e-6  # bits/dim within which distortion plus a rate is the sum that was reported

BEST = "best"
ALIKE = "not separable from the best"
WORSE = "worse than the best"
ONE_SEED = "one seed: not comparable"
OTHER_IMAGES = "not on the best's images"


@dataclass(frozen=True)
class Row:
    """A model on a data set: theirs, ours and what we published; bits/dim."""

    dataset: str
    model: str
    name: str  # what else it is: vqvae, vqvae_mse, ...; the model's own where there is none yet
    original_paper: float | None
    report: float | None
    ours: Result | None
    remark: str  # how ours compares with the other models of the data set
    published: tuple[tuple[str, Result], ...]  # file, result
    how: str | None  # the command that makes ours; None when there is none yet


def find_rows(uri: str, split: str, published: Sequence[tuple[str, Result]] = ()) -> list[Row]:
    """Every row of Table 1, and those of further data sets and models that have figures for ``split``.

    Raises ``ValueError`` when the tracker at ``uri`` cannot be read.
    """
    wanted = (f"{split}/bits_per_dim", "valid/bits_per_dim")
    runs = find_runs(uri, Query("FINISHED", tuple(dict.fromkeys(wanted)), tags_not={"stage": "sweep"}))
    sweeps = find_runs(uri, Query(tags={"stage": "sweep"})) if runs else []
    ours = best_of_each(runs, {run.tags.get("sweep.id", ""): run for run in sweeps}, split)
    shown = [(file, result) for file, result in published if result.split == split]
    found = {*ours, *((result.dataset, result.model, result.row) for _, result in shown)}
    made = {key[:2] for key in found}
    missing = {(dataset, model, model) for dataset in DATASETS for model in MODELS if (dataset, model) not in made}
    return [
        Row(
            *key,
            ORIGINAL_PAPER.get(key[:2]),
            REPORT.get(key[:2]),
            ours.get(key),
            remark(ours, key),
            tuple((file, result) for file, result in shown if (result.dataset, result.model, result.row) == key),
            how_to_make(key[0], key[2]),
        )
        for key in sorted(found | missing, key=_place)
    ]


Key = tuple[str, str, str]  # data set, model, row


def _place(key: Key) -> tuple[int, int, Key]:
    """Data set by data set, model by model: those of Table 1 in its order, then further ones, the known ones first."""
    order = [*DATASETS, *MODELS, *NAMES]
    data_set, model = (order.index(name) if name in order else len(order) for name in key[:2])
    return data_set, model, key


def in_order(published: Iterable[tuple[str, Result]], split: str) -> list[tuple[str, Result]]:
    """The published results of a split, each with its file: data set by data set, Table 1's first."""
    own = [(file, result) for file, result in published if result.split == split]
    return sorted(own, key=lambda pair: _place((pair[1].dataset, pair[1].model, pair[1].row)))


def best_of_each(runs: Iterable[Run], sweeps: Mapping[str, Run], split: str) -> dict[Key, Result]:
    """Of each row the configuration with the least mean ``valid/bits_per_dim`` over its seeds."""
    groups: dict[Key, dict[object, dict[int | None, Run]]] = {}
    for run in sorted(runs, key=lambda run: (run.started, run.id)):
        finite = all(math.isfinite(run.metrics.get(f"{name}/bits_per_dim", math.nan)) for name in (split, "valid"))
        if finite:
            key = (run.dataset, model_of(run), row_of(model_of(run), configuration(run)))
            seeds = groups.setdefault(key, {}).setdefault(_identity(run), {})
            seeds[run.seed] = run  # a seed that was run again counts once: its newest run

    def on_valid(seeds: Mapping[int | None, Run]) -> float:
        return statistics.mean(run.metrics["valid/bits_per_dim"] for run in seeds.values())

    return {
        key: summary(list(min(configurations.values(), key=on_valid).values()), sweeps, split)
        for key, configurations in groups.items()
    }


def model_of(run: Run) -> str:
    """What makes the images: a second stage's first, whose row of Table 1 it shares."""
    return run.tags.get("first.stage", run.model)


def configuration(run: Run) -> dict[str, str]:
    """A run's settings without its seed and without where it ran; of a second stage, the first one's too.

    In a row of Table 1 each seed has a first stage of that seed; elsewhere all seeds stand on one, which the
    configuration then names by its own.
    """
    own = {name: value for name, value in run.params.items() if name not in ("seed", "model.first", *PLACES)}
    first = json.loads(run.tags.get("first.settings", "{}"))
    elsewhere = ("out", *PLACES, *(["seed"] if "row" in run.params else []))
    own |= {f"{OF_FIRST}{name}": str(value) for name, value in first.items() if name not in elsewhere}
    if seen := run.tags.get("first.images_seen"):
        own["first.images_seen"] = seen
    return dict(sorted(own.items()))


def _identity(run: Run) -> object:
    """What the replicates of a configuration have in common: settings and images."""
    return run.tags.get("data.fingerprint"), tuple(configuration(run).items())


def summary(runs: list[Run], sweeps: Mapping[str, Run], split: str) -> Result:
    """Replicates of one configuration, each with another seed, as one result."""
    runs = sorted(runs, key=lambda run: (run.seed is None, run.seed or 0))
    values = [run.metrics[f"{split}/bits_per_dim"] for run in runs]
    value = statistics.mean(values)
    rates = {
        name.partition("/rate_")[2]: _mean(runs, name) for name in runs[0].metrics if name.startswith(f"{split}/rate_")
    }
    distortion = _mean(runs, f"{split}/distortion")
    prior, rate = priced_by(runs, split)
    tags = runs[0].tags
    counts = {name: tags.get(f"data.{name}_images", "") for name in ("train", "valid", "test")}
    origins = list(dict.fromkeys(run.tags.get("sweep.id", "") for run in runs))
    own = [sweeps[origin] for origin in origins if origin in sweeps]
    seeds = [run.seed for run in runs]
    config = configuration(runs[0])
    return Result(
        dataset=runs[0].dataset,
        model=model_of(runs[0]),
        split=split,
        value=value,
        interval=interval(values),
        n=len(runs),
        D=distortion,
        R=rate,
        prior=prior,
        data={
            "from": tags.get("data.from"),
            "fingerprint": tags.get("data.fingerprint"),
            **{name: int(count) if count.isdecimal() else None for name, count in counts.items()},
        },
        command=without_places(_noted("command", runs, own) or how_to_repeat(runs[0].params, seeds)),
        commit=list(dict.fromkeys(run.commit for run in runs)),
        hardware=_noted("hardware", runs, own),
        seeds=seeds,
        values=values,
        rates={name: rate for name, rate in rates.items() if rate is not None},
        eq7=_mean(runs, f"{split}/eq7"),
        eq7_values=[run.metrics[f"{split}/eq7"] for run in runs if f"{split}/eq7" in run.metrics],
        bounds=_bounds(runs, split),
        bound_images=int(runs[0].metrics.get(f"{split}/bound_images", 0)) or None,
        unigram_pixels=_mean(runs, f"{split}/unigram_pixels"),
        images_seen=[run.steps.get(f"{split}/bits_per_dim", 0) for run in runs],
        dirty=any(run.dirty for run in runs),
        sweep=", ".join(run.name for run in own) or ", ".join(filter(None, origins)) or None,
        config=config,
        runs=[run.id for run in runs],
    )


def _mean(runs: Sequence[Run], name: str) -> float | None:
    """The mean of a metric; None when a run lacks it or has no number there."""
    values = [run.metrics.get(name, math.nan) for run in runs]
    return statistics.mean(values) if all(map(math.isfinite, values)) else None


def _bounds(runs: Sequence[Run], split: str) -> dict[str, float]:
    """L_S by its S, the mean over seeds; empty where z has no samples."""
    start = f"{split}/bits_per_dim_s"
    samples = sorted(int(name[len(start) :]) for name in runs[0].metrics if name.startswith(start))
    means = {f"s{S}": _mean(runs, f"{start}{S}") for S in samples}
    return {name: mean for name, mean in means.items() if mean is not None}


def _noted(tag: str, runs: Sequence[Run], sweeps: Sequence[Run]) -> str | None:
    """What a tag says, in the runs or in their sweeps; several answers are joined."""
    return "; ".join(dict.fromkeys(run.tags[tag] for run in [*runs, *sweeps] if run.tags.get(tag))) or None


def priced_by(runs: Sequence[Run], split: str) -> tuple[str | None, float | None]:
    """The prior whose rate, added to the distortion, is the reported sum, and that rate; None, None without one."""
    noted = [name.partition("/rate_")[2] for name in runs[0].metrics if name.startswith(f"{split}/rate_")]
    for name in sorted(noted, key=lambda name: (list(PRIORS).index(name) if name in PRIORS else len(PRIORS), name)):
        gaps = [
            run.metrics[f"{split}/bits_per_dim"]
            - run.metrics.get(f"{split}/distortion", math.nan)
            - run.metrics.get(f"{split}/rate_{name}", math.nan)
            for run in runs
        ]
        if all(abs(gap) <= SAME_SUM for gap in gaps):
            return PRIORS.get(name, name), _mean(runs, f"{split}/rate_{name}")
    return None, None


def remark(ours: Mapping[Key, Result], key: Key) -> str:
    """How a row stands to the best one of its data set; empty when there is nothing to compare."""
    rivals = [result for (dataset, *_), result in ours.items() if dataset == key[0]]
    if key not in ours or len(rivals) < 2:
        return ""
    best, own = min(rivals, key=lambda result: result.value), ours[key]
    if own is best:
        return BEST
    if own.data["fingerprint"] != best.data["fingerprint"]:
        return OTHER_IMAGES
    if own.interval is None or best.interval is None:
        return ONE_SEED
    return ALIKE if own.value - own.interval <= best.value + best.interval else WORSE


def with_hardware(results: Iterable[Result], hardware: str) -> list[Result]:
    """Results whose hardware the tracker does not know, with what the user says of it."""
    return [result if result.hardware else replace(result, hardware=hardware) for result in results]
