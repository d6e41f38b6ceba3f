"""What a sweep's report says: the words, tables and charts that the template lays out."""

from __future__ import annotations

import base64
import math
import re
import shlex
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from analysis import _plots
from analysis._commands import how_to_repeat
from analysis._parallel import parallel
from analysis._plots import Cost
from analysis._puzzles import PUZZLES
from analysis._rows import NAMES
from analysis._size import Counter
from analysis._statistics import common_budget, importance, pareto
from analysis._sweep import OBJECTIVE, STATES, Sweep, Trial, spread
from analysis.runs import DEFAULT_TRACKER, Run, read_artifact, shown
from vqvae_core import tables
from vqvae_core.intervals import interval

ROWS = 200  # of a table; the file has all of them, as CSV
PICTURES = ("test_reconstructions.png", "reconstructions.png")
LARGEST = 1 << 20  # bytes of one picture in the page
FOREGROUND = "valid/second_foreground_error"  # of a second VQ-VAE: what is lost where something moves
PNG = b"\x89PNG"


def page(sweep: Sweep, uri: str) -> dict[str, Any]:
    """Everything that the template needs, by name."""
    budget, compared = common_budget(sweep)
    mattered = importance(sweep)
    count = Counter(sweep.run.tags.get("data.shape", ""))
    size = {trial.run.id: count(trial.run) for trial in sweep.trials if trial.complete}
    costs = [
        Cost("parameters", lambda trial: size.get(trial.run.id, math.nan)),
        Cost("seconds of training", lambda trial: trial.seconds),
    ]
    front = pareto_front(sweep, costs)
    names = {trial.name for trial in front}
    return {
        "sweep": sweep,
        "title": f"{sweep.run.name}: {NAMES.get(sweep.run.dataset, sweep.run.dataset)}",
        "question": sweep.run.tags.get("question", ""),
        "answer": measured_answer(sweep) if sweep.measured else answer(sweep),
        "facts": facts(sweep),
        "settings": settings(sweep),
        "ranking": ranking(sweep),
        "measured": measurements(sweep) if sweep.measured else None,
        "columns": ranking_columns(sweep),
        "left_out": max(0, len(sweep.trials) - ROWS),
        "csv": data_uri(table_csv(sweep, size).encode(), "text/csv"),
        "confirmed": confirmed(sweep),
        "whiskers": _plots.whiskers(sweep.confirmed, "about-confirmed") if sweep.confirmed else None,
        "parallel": parallel(sweep, "about-parallel"),
        "importance": mattered,
        "bars": _plots.importance_bars(mattered, "about-importance") if mattered and mattered.parts else None,
        "budget": budget,
        "compared": len(compared),
        "slices": _plots.slices(sweep, compared, "about-slice") if len(compared) > 1 else [],
        "front": [front_row(trial, costs) for trial in front],
        "trade_offs": [
            (number, cost.title, chart)
            for number, cost in enumerate(costs)
            if (chart := _plots.trade_off(sweep, cost, names, f"about-cost-{number}"))
        ],
        "curves": _plots.curves(sweep, "about-curves") if any(trial.curve for trial in sweep.trials) else None,
        "drawn": min(len(sweep.own), _plots.CURVES),
        "pictures": pictures(sweep, uri),
        "tips": {trial.name: _plots.tip(trial) for trial in spread(sweep.trials, _plots.LINES)},
        "ended": ended(sweep),
        "reasons": reasons(sweep),
        "spent": spent(sweep),
        "commands": commands(sweep, uri),
        "tracker": shown(uri),
        "states": STATES,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "finite": math.isfinite,
    }


def answer(sweep: Sweep) -> list[str]:
    """What the sweep found, in a few sentences."""
    best = sweep.best
    if best is None:
        return ["No trial has been trained to its end: there is no winner" + (" yet." if sweep.running else ".")]
    point = ", ".join(f"{name} {_plots.trim(value)}" for name, value in best.point.items())
    words = (
        f"Trial {best.name} needs the fewest bits: {point}." if point else f"Trial {best.name} needs the fewest bits."
    )
    said = [words]
    said.append(f"On the validation images {with_interval(best.over_seeds())}.")
    tested = best.over_seeds("test/bits_per_dim")
    if tested:
        said.append(f"On the test images, which chose nothing, {with_interval(tested)}.")
    alike = [t.name for t in sweep.confirmed if t is not best and not separable(best, t)]
    if best.interval is None:
        said.append("One seed has no interval: how sure this is, only further seeds can tell (--seeds 3).")
    elif alike:
        said.append(f"Not separable from it, at 95 %: {', '.join(alike)}.")
    front = [trial for trial in sweep.own if trial.run.tags.get("pareto.front") == "true"]
    if front:
        said.append(f"In all that was to be small, no other trial beats {' and '.join(map(figures_of, front))}.")
    taken = sum(bool(trial.taken) for trial in sweep.trials)
    if taken:
        said.append(f"{taken} of the trials were not trained: another one had the same settings, seed, data and code.")
    floor = sweep.run.metrics.get("mean_image/bits_per_dim")
    if floor is not None:
        said.append(f"A decoder that always answers the mean training image needs {floor:.4f}.")
    for trial in sweep.trials:
        if trial.known and trial is not best and trial.complete:
            difference = trial.value - best.value
            said.append(f"{capital(trial.known)}'s point (trial {trial.name}) needs {difference:.4f} more.")
    return said


def measured_answer(sweep: Sweep) -> list[str]:
    """What is said of measurements, which have no winner: what they show is for whoever asked to read from them."""
    count = sweep.count("complete")
    said = [f"{count} cases were measured, of which none is to win." if count > 1 else "One case was measured."]
    puzzle = next((puzzle for puzzle in PUZZLES if puzzle.sweep == sweep.run.name), None)
    if puzzle:
        said.append(f"They are puzzle {puzzle.number} of the report; python analysis/puzzles.py says what they show.")
    return said


def measurements(sweep: Sweep) -> list[list[str]]:
    """The figures of measured cases as a table, headings first; whatever there is more of goes down the page."""
    cases = [trial for trial in sweep.trials if trial.state == "complete"]
    metrics = sorted({name for trial in cases for name in trial.run.metrics})
    cells = [[_figure(trial.run.metrics.get(name)) for name in metrics] for trial in cases]
    names = [trial.name for trial in cases]
    table = [["case", *metrics], *([name, *row] for name, row in zip(names, cells, strict=True))]
    if len(metrics) <= len(cases):
        return table
    table[0][0] = "figure"
    return [list(column) for column in zip(*table, strict=True)]


def _figure(value: float | None) -> str:
    """Five digits of a figure of whatever size."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.5g}"


def figures_of(trial: Trial) -> str:
    """``000 (3.6231 bits/dim, foreground error 0.9371)``: a trial of a front, with what it was judged by."""
    foreground = trial.run.metrics.get(FOREGROUND)
    return f"{trial.name} ({trial.value:.4f} bits/dim{f', foreground error {foreground:.4f}' if foreground else ''})"


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def with_interval(values: Sequence[float]) -> str:
    """``1.2345 ± 0.0012 bits/dim (mean of 3 seeds)``."""
    mean, half = sum(values) / len(values), interval(values)
    if half is None:
        return f"{mean:.4f} bits/dim (one seed)"
    return f"{mean:.4f} ± {half:.4f} bits/dim (mean of {len(values)} seeds, 95 % interval)"


def separable(a: Trial, b: Trial) -> bool:
    """Whether the intervals of two trials lie apart."""
    return abs(a.mean - b.mean) > (a.interval or math.inf) + (b.interval or math.inf)


def facts(sweep: Sweep) -> list[tuple[str, str]]:
    """What the sweep was made of, as names and values."""
    tags = sweep.run.tags
    counts = [tags.get(f"data.{split}_images", "") for split in ("train", "valid", "test")]
    images = " / ".join(f"{int(count):,}" for count in counts if count.isdecimal())
    shape = tags.get("data.shape", "").replace("x", " × ")
    data = [NAMES.get(sweep.run.dataset, sweep.run.dataset), shape, f"{images} train / valid / test" if images else ""]
    commit = sweep.run.commit[:10] + (" with changes that are not in it" if sweep.run.dirty else "")
    budget = images_of(sweep.run)
    ends = ", ".join(f"{sweep.count(state)} {words}" for state, words in STATES.items() if sweep.count(state))
    return [
        (name, value)
        for name, value in [
            ("Data", ", ".join(filter(None, data))),
            ("From", tags.get("data.from", "")),
            ("Cases" if sweep.measured else "Trials", ends or "none yet"),
            ("Model", "" if sweep.measured else sweep.run.model),
            ("Budget of a trial", f"{budget:,} images" if budget else ""),
            ("Hardware", tags.get("hardware", "")),
            ("Code", commit),
            ("State", "still running, or its process died" if sweep.running else "finished"),
        ]
        if value
    ]


def images_of(run: Run) -> int:
    text = run.params.get("train.images", "")
    return int(text) if text.isdecimal() else 0


def settings(sweep: Sweep) -> list[tuple[str, str]]:
    """What was the same in every trial."""
    varied = {dimension.name for dimension in sweep.dimensions}
    return sorted((name, value) for name, value in sweep.run.params.items() if name not in varied)


def number(value: float | None, digits: int) -> str:
    """A figure in a table; a dash where there is none."""
    return f"{value:.{digits}f}" if value is not None and math.isfinite(value) else "–"


def ranking_columns(sweep: Sweep) -> list[tuple[str, str]]:
    """Headings of the ranking, each with its full name."""
    return [
        ("rank", "place among complete trials"),
        ("trial", "number in the sweep"),
        ("bits/dim", "on the validation images, at the last report; less is better"),
        *((dimension.label, dimension.name) for dimension in sweep.dimensions),
        ("D", "distortion, bits/dim"),
        ("R", "rate of the codes under the prior that prices them, bits/dim"),
        ("perplexity", "of the codes"),
        ("images", "seen in training"),
        ("seconds", "of training steps"),
        ("end", "how the trial ended"),
    ]


def ranking(sweep: Sweep) -> list[dict[str, Any]]:
    """Rows of the ranking: the first so many."""
    rows = []
    for rank, trial in enumerate(sweep.trials[:ROWS], 1):
        distortion = trial.run.metrics.get("valid/distortion", math.nan)
        perplexity = trial.run.metrics.get("valid/perplexity")
        figures = [number(distortion, 4), number(trial.value - distortion, 4), number(perplexity, 1)]
        rows.append(
            {
                "trial": trial,
                "rank": str(rank) if trial.complete else "–",
                "sort": rank,
                "point": [_plots.trim(trial.point.get(dimension.name, "–")) for dimension in sweep.dimensions],
                "raw": [trial.point.get(dimension.name, "") for dimension in sweep.dimensions],
                "value": number(trial.value, 4),
                "figures": figures,
                "images": f"{trial.images:,}",
                "seconds": number(trial.seconds, 0),
                "end": STATES[trial.state]
                + (f"; {trial.known}'s point" if trial.known else "")
                + (f"; taken from {trial.taken}" if trial.taken else ""),
                "best": trial is sweep.best,
            }
        )
    return rows


def table_csv(sweep: Sweep, size: Mapping[str, float]) -> str:
    """Every trial and replicate with all digits."""
    rows: list[dict[str, object]] = []
    wanted = ("",) if sweep.measured else ("valid/", "test/")
    metrics = sorted({name for t in sweep.trials for name in t.run.metrics if name.startswith(wanted)})
    for trial in sweep.trials:
        for run in (trial.run, *trial.replicates):
            row: dict[str, object] = {"trial": trial.name, "run": run.id, "seed": run.seed, "end": trial.state}
            row |= {dimension.name: trial.point.get(dimension.name) for dimension in sweep.dimensions}
            row |= {"images": run.steps.get(OBJECTIVE), "seconds": run.metrics.get("train/seconds")}
            row |= {"parameters": size.get(trial.run.id), **{name: run.metrics.get(name) for name in metrics}}
            rows.append({**row, "reason": run.tags.get("status.reason", "")})
    return tables.comma_separated(rows) if rows else ""


def confirmed(sweep: Sweep) -> list[dict[str, str]]:
    """Rows of the table of trials with several seeds."""
    rows = []
    found = sweep.confirmed
    for trial in found:
        against = (
            ""
            if trial is found[0]
            else "worse, at 95 %"
            if separable(found[0], trial)
            else "not separable from the first"
        )
        rows.append(
            {
                "trial": trial.name,
                "mean": number(trial.mean, 4),
                "half": number(trial.interval, 4),
                "n": str(len(trial.over_seeds())),
                "test": number(mean_of(trial.over_seeds("test/bits_per_dim")), 4),
                "against": against or "least mean",
            }
        )
    return rows


def mean_of(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def pareto_front(sweep: Sweep, costs: Sequence[Cost]) -> list[Trial]:
    """Complete trials that no other one beats in bits/dim, parameters and seconds together."""
    known = [trial for trial in sweep.own if trial.complete]
    return [known[i] for i in pareto([[trial.value, *(cost.of(trial) for cost in costs)] for trial in known])]


def front_row(trial: Trial, costs: Sequence[Cost]) -> dict[str, Any]:
    values = [cost.of(trial) for cost in costs]
    return {
        "trial": trial.name,
        "value": number(trial.value, 4),
        "costs": [_plots.short_count(value) if math.isfinite(value) else "–" for value in values],
        "point": _plots.settings(trial),
    }


def pictures(sweep: Sweep, uri: str, most: int = 4) -> list[dict[str, str]]:
    """Originals over reconstructions: the winner's, on test if it was tested, then those of the next in the ranking."""
    chosen = [sweep.best] if sweep.best else []
    chosen += [trial for trial in sweep.own if trial.complete and trial is not sweep.best]
    found = []
    for trial in chosen[: 2 * most]:
        for name in PICTURES:
            content = read_artifact(uri, trial.run, name)
            if content and content.startswith(PNG) and len(content) <= LARGEST:
                split = "test" if name.startswith("test") else "validation"
                value = number(trial.value, 4)
                words = f"Trial {trial.name}, {value} bits/dim on valid: {split} images above their reconstructions"
                found.append({"uri": data_uri(content, "image/png"), "words": words})
                break
        if len(found) == most:
            break
    return found


def data_uri(content: bytes, kind: str) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def ended(sweep: Sweep) -> list[Trial]:
    """Trials that did not come to their end."""
    return [trial for trial in sweep.trials if trial.state in ("pruned", "failed", "stopped")][:ROWS]


def reasons(sweep: Sweep) -> list[tuple[str, int]]:
    """The reasons why trials ended early, without their numbers, most frequent first."""
    words = [t.reason or "no reason was noted" for t in sweep.trials if t.state in ("pruned", "failed", "stopped")]
    return Tally(re.sub(r"\d[\d,.]*(e[+-]?\d+)?", "…", word)[:160] for word in words).most_common(8)


def spent(sweep: Sweep) -> dict[str, Any]:
    """What the sweep has cost: by how trials ended, and in all."""
    rows = []
    for state, words in STATES.items():
        own = [trial.run for trial in sweep.trials if trial.state == state and not trial.taken]
        if own:
            rows.append(spent_on(words, own))
    further = [run for trial in sweep.trials for run in trial.replicates if "cache.from" not in run.tags]
    if further:
        rows.append(spent_on("further seeds", further))
    everything = [trial.run for trial in sweep.trials if not trial.taken] + further
    begun = min((run.started for run in [sweep.run, *everything]), default=0)
    over = max((run.ended for run in [sweep.run, *everything]), default=0)
    wall = duration((over - begun) / 1000) if over > begun else "unknown"
    return {"rows": rows, "total": spent_on("in all", everything), "wall": wall}


def spent_on(words: str, runs: Sequence[Run]) -> dict[str, str]:
    seconds = sum(s for run in runs if math.isfinite(s := run.metrics.get("train/seconds", math.nan)))
    images = sum(run.steps.get(OBJECTIVE, 0) for run in runs)
    return {"words": words, "runs": f"{len(runs):,}", "images": f"{images:,}", "time": duration(seconds)}


def duration(seconds: float) -> str:
    """``1 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def commands(sweep: Sweep, uri: str) -> list[tuple[str, str]]:
    """What to type to have it all again, each with what it gives."""
    tags, found = sweep.run.tags, []
    if sweep.run.commit != "unknown":
        found.append(("the code as it was", f"git checkout {sweep.run.commit}"))
    if tags.get("command"):
        found.append(("the sweep; where it has been made, this continues it", tags["command"]))
    best = sweep.best
    if best:
        again = how_to_repeat(best.run.params, sorted({r.seed for r in (best.run, *best.replicates)}, key=str))
        if again:
            found.append((f"trial {best.name} alone, without Ray", again))
    own = f"python analysis/report.py --sweep {shlex.quote(sweep.run.name)}"
    if uri != DEFAULT_TRACKER:
        own += f" --tracking-uri {shlex.quote(shown(uri))}"
    found.append(("this page", f"{own} -o report.html"))
    if uri.startswith("sqlite:"):
        found.append(("the runs in MLflow's own pages", f"mlflow ui --backend-store-uri {shlex.quote(uri)}"))
    return found
