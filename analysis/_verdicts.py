"""What the runs of each puzzle say: an answer with its evidence, and what would overturn it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis._commands import how_to_collect, how_to_repeat, repeatable
from analysis._rows import NAMES
from analysis.runs import Curve, Query, Run, find_curves, find_runs
from vqvae_core.intervals import interval

BITS = "valid/bits_per_dim"
Arms = Mapping[str, Sequence[Run]]  # the runs of each setting, by seed
Curves = Mapping[str, Curve]  # of bits/dim, by the run's id


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
    read: Callable[[Arms, Sequence[Run], Curves], Finding]  # (complete runs, failed ones, histories of bits/dim)
    pictures: Sequence[str] = ()  # of images, among the published ones
    every_dataset: bool = False  # whether the newest sweep of each data set counts, not the newest alone


@dataclass(frozen=True)
class Evidence:
    """What the tracker has for one puzzle."""

    sweeps: Sequence[Run]  # newest first; further ones are of other data sets
    runs: Sequence[Run]  # of them
    curves: Curves


@dataclass(frozen=True)
class Verdict:
    """A finding, with all that is needed to judge and to repeat it."""

    puzzle: Puzzle
    finding: Finding
    runs: Sequence[str]  # their ids
    sweep: Run
    needs: Sequence[str] = ()  # commands that train what the puzzle's own looks at


def verdicts(found: Mapping[int, Evidence], puzzles: Sequence[Puzzle]) -> dict[int, Verdict]:
    """Of each puzzle that there is enough for, its verdict."""
    made = {puzzle.number: verdict(puzzle, found[puzzle.number]) for puzzle in puzzles if puzzle.number in found}
    return {number: one for number, one in made.items() if one}


def evidence(uri: str, puzzles: Sequence[Puzzle]) -> dict[int, Evidence]:
    """What the tracker has for each puzzle: its newest sweep, or that of each data set.

    Raises ``ValueError`` when the tracker cannot be read.
    """
    known = find_runs(uri, Query(tags={"stage": "sweep"}))
    found = {}
    for puzzle in puzzles:
        newest: dict[str, Run] = {}
        for sweep in known:
            if sweep.name == puzzle.sweep:
                newest.setdefault(sweep.dataset if puzzle.every_dataset else "", sweep)
        sweeps = list(newest.values())
        runs = [
            run
            for sweep in sweeps
            for run in find_runs(uri, Query(tags={"sweep.id": sweep.tags.get("sweep.id", ""), "stage": "fixed"}))
            if run.status in ("FINISHED", "FAILED")
        ]
        if runs:
            found[puzzle.number] = Evidence(sweeps, runs, find_curves(uri, runs, BITS))
    return found


def verdict(puzzle: Puzzle, found: Evidence) -> Verdict | None:
    """The verdict that some runs give; None where they are of an older version, or not yet all."""
    arms = by_arm([run for run in found.runs if run.status == "FINISHED"])
    failed = [run for run in found.runs if run.status == "FAILED"]
    try:
        finding = puzzle.read(arms, failed, found.curves)
    except (KeyError, IndexError, statistics.StatisticsError):
        return None
    newest, *others = found.sweeps
    needs = [command for run in (*found.sweeps, *found.runs) for command in made_before(run)]
    needs += [repeatable(sweep.tags["command"]) for sweep in others if "command" in sweep.tags]
    return Verdict(puzzle, finding, [run.id for run in found.runs], newest, list(dict.fromkeys(needs)))


def made_before(run: Run) -> list[str]:
    """The commands that make what a run or a sweep stands on: its frames, the first stage, then the second.

    A second stage without ``--model.first`` is trained on the run that the command before it makes.
    """
    stages = [
        {name.removeprefix(stage): value for name, value in run.params.items() if name.startswith(stage)}
        for stage in ("first.", "trained.")
    ]
    if "first.settings" in run.tags and run.tags.get("stage") == "sweep":
        stages.append({name: str(value) for name, value in json.loads(run.tags["first.settings"]).items()})
    commands = [how_to_collect(json.loads(run.tags.get("data.collected", "{}")), run.dataset)]
    for config in filter(None, stages):
        config.pop("model.first", None)
        config.pop("data.root", None)
        if config.get("data.source", "None") != "None":
            config["data.source"] = "DIR"
        commands.append(how_to_repeat(config, [int(config["seed"])]))
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


def named(run: Run) -> str:
    """Its data set as the report writes it."""
    return NAMES.get(run.dataset, run.dataset)


def with_interval(own: Sequence[float], digits: int = 4) -> str:
    """``1.2345 ± 0.0012``: a mean with its 95 % interval (Student's t), where there are several."""
    half = interval(own)
    return f"{statistics.mean(own):.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def scale_of(arms: Arms, note: str = "", seeds: bool = True) -> str:
    """How large the trainings were: ``MNIST, 32 channels (the report: 256), 12,000 images seen, 3 seeds``.

    Without ``seeds`` the note says how many there were.
    """
    runs = [run for own in arms.values() for run in own]
    widths, images = ({int(run.params[name]) for run in runs} for name in ("model.hidden", "train.images"))
    counts = sorted({len(own) for own in arms.values()})
    parts = [
        ", ".join(sorted({named(run) for run in runs})),
        " or ".join(map(str, sorted(widths))) + " channels (the report: 256)",
        " or ".join(f"{count:,}" for count in sorted(images)) + " images seen",
        note,
        " or ".join(map(str, counts)) + " seeds" if seeds else "",
    ]
    return ", ".join(filter(None, parts))
