"""A published row trained and tested again, from nothing but its record."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.published import Result, first_of
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset, prepare
from vqvae_core.overrides import flatten, with_overrides
from vqvae_core.presets import preset_for
from vqvae_core.task import evaluate_on
from vqvae_core.train import fit

ELSEWHERE = ("data.root", "data.source", "model.type", "seed")  # fields that are decided here


@dataclass(frozen=True)
class Again:
    """A row's bits/dim by seed, recorded and measured now."""

    record: Result
    seeds: Sequence[int]
    now: Sequence[float]
    same_images: bool

    @property
    def recorded(self) -> list[float]:
        """The record's figures for the seeds that were run again."""
        by_seed = dict(zip(self.record.seeds, self.record.values, strict=True))
        return [by_seed[seed] for seed in self.seeds]

    @property
    def difference(self) -> float:
        """Of the means."""
        return statistics.mean(self.now) - statistics.mean(self.recorded)

    @property
    def agrees(self) -> bool | None:
        """Whether the difference is within the record's interval; None where it has none."""
        return None if self.record.interval is None else abs(self.difference) <= self.record.interval


def find_record(published: Sequence[tuple[str, Result]], wanted: str) -> Result:
    """The record that ``dataset/row`` means, with ``@sweep`` where there are several; ``ValueError`` names them all."""
    records = [result for _, result in published if result.split == "test" and result.values]
    names = {f"{record.dataset}/{record.row}": record for record in records}
    full = {f"{record.dataset}/{record.row}@{record.sweep}": record for record in records}
    several = [name for name in full if name.startswith(f"{wanted}@")]
    if wanted in full or len(several) == 1:
        return full.get(wanted) or names[wanted]
    allowed = several or list(full)
    raise ValueError(
        f"ROW is {wanted!r}; allowed is " + (f"one of {', '.join(allowed)}" if allowed else "a published row")
    )


def experiment_of(config: Mapping[str, str], dataset: str, seed: int, places: Mapping[str, str]) -> Experiment:
    """The experiment that a configuration and a seed are of; ``ValueError`` when it is of another version."""
    base = preset_for(dataset, config["model.type"])
    fields = {name: value for name, value in config.items() if name in flatten(base) and name not in ELSEWHERE}
    return replace(with_overrides(base, {**fields, "data.name": dataset, **places}), seed=seed)


def reproduce(
    record: Result, seeds: Sequence[int], out: Path, places: dict[str, str], say: Callable[[str], None]
) -> Again:
    """Train and test a record's seeds, a prior's first stages before it; what was begun in ``out`` is continued.

    Raises ``ValueError`` for a seed that the record has not.
    """
    for seed in seeds:
        if seed not in record.seeds:
            raise ValueError(f"--seed is {seed}; allowed is one of {', '.join(map(str, record.seeds))}")
    config = {"model.type": record.model, **record.config}
    now: list[float] = []
    dataset: Dataset | None = None
    for seed in seeds:
        where = places
        if first := first_of(config):
            stage = experiment_of(first, record.dataset, int(first.get("seed", seed)), places)
            dataset = dataset or prepare(stage.data)
            keeper = trained(stage, dataset, out / f"seed-{seed}-first", say)
            at_its_end = first.get("images_seen", str(stage.train.images)) == str(stage.train.images)
            chosen = keeper.last() if at_its_end else keeper.best()
            assert chosen is not None
            where = {**places, "model.first": str(chosen.folder.absolute())}
        experiment = experiment_of(config, record.dataset, seed, where)
        dataset = dataset or prepare(experiment.data)
        last = trained(experiment, dataset, out / f"seed-{seed}", say).last()
        assert last is not None
        now.append(evaluate_on(experiment, last.model(), dataset, "test")["bits_per_dim"])
    assert dataset is not None
    return Again(record, seeds, now, dataset.fingerprint == record.data.get("fingerprint"))


def trained(experiment: Experiment, dataset: Dataset, folder: Path, say: Callable[[str], None]) -> Keeper:
    """The checkpoints of an experiment that was brought to its end."""
    keeper = Keeper(folder)
    last = keeper.last()
    for report in fit(experiment, last.state() if last else None, dataset):
        keeper.save(report.state, report.metrics, dataset.shape)
        seen, valid = report.images_seen, report.metrics["valid/bits_per_dim"]
        say(f"{folder.name}: {seen:,} of {experiment.train.images:,} images, {valid:.4f} bits/dim on valid")
    return keeper


def described(again: Again) -> str:
    """The difference, seed by seed and of the means, against the record's interval."""
    record = again.record
    width = "one seed, no interval" if record.interval is None else f"+-{record.interval:.4f}"
    made = f"commit {' '.join(commit[:7] for commit in record.commit)}, {record.hardware or 'hardware unknown'}"
    lines = [f"{record.dataset}/{record.row}: recorded {record.value:.4f} ({width}, {made})"]
    for seed, before, now in zip(again.seeds, again.recorded, again.now, strict=True):
        lines.append(f"seed {seed}: recorded {before:.4f}, now {now:.4f}, difference {now - before:+.4f}")
    if len(again.seeds) > 1:
        before, now = statistics.mean(again.recorded), statistics.mean(again.now)
        lines.append(f"mean: recorded {before:.4f}, now {now:.4f}, difference {again.difference:+.4f}")
    verdicts = {True: "within the interval", False: "outside the interval", None: "no interval to compare with"}
    lines.append(verdicts[again.agrees])
    if not again.same_images:
        lines.append("these are not the record's images: the difference may be theirs")
    return "\n".join(lines)
