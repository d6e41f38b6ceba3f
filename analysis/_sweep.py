"""One sweep as the tracker has it: what it asked, its trials best first, their replicates and curves."""

from __future__ import annotations

import difflib
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from analysis._commands import PLACES
from analysis.runs import Curve, Query, Run, find_curves, find_runs, shown
from vqvae_core.intervals import interval

T = TypeVar("T")

OBJECTIVE = "valid/bits_per_dim"
SAMPLED = ("spread evenly", "TPE", "random", "the list")  # origins of points that are nobody's known ones
ASKED_OF_SERVER = 1000  # trials whose curves are read where each needs a question of its own

# In the order of a ranking: only what was trained to its end has a place.
STATES = {
    "complete": "complete",
    "running": "running",
    "stopped": "interrupted with the sweep",
    "pruned": "stopped early",
    "failed": "failed",
}


@dataclass(frozen=True)
class Dimension:
    """One thing that the sweep varied."""

    name: str  # dotted field: train.lr
    allowed: str  # in words, as the sweep noted it: "3e-05 .. 0.003 (log)"
    kind: str  # log, linear or choice
    options: tuple[str, ...] = ()  # of a choice, in order

    @property
    def label(self) -> str:
        """``train.lr`` -> ``lr``."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried, and what became of it."""

    run: Run
    point: Mapping[str, str]  # dimension -> value, as the tracker has it; without those that had no meaning here
    state: str  # one of STATES
    replicates: tuple[Run, ...] = ()  # complete ones with further seeds
    curve: Curve = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its number in the sweep: ``007``."""
        return self.run.name

    @property
    def value(self) -> float:
        """The objective at the last report; NaN when there was none."""
        return self.run.metrics.get(OBJECTIVE, math.nan)

    @property
    def images(self) -> int:
        """Images seen at the last report."""
        return self.run.steps.get(OBJECTIVE, 0)

    @property
    def seconds(self) -> float:
        """Spent in training steps; NaN when unknown."""
        return self.run.metrics.get("train/seconds", math.nan)

    @property
    def reason(self) -> str:
        """Why it ended."""
        return self.run.tags.get("status.reason", "")

    @property
    def known(self) -> str:
        """Whose point it was, such as ``the report``; empty where the search proposed it."""
        origin = self.run.tags.get("point.origin", "")
        return "" if origin in SAMPLED else origin

    @property
    def taken(self) -> str:
        """The trial that stood for this one, which was not trained itself; empty where it was."""
        return self.run.tags.get("cache.from", "")

    @property
    def complete(self) -> bool:
        """Trained to its end, with a number to show for it."""
        return self.state == "complete" and math.isfinite(self.value)

    def over_seeds(self, metric: str = OBJECTIVE) -> list[float]:
        """A metric of the trial and of its replicates, where they have it."""
        values = [run.metrics.get(metric, math.nan) for run in (self.run, *self.replicates)]
        return [value for value in values if math.isfinite(value)]

    @property
    def mean(self) -> float:
        """The objective's mean over the seeds; of one seed, its value."""
        values = self.over_seeds()
        return statistics.mean(values) if values else math.nan

    @property
    def interval(self) -> float | None:
        """Half the width of the mean's 95 % interval (Student's t); None for one seed."""
        return interval(self.over_seeds())


@dataclass(frozen=True)
class Sweep:
    """Everything that the tracker knows of one sweep."""

    run: Run
    dimensions: tuple[Dimension, ...]
    trials: tuple[Trial, ...]  # as ranked: complete ones by their objective, then the others

    def count(self, state: str) -> int:
        """Trials in one of STATES."""
        return sum(trial.state == state for trial in self.trials)

    @cached_property
    def own(self) -> tuple[Trial, ...]:
        """Its trials without those that repeat a setting by taking the result of another: they say nothing further."""
        trained = {tuple(sorted(trial.point.items())) for trial in self.trials if not trial.taken}
        kept = []
        for trial in self.trials:
            point = tuple(sorted(trial.point.items()))
            if not trial.taken or point not in trained:
                kept.append(trial)
                trained.add(point)
        return tuple(kept)

    @cached_property
    def best(self) -> Trial | None:
        """The winner that the sweep itself chose; before it has, the first of the ranking."""
        chosen = next((t for t in self.trials if t.name == self.run.tags.get("best.trial")), None)
        return chosen or next((t for t in self.trials if t.complete), None)

    @property
    def measured(self) -> bool:
        """Whether its runs are measurements: over, with figures of their own, and nothing by which to rank them."""
        return self.count("complete") > 0 and not any(math.isfinite(trial.value) for trial in self.trials)

    @property
    def confirmed(self) -> list[Trial]:
        """Complete trials with several seeds, best mean first."""
        return sorted((t for t in self.trials if t.complete and t.replicates), key=lambda t: t.mean)

    @property
    def running(self) -> bool:
        """Whether it goes on, as far as the tracker knows."""
        return self.run.status == "RUNNING"


def sweeps_in(uri: str) -> list[Run]:
    """The parent runs of all sweeps, newest first."""
    return find_runs(uri, Query(tags={"stage": "sweep"}))


def find_sweep(uri: str, name: str | None) -> Run | None:
    """The sweep of a name or id, the newest of them; the newest of all without a name; None when there is no sweep.

    Raises ``ValueError`` when there are sweeps and none is meant, or when the tracker cannot be read.
    """
    known = sweeps_in(uri)
    if name is None:
        return known[0] if known else None
    for run in known:
        if name in (run.name, run.tags.get("sweep.id"), run.id):
            return run
    names = list(dict.fromkeys(run.name for run in known))
    close = difflib.get_close_matches(name, names, 3, 0.4) or names[:5]
    there = f"there are {', '.join(close)}" if close else "it holds no sweep yet: python sweeps/beta_lr.py makes one"
    raise ValueError(f"--sweep is {name!r}, which {shown(uri)} does not know; {there}")


def read_sweep(uri: str, parent: Run) -> Sweep:
    """A sweep with all its trials. Raises ``ValueError`` when the tracker cannot be read."""
    own = [r for r in find_runs(uri, Query(tags={"sweep.id": parent.tags.get("sweep.id", "")})) if r.id != parent.id]
    first = [run for run in own if run.parent == parent.id]
    known = {run.id for run in first}
    further: dict[str, list[Run]] = {}
    for run in own:
        if run.parent in known and run.tags.get("stage") == "confirm" and run.status == "FINISHED":
            further.setdefault(run.parent or "", []).append(run)
    dimensions = dimensions_of(parent, first)
    trials = [
        Trial(
            run,
            {d.name: run.params[d.name] for d in dimensions if d.name in run.params and is_active(d, run)},
            state_of(run),
            tuple(sorted(further.get(run.id, []), key=lambda run: run.seed or 0)),
        )
        for run in first
    ]
    trials.sort(key=place)
    return Sweep(parent, dimensions, tuple(with_curves(uri, trials)))


def place(trial: Trial) -> tuple[int, float, str]:
    """Where a trial stands in the ranking."""
    value = trial.value if math.isfinite(trial.value) else math.inf
    return list(STATES).index(trial.state), value, trial.name


def with_curves(uri: str, trials: Sequence[Trial]) -> list[Trial]:
    """The trials with the history of their objective: from a server, of the first so many and evenly of the rest."""
    asked = list(trials) if uri.startswith("sqlite:") else spread(trials, ASKED_OF_SERVER)
    curves = find_curves(uri, [trial.run for trial in asked], OBJECTIVE)
    return [Trial(t.run, t.point, t.state, t.replicates, finite(curves.get(t.run.id, []))) for t in trials]


def finite(curve: Curve) -> Curve:
    return [(step, value) for step, value in curve if math.isfinite(value)]


def spread(trials: Sequence[T], most: int) -> list[T]:
    """At most so many of what is ranked: half of them the best, the others evenly from the rest."""
    if len(trials) <= most:
        return list(trials)
    first, rest = list(trials[: most // 2]), trials[most // 2 :]
    left = most - len(first)
    return first + [rest[i * len(rest) // left] for i in range(left)]


def state_of(run: Run) -> str:
    """How a trial ended, by its own word where it has one."""
    noted = run.tags.get("trial.state", "")
    if run.status == "RUNNING":
        return "running"
    if noted in STATES:
        return noted
    return {"FINISHED": "complete", "KILLED": "pruned"}.get(run.status, "failed")


CONDITION = re.compile(r", if (\S+) is (.+)$")  # as sweeps._space.describe words it


def is_active(dimension: Dimension, run: Run) -> bool:
    """Whether a dimension had a meaning in a trial: one that counts only under another's value may not."""
    found = CONDITION.search(dimension.allowed)
    return found is None or run.params.get(found[1], "") in found[2].split(" or ")


def dimensions_of(parent: Run, trials: Sequence[Run]) -> tuple[Dimension, ...]:
    """What was varied: as the sweep noted it, else every setting in which its trials differ."""
    try:
        noted = {str(name): str(words) for name, words in json.loads(parent.tags.get("space", "")).items()}
    except (ValueError, AttributeError):
        noted = {}
    if not noted:
        names = sorted({name for run in trials for name in run.params} - {"seed", *PLACES})
        noted = {name: "" for name in names if len({run.params.get(name) for run in trials}) > 1}
    return tuple(dimension(name, words, [run.params.get(name) for run in trials]) for name, words in noted.items())


def dimension(name: str, words: str, seen: Sequence[str | None]) -> Dimension:
    """A dimension by what the sweep said of it and by the values that it took."""
    values = {value for value in seen if value is not None}
    numbers = [number for value in values if (number := as_number(value)) is not None]
    range_ = " .. " in words
    if range_ or (not words and len(numbers) == len(values) > 6):
        positive = bool(numbers) and min(numbers) > 0
        log = "(log)" in words if words else positive and max(numbers) / min(numbers) >= 30
        return Dimension(name, words, "log" if log and positive else "linear")
    listed = words.partition(", if ")[0].split(" | ") if words else []
    order = sorted(values - set(listed), key=lambda value: (as_number(value) is None, as_number(value) or 0.0, value))
    return Dimension(name, words, "choice", (*listed, *order))


def as_number(text: str) -> float | None:
    """A parameter as a finite number, None when it is a word."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
