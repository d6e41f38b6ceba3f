"""A puzzle that is measured and not swept: its cases go into the tracker as runs of one parent, as a sweep's do."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweeps._events import code_tags, command, hardware
from sweeps._journal import Journal
from sweeps._plan import absolute_sqlite
from sweeps._settings import DEFAULT_TRACKER
from sweeps._tracker import SWEEP, Tracker, check
from vqvae_core.checkpoint import CONFIG, FIRST, Checkpoint, read
from vqvae_core.config import DataConfig
from vqvae_core.data import Dataset, prepare
from vqvae_core.files import write_whole
from vqvae_core.overrides import OneLineParser, code_version, fail, flatten
from vqvae_core.second_stage import find_checkpoint, runs_folder


@dataclass(frozen=True)
class Case:
    """One thing that was measured."""

    name: str
    settings: Mapping[str, object]
    metrics: Mapping[str, float]
    seed: int = 0
    pictures: Sequence[Path] = field(default=())


def options(name: str, doc: str | None, dataset: str, images: int = 0) -> argparse.Namespace:
    """The command line of such a puzzle: which images, from where, and how many to train on where it trains."""
    parser = OneLineParser(
        f"sweeps/puzzles/{name}.py",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dataset", default=dataset, metavar="NAME", help=f"data set ({dataset})")
    parser.add_argument("--data-source", metavar="DIR", help="folder of parquet files in the hub's layout")
    if images:
        parser.add_argument("--images", type=int, default=images, metavar="N", help=f"to train on ({images})")
        parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of each case (3)")
    return parser.parse_args()


def checkpoint_options(name: str, doc: str | None, usual: str) -> argparse.Namespace:
    """The command line of a puzzle that looks at trained models."""
    parser = OneLineParser(
        f"sweeps/puzzles/{name}.py",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--checkpoint", action="append", metavar="PATH", help=f"a run, a sweep or a checkpoint's folder ({usual})"
    )
    chosen = parser.parse_args()
    chosen.checkpoint = chosen.checkpoint or [usual]
    return chosen


def opened(where: str) -> tuple[Checkpoint, Dataset]:
    """A checkpoint and its images; a mistake in the command line is one line and exit status 2."""
    try:
        check(tracking_uri())
        checkpoint = read(find_checkpoint(where, "--checkpoint"))
        data = checkpoint.experiment.data
        if "VQSWEEP_DATA" in os.environ:
            data = replace(data, root=os.environ["VQSWEEP_DATA"])
        return checkpoint, prepare(data)
    except ValueError as error:
        fail(str(error))


def training_of(checkpoint: Checkpoint, dataset: Dataset) -> dict[str, object]:
    """How a model came about, as settings of a case: ``trained.*``, and ``first.*`` of the stage before it.

    Of frames it says how many there were: a data set that lay there already may hold others than the experiment names.
    """
    stages: dict[str, dict[str, object]] = {"trained": dict(flatten(checkpoint.experiment))}
    stages["trained"]["out"] = f"runs/{checkpoint.folder.parent.name}"
    first = checkpoint.folder / FIRST / CONFIG
    if first.exists():
        stages["first"] = json.loads(first.read_text())
    if frames := dataset.meta["source"].get("frames"):
        for config in stages.values():
            config["data.frames"] = frames
    return {f"{stage}.{name}": value for stage, config in stages.items() for name, value in config.items()}


def data_config(chosen: argparse.Namespace) -> DataConfig:
    """The images that the command line means; a mistake in it is one line and exit status 2."""
    root = os.environ.get("VQSWEEP_DATA", "data")
    try:
        check(tracking_uri())
        return DataConfig(chosen.dataset, root, chosen.data_source)
    except ValueError as error:
        fail(str(error))


def tracking_uri() -> str:
    """The tracker that runs are told to."""
    return absolute_sqlite(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKER)


def once(name: str, key: str, measure: Callable[[], Case]) -> Case:
    """A case that takes long: measured once, and read from disk by the same command again."""
    folder = runs_folder() / name
    path = folder / f"{key}-{code_version()}.json"
    if path.exists():
        return Case(**json.loads(path.read_text()))
    case = measure()
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": case.name, "settings": dict(case.settings), "metrics": dict(case.metrics), "seed": case.seed}
    write_whole(path, json.dumps(content))
    return case


def record(
    name: str, question: str, dataset: str, cases: Sequence[Case], tags: Mapping[str, str] | None = None
) -> None:
    """Tell the tracker; each call is a sweep of its own, of which the newest counts."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        tracker = Tracker(tracking_uri(), f"{dataset}/{name}", f"{name}-{uuid.uuid4().hex[:8]}", journal)
        tracker.start()
        own = {"stage": "sweep", "question": question, "command": command(), "hardware": hardware(), **code_tags()}
        own["mlflow.note.content"] = f"{question}\n\n    {command()}"
        journal.add("start", SWEEP, name=name, tags=own | dict(tags or {}), params={"data.name": dataset})
        for case in cases:
            told = {"stage": "fixed", "seed": str(case.seed), **code_tags()}
            params = {"data.name": dataset, **case.settings}
            journal.add("start", case.name, name=case.name, parent=SWEEP, tags=told, params=params)
            journal.add("extra", case.name, step=0, metrics=dict(case.metrics))
            for path in case.pictures:
                journal.add("artifact", case.name, path=str(path))
            ended = {"status.reason": "measured", "trial.state": "complete"}
            journal.add("end", case.name, state="complete", tags=ended)
        journal.add("end", SWEEP, state="complete", tags={"status.reason": f"{len(cases)} cases measured"})
        kept = tracker.close()
        journal.close()
    if kept or tracker.refused:
        fail(f"the tracker {tracking_uri()} did not take it: {tracker.trouble or tracker.refused[0]}")
    for case in cases:
        figures = "  ".join(f"{key} {value:.5g}" for key, value in case.metrics.items())
        print(f"{case.name:24} {figures}")
    print("the verdict: python analysis/puzzles.py")
