"""The end of a sweep on the screen: the ranking, the confirmed ones with their intervals, and what to type next."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from sweeps._board import Board, Row
from sweeps._display import number
from sweeps._plan import Plan, short
from vqvae_core.intervals import interval

PLACE = {"complete": 0, "running": 1, "stopped": 1, "pruned": 2, "failed": 3}
FIGURES = {
    "bits/dim": ("bits_per_dim", 4),
    "distortion": ("distortion", 4),
    "rate": ("rate", 4),
    "perplexity": ("perplexity", 1),
}


def ranking(board: Board, floor: float) -> str:
    """All trials, best first, complete ones before stopped ones; ``floor`` is what a mean-image decoder needs."""
    rows = sorted(searched(board), key=lambda row: (PLACE[row.state], row.value, row.run))
    names = list(dict.fromkeys(name for row in rows for name in row.point))
    header = ["rank", "trial", *(name.rpartition(".")[2] for name in names), *FIGURES, "images", "remark"]
    lines = [header]
    for place, row in enumerate(rows, 1):
        figures = [number(figure(row, name), digits) for name, digits in FIGURES.values()]
        point = [short(row.point[name]) if name in row.point else "" for name in names]
        rank = str(place) if row.state == "complete" else "-"
        lines.append([rank, row.run, *point, *figures, f"{row.images_seen:,}", remark(row)])
    text = table(lines)
    return f"{text}\nA decoder that always answers the mean training image needs {floor:.4f} bits/dim."


def figure(row: Row, name: str) -> float:
    """A figure of validation; ``rate`` is what bits/dim has beside the distortion, whichever prior priced it."""
    metrics = row.metrics
    if name == "rate":
        return metrics.get("valid/bits_per_dim", math.inf) - metrics.get("valid/distortion", 0.0)
    return metrics.get(f"valid/{name}", math.inf)


def searched(board: Board) -> list[Row]:
    """The trials of the search, without the replicates that confirm them."""
    return [row for row in board.rows.values() if row.parent == "sweep"]


def remark(row: Row) -> str:
    """What a reader should know of a trial besides its figures."""
    match row.state:
        case "complete":
            return "" if row.origin == "TPE" else f"{row.origin}'s point"
        case "pruned":
            return "stopped early by ASHA"
        case "failed":
            return f"failed: {row.reason[:60]}"
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
    return f"best: trial {best.run} ({point}): {best.value:.4f} bits/dim on valid, {number(test)} on test"


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
