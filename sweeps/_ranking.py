"""The end of a sweep on the screen: the ranking, the confirmed ones with their intervals, and what to type next."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from sweeps._board import Board, Row, by_merit
from sweeps._display import number
from sweeps._objectives import FORMATS, LABELS, front, values_of
from sweeps._plan import Plan, point_text, short
from sweeps._space import SAMPLED
from vqvae_core.intervals import interval, t95

PLACE = {"complete": 0, "running": 1, "stopped": 1, "pruned": 2, "failed": 3}
FIGURES = {
    "bits/dim": ("bits_per_dim", 4),
    "distortion": ("distortion", 4),
    "rate": ("rate", 4),
    "perplexity": ("perplexity", 1),
}


def ranking(board: Board, floor: float) -> str:
    """All trials, best first, complete ones before stopped ones; ``floor`` is what a mean-image decoder needs."""
    rows = sorted(searched(board), key=lambda row: (PLACE[row.state], *by_merit(row)))
    names = list(dict.fromkeys(name for row in rows for name in row.point))
    header = ["rank", "trial", *(name.rpartition(".")[2] for name in names), *FIGURES, "images", "remark"]
    lines = [header]
    like_the_best = within_noise(board)
    for place, row in enumerate(rows, 1):
        figures = [number(figure(row.metrics, name), digits) for name, digits in FIGURES.values()]
        point = [short(row.point[name]) if name in row.point else "" for name in names]
        rank = str(place) if row.state == "complete" else "-"
        lines.append([rank, row.run, *point, *figures, f"{row.images_seen:,}", remark(row, like_the_best)])
    text = table(lines)
    return f"{text}\nA decoder that always answers the mean training image needs {floor:.4f} bits/dim."


def figure(metrics: Mapping[str, float], name: str) -> float:
    """A figure of validation; ``rate`` is what bits/dim has beside the distortion, whichever prior priced it."""
    if name == "rate":
        return metrics.get("valid/bits_per_dim", math.inf) - metrics.get("valid/distortion", 0.0)
    return metrics.get(f"valid/{name}", math.inf)


def searched(board: Board) -> list[Row]:
    """The trials of the search, without the replicates that confirm them."""
    return [row for row in board.rows.values() if row.parent == "sweep"]


def remark(row: Row, like_the_best: Collection[str] = ()) -> str:
    """What a reader should know of a trial besides its figures."""
    match row.state:
        case "complete":
            parts = [row.unhealthy and f"codebook: {row.unhealthy}"]
            parts += ["" if row.origin in SAMPLED else f"{row.origin}'s point"]
            parts += [row.taken and f"taken from {row.taken}"]
            parts += ["not separable from the best" if row.run in like_the_best else ""]
            return "; ".join(part for part in parts if part)
        case "pruned":
            return "stopped early by ASHA" if row.reason.startswith("ASHA") else f"stopped early: {row.reason}"
        case "failed":
            return f"failed: {row.reason[:60]}"
        case "stopped":
            return f"stopped: {row.reason}" if row.reason else "stopped"
        case state:
            return state


def table(lines: Sequence[Sequence[str]]) -> str:
    """Columns under their headers; all but the last to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join([*(c.rjust(w) for c, w in zip(line[:-1], widths, strict=False)), line[-1]]).rstrip() for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def replicated(board: Board) -> dict[str, list[float]]:
    """valid/bits_per_dim of each confirmed trial with all its seeds, by trial."""
    values: dict[str, list[float]] = {}
    for row in board.rows.values():
        if row.parent != "sweep" and row.state == "complete":
            values.setdefault(row.parent, [board.rows[row.parent].value]).append(row.value)
    return values


def within_noise(board: Board) -> set[str]:
    """Trials of one seed that the best confirmed mean cannot be told from, by the spread between seeds.

    The spread is pooled over the confirmed trials, and taken to be the same for the others: a single value says
    nothing of its own. The best mean comes from data that chose it, so a few more trials may be as good.
    """
    groups = replicated(board)
    freedom = sum(len(values) - 1 for values in groups.values())
    if not freedom:
        return set()
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in groups.values())
    best = min(groups.values(), key=statistics.mean)
    width = t95(freedom) * math.sqrt(squares / freedom * (1 + 1 / len(best)))
    limit = statistics.mean(best) + width
    return {
        row.run for row in searched(board) if row.state == "complete" and row.run not in groups and row.value <= limit
    }


def pareto(board: Board, objectives: Sequence[str]) -> list[Row]:
    """The complete trials that no other one beats in all objectives, by bits/dim; only healthy ones compete."""
    points = {
        row.run: values_of(row.metrics, objectives)
        for row in searched(board)
        if row.state == "complete" and not row.unhealthy
    }
    return [board.rows[run] for run in front(points)]


def pareto_table(board: Board, objectives: Sequence[str]) -> str:
    """The front: what fewer bits/dim cost in the other objectives."""
    labels = [LABELS[name] for name in objectives]
    lines = [["trial", *labels, "point"]]
    for row in pareto(board, objectives):
        values = values_of(row.metrics, objectives)
        figures = [FORMATS[name].format(value) for name, value in zip(objectives, values, strict=True)]
        lines.append([row.run, *figures, point_text(row.point)])
    return f"Pareto front: no other trial beats these in {' and '.join(labels)}\n{table(lines)}"


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean; infinite for a single value."""
    width = interval(values)
    return math.inf if width is None else width


def confirmed(board: Board) -> str:
    """The confirmed trials by their mean, with 95 % intervals; the best mean comes from data that chose it."""
    groups = sorted(replicated(board).items(), key=lambda item: statistics.mean(item[1]))
    lines = [["trial", "mean", "95 %", "seeds", "remark"]]
    for run, values in groups:
        best = groups[0][1]
        apart = statistics.mean(values) - half_width(values) > statistics.mean(best) + half_width(best)
        remark = "" if values is best else "worse than the best" if apart else "not separable from the best"
        lines.append([run, f"{statistics.mean(values):.4f}", f"+-{half_width(values):.4f}", str(len(values)), remark])
    return table(lines)


def outcome(best: Row | None) -> str:
    """The winner in a sentence."""
    if best is None:
        return "No trial was completed: there is no winner."
    test = best.metrics.get("test/bits_per_dim", math.inf)
    point = ", ".join(f"{name} {short(value)}" for name, value in best.point.items())
    broken = f"; its codebook is out of its limits ({best.unhealthy}), as every other trial's" if best.unhealthy else ""
    return f"best: trial {best.run} ({point}): {best.value:.4f} bits/dim on valid, {number(test)} on test{broken}"


def where_next(plan: Plan) -> str:
    """Paths, and the two commands that come next."""
    local = plan.tracking_uri.startswith("sqlite:")
    look = f"mlflow ui --backend-store-uri {shlex.quote(plan.tracking_uri)}" if local else plan.tracking_uri
    script = Path("analysis") / "table1.py"
    return (
        f"checkpoints and pictures: {plan.folder / 'trials'}\n"
        f"compare the trials:       {look}\n"
        f"the report's table:       python {script}"
    )
