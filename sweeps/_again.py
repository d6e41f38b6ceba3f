"""A sweep's winner trained again, from nothing to compare or from its checkpoint to go on; no Ray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from sweeps._board import Row
from sweeps._events import code_tags, hardware
from sweeps._finish import TEST
from sweeps._images import images_on_this_node
from sweeps._journal import Journal
from sweeps._past import Past, shown
from sweeps._plan import absolute_sqlite
from sweeps._tracker import Tracker, check
from vqvae_core.__main__ import INTERRUPTED, Watch, line
from vqvae_core.checkpoint import CONFIG, MANIFEST, WEIGHTS, Checkpoint, Keeper
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.data.prepare import folder_of
from vqvae_core.overrides import flatten, run_key, with_overrides
from vqvae_core.pictures import save_picture
from vqvae_core.task import evaluate_on
from vqvae_core.train import Diverged, Report, State, fit


def here(checkpoint: Checkpoint, past: Past, threads: int | None, device: str | None) -> tuple[Experiment, Dataset]:
    """A run's experiment on this machine, with its images."""
    if threads:
        torch.set_num_threads(threads)
    experiment = checkpoint.experiment
    if device:
        experiment = with_overrides(experiment, {"train.device": device})
    return experiment, images_on_this_node(folder_of(experiment.data), experiment.data, past.fingerprint)


def train_into(folder: Path, experiment: Experiment, dataset: Dataset, state: State | None) -> Iterator[Report]:
    """Reports of a training run that keeps its checkpoints in ``folder``; Ctrl-C saves, and leaves with status 130."""
    keeper = Keeper(folder / "checkpoints")
    try:
        with Watch(experiment.train.images) as watch:
            for report in fit(experiment, state, dataset, watch):
                keeper.save(report.state, report.metrics, dataset.shape)
                if report.metrics:
                    watch.clear()
                    yield report
    except Diverged as error:
        raise ValueError(str(error)) from None
    if watch.interrupted:
        print(f"stopped at {report.images_seen:,} images; the same command continues", flush=True)
        raise SystemExit(INTERRUPTED)


def rerun(past: Past, row: Row, within: float, threads: int | None, device: str | None) -> None:
    """Train a run again from nothing, and compare; exit status 1 when it ends further than ``within`` bits/dim away."""
    checkpoint = past.checkpoint(row.run)
    experiment, dataset = here(checkpoint, past, threads, device)
    experiment = with_overrides(experiment, {"train.images": checkpoint.images_seen})
    before = {**past.values.get(row.run, {}), checkpoint.images_seen: checkpoint.metrics["valid/bits_per_dim"]}
    folder = past.folder / "rerun" / row.run
    left = Keeper(folder / "checkpoints").last()
    if left and left.images_seen >= checkpoint.images_seen:  # a rerun that is over is no reason not to do another
        shutil.rmtree(folder)
        left = None
    state = left.state() if left else None
    print(f"{past.name}, run {row.run}, seed {experiment.seed}: {checkpoint.images_seen:,} images, into {folder}")
    print(f"{'images':>12}  {'then':>10}  {'now':>10}  {'difference':>10}", flush=True)
    differences: dict[int, float] = {}
    for report in train_into(folder, experiment, dataset, state):
        now, then = report.metrics["valid/bits_per_dim"], before.get(report.images_seen)
        if then is None:
            print(f"{report.images_seen:>12,}  {'':>10}  {now:>10.6f}", flush=True)
            continue
        differences[report.images_seen] = abs(now - then)
        print(f"{report.images_seen:>12,}  {then:>10.6f}  {now:>10.6f}  {now - then:>+10.2g}", flush=True)
    last = differences[checkpoint.images_seen]
    if not any(differences.values()):
        print(f"the same to the last digit at all {len(differences)} reports")
    else:
        first = next(seen for seen, difference in differences.items() if difference)
        print(f"apart from {first:,} images on, at the end by {last:.3g} bits/dim; allowed is {within:g} (--within)")
        print("other hardware, another number of threads (--threads) or other code adds up sums in another order")
    if last > within:
        raise SystemExit(1)


def start_of(past: Past, row: Row, images: int) -> Checkpoint:
    """The last checkpoint of a run or of its extensions, from which ``images`` can be reached."""
    folders = [past.trial_folder(row.run), *sorted((past.folder / "extended").glob(f"{row.run}-extended-*"))]
    found = [last for folder in folders if (last := Keeper(folder / "checkpoints").last())]
    usable = [checkpoint for checkpoint in found if checkpoint.images_seen <= images]
    first = past.checkpoint(row.run)
    if images <= first.images_seen:
        raise ValueError(f"--images is {images:,}; allowed is more than {first.images_seen:,}, which it has seen")
    return max([*usable, first], key=lambda checkpoint: checkpoint.images_seen)


def extend(past: Past, row: Row, images: int, uri: str, threads: int | None, device: str | None) -> None:
    """Train a run on to more images, and measure test; a child of the run in the tracker. Ctrl-C, again: goes on."""
    uri = absolute_sqlite(uri)
    check(uri)
    start = start_of(past, row, images)
    first = past.checkpoint(row.run)
    experiment, dataset = here(first, past, threads, device)
    # The interval stays what it was, whatever it followed from.
    interval = experiment.train.report_interval
    experiment = with_overrides(experiment, {"train.images": images, "train.eval_every": interval})
    name = f"{row.run}-extended-{images}"
    folder = past.folder / "extended" / name
    journal = Journal(folder)
    tracker = Tracker(uri, past.experiment_name, past.sweep_id, journal)
    tracker.start()
    tags = {"trial.key": run_key(experiment, past.fingerprint), "seed": str(experiment.seed), "stage": "extend"}
    tags |= {"point.origin": f"run {row.run}", "data.fingerprint": past.fingerprint, "hardware": hardware()}
    tags |= {f"data.{split}_images": str(count) for split, count in dataset.splits.items()} | code_tags()
    config = flatten(experiment)
    parent = row.run if tracker.run_id(row.run) else None
    journal.add("start", name, name=name, parent=parent, tags=tags, params=config, config=config)
    print(f"{past.name}, run {row.run}: {start.images_seen:,} -> {images:,} images, from {start.folder} into {folder}")
    try:
        for report in train_into(folder, experiment, dataset, start.state()):
            journal.add("report", name, step=report.images_seen, metrics=report.metrics)
            print(line(report, images), flush=True)
        _finish(past, first, folder, name, dataset, journal)
    except SystemExit:
        tags = {"status.reason": "stopped by the user", "trial.state": "stopped"}
        journal.add("end", name, state="stopped", tags=tags)
        raise
    finally:
        kept = tracker.close()
        journal.close()
        if kept:
            print(
                f"warning: {kept} events could not be told to {shown(uri)} ({tracker.trouble}); call again to tell them"
            )


def _finish(past: Past, first: Checkpoint, folder: Path, name: str, dataset: Dataset, journal: Journal) -> None:
    last = Keeper(folder / "checkpoints").reported()
    if last is None:
        raise ValueError(f"{folder} has no whole checkpoint")
    save_picture(last.model(), dataset, "valid", folder)
    measured = evaluate_on(last.experiment, last.model(), dataset, "test")
    test = {f"test/{metric}": value for metric, value in measured.items()}
    save_picture(last.model(), dataset, "test", folder, TEST)
    journal.add("extra", name, step=last.images_seen, metrics=test)
    for picture in sorted(folder.glob("*.png")):
        journal.add("artifact", name, path=str(picture))
    for file in (WEIGHTS, CONFIG, MANIFEST):
        journal.add("artifact", name, path=str(last.folder / file), to="checkpoint")
    reason = f"trained on all {last.images_seen:,} images"
    journal.add("end", name, state="complete", tags={"status.reason": reason, "trial.state": "complete"})
    before, after = first.metrics["valid/bits_per_dim"], last.metrics["valid/bits_per_dim"]
    print(f"valid {before:.4f} at {first.images_seen:,} images, {after:.4f} at {last.images_seen:,} bits/dim")
    print(f"test  {test['test/bits_per_dim']:.4f} bits/dim; checkpoint {last.folder}")
