"""What the runs of each puzzle say: an answer with its evidence, and what would overturn it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from analysis._commands import how_to_repeat
from analysis.runs import Curve, Query, Run, find_curves, find_runs
from vqvae_core.intervals import interval

BITS = "valid/bits_per_dim"
Arms = Mapping[str, Sequence[Run]]  # the runs of each setting, by seed
Curves = Callable[[Sequence[Run], str], Mapping[str, Curve]]


@dataclass(frozen=True)
class Finding:
    """An answer and what it stands on."""

    answer: str
    evidence: Sequence[str]
    metric: str  # that the picture shows
    values: Mapping[str, Sequence[float]]  # of it, by setting
    scale: str  # how large the runs were, against the report's


@dataclass(frozen=True)
class Puzzle:
    """One question that the report left open."""

    number: int
    question: str
    sweep: str  # name of its sweep in the tracker
    program: str  # that makes it
    overturned_by: str
    read: Callable[[Arms, Sequence[Run], Curves], Finding]  # (complete runs, failed ones, histories of a metric)
    picture: str = ""  # of images, among the published ones


@dataclass(frozen=True)
class Verdict:
    """A finding, with all that is needed to judge and to repeat it."""

    puzzle: Puzzle
    finding: Finding
    runs: Sequence[str]  # their ids
    sweep: Run
    needs: Sequence[str] = ()  # commands that train what the puzzle's own looks at


def verdicts(uri: str, puzzles: Sequence[Puzzle]) -> dict[int, Verdict]:
    """Of each puzzle that the tracker has runs for, the verdict of its newest sweep.

    Raises ``ValueError`` when the tracker cannot be read.
    """
    parents: dict[str, Run] = {}
    for run in find_runs(uri, Query(tags={"stage": "sweep"})):
        parents.setdefault(run.name, run)
    found = {}
    for puzzle in puzzles:
        parent = parents.get(puzzle.sweep)
        if parent is None:
            continue
        own = find_runs(uri, Query(tags={"sweep.id": parent.tags.get("sweep.id", ""), "stage": "fixed"}))
        arms = by_arm([run for run in own if run.status == "FINISHED"])
        failed = [run for run in own if run.status == "FAILED"]
        over = [run.id for run in own if run.status in ("FINISHED", "FAILED")]
        try:
            finding = puzzle.read(arms, failed, partial(find_curves, uri))
        except (KeyError, IndexError, statistics.StatisticsError):  # runs of an older version, or not yet all
            continue
        needs = list(dict.fromkeys(command for run in own for command in trained_by(run)))
        found[puzzle.number] = Verdict(puzzle, finding, over, parent, needs)
    return found


def trained_by(run: Run) -> list[str]:
    """The commands that train the model that a run looked at, the first stage before the second.

    A second stage without ``--model.first`` is trained on the run that the command before it makes.
    """
    stages = [
        {name.removeprefix(stage): value for name, value in run.params.items() if name.startswith(stage)}
        for stage in ("first.", "trained.")
    ]
    for config in stages:
        config.pop("model.first", None)
    commands = (how_to_repeat(config, [int(config["seed"])]) for config in stages if config)
    return [command for command in commands if command]


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by their setting, each list by seed."""
    arms: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.started, run.id)):
        arms.setdefault(run.params["arm"], []).append(run)
    return {arm: sorted(own, key=lambda run: run.seed or 0) for arm, own in arms.items()}


def values(runs: Sequence[Run], metric: str = BITS) -> list[float]:
    """A metric of some runs; ``KeyError`` when one lacks it."""
    return [run.metrics[metric] for run in runs]


def mean(runs: Sequence[Run], metric: str = BITS) -> float:
    """Its mean."""
    return statistics.mean(values(runs, metric))


@dataclass(frozen=True)
class Difference:
    """How much more one setting has than another, seed by seed."""

    mean: float
    half: float | None  # of its 95 % interval (Student's t); None for one seed
    n: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half is not None and abs(self.mean) > self.half

    def __str__(self) -> str:
        """``+0.0123 ± 0.0045 (n = 3)``."""
        half = "" if self.half is None else f" ± {self.half:.4f}"
        return f"{self.mean:+.4f}{half} (n = {self.n} seeds)"


def difference(arms: Arms, more: str, less: str, metric: str = BITS) -> Difference:
    """``more`` minus ``less``, of the seeds that both have."""
    first = {run.seed: run.metrics[metric] for run in arms[more]}
    second = {run.seed: run.metrics[metric] for run in arms[less]}
    gaps = [first[seed] - second[seed] for seed in first if seed in second]
    return Difference(statistics.mean(gaps), interval(gaps), len(gaps))


def of_all(arms: Arms, metric: str = BITS) -> dict[str, list[float]]:
    """A metric of every setting."""
    return {arm: values(runs, metric) for arm, runs in arms.items()}


def with_interval(own: Sequence[float], digits: int = 4) -> str:
    """``1.2345 ± 0.0012``: a mean with its 95 % interval (Student's t), where there are several."""
    half = interval(own)
    return f"{statistics.mean(own):.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def scale_of(arms: Arms, note: str = "") -> str:
    """How large the trainings were: ``mnist, 32 channels (the report: 256), 12,000 images seen, 3 seeds``."""
    runs = [run for own in arms.values() for run in own]
    widths, images = ({int(run.params[name]) for run in runs} for name in ("model.hidden", "train.images"))
    seeds = sorted({len(own) for own in arms.values()})
    parts = [
        ", ".join(sorted({run.dataset for run in runs})),
        " or ".join(map(str, sorted(widths))) + " channels (the report: 256)",
        " or ".join(f"{count:,}" for count in sorted(images)) + " images seen",
        note,
        " or ".join(map(str, seeds)) + " seeds",
    ]
    return ", ".join(filter(None, parts))
