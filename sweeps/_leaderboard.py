"""The trials of a sweep as a table to read or to paste, and the sweeps of a storage."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from sweeps._board import Row, by_merit
from sweeps._display import number
from sweeps._past import Past, shown
from sweeps._plan import short
from sweeps._ranking import FIGURES, PLACE, figure, half_width, remark, replicated, searched
from vqvae_core.tables import Column, comma_separated, latex, markdown, text

Record = dict[str, Any]


def leaderboard(past: Past, form: str, top: int | None = None) -> str:
    """The trials, best first, complete ones before others; of csv and json every number has all its digits."""
    rows = sorted(searched(past.board), key=lambda row: (PLACE[row.state], *by_merit(row)))[:top]
    records = [record_of(past, place, row) for place, row in enumerate(rows, 1)]
    if not records:
        raise ValueError(f"the sweep {past.name} has no trials yet")
    match form:
        case "json":
            return json.dumps({"sweep": past.name, "experiment": past.experiment_name, "trials": records})
        case "csv":
            nested = ("point", "metrics")
            flat = [{k: v for k, v in r.items() if k not in nested} | r["point"] | r["metrics"] for r in records]
            names = list(dict.fromkeys(name for row in flat for name in row))
            return comma_separated([{name: row.get(name) for name in names} for row in flat])
        case "md":
            return markdown(columns_of(records))
        case "latex":
            return latex(columns_of(records))
    return text(columns_of(records))


def record_of(past: Past, place: int, row: Row) -> Record:
    """One trial with all that is known of it; None where nothing is."""
    seeds = replicated(past.board).get(row.run, [])
    width = half_width(seeds) if seeds else math.inf
    return {
        "rank": place if row.state == "complete" else None,
        "trial": row.run,
        "state": row.state,
        "images_seen": row.images_seen,
        "bits_per_dim": finite(row.value),
        "mean": statistics.mean(seeds) if seeds else None,
        "half_width_95": finite(width),
        "seeds": len(seeds) or 1,
        "origin": row.origin,
        "remark": remark(row),
        "reason": row.reason,
        "point": row.point,
        "metrics": {name: finite(value) for name, value in row.metrics.items()},
    }


def columns_of(records: Sequence[Record]) -> list[Column]:
    """The columns that people read: the point, the figures of valid, and those of test where there are any."""
    points = list(dict.fromkeys(name for record in records for name in record["point"]))

    def cell(value: float, digits: int) -> str:
        return number(value, digits) if math.isfinite(value) else ""

    known = [{name: v for name, v in record["metrics"].items() if v is not None} for record in records]

    columns = [
        Column("rank", [str(record["rank"] or "-") for record in records]),
        Column("trial", [record["trial"] for record in records]),
        *(
            Column(name.rpartition(".")[2], [short(r["point"][name]) if name in r["point"] else "" for r in records])
            for name in points
        ),
        *(
            Column(title, [cell(figure(metrics, name), digits) for metrics in known])
            for title, (name, digits) in FIGURES.items()
        ),
    ]
    if any(record["mean"] is not None for record in records):
        columns.append(Column("over seeds", [over_seeds(record) for record in records]))
    if any("test/bits_per_dim" in record["metrics"] for record in records):
        columns.append(Column("test", [cell(metrics.get("test/bits_per_dim", math.inf), 4) for metrics in known]))
    columns.append(Column("images", [f"{record['images_seen']:,}" for record in records]))
    return [*columns, Column("remark", [record["remark"] for record in records], left=True, most=60)]


def over_seeds(record: Record) -> str:
    """``3.9123 ±0.0210 (3)``: mean, half the 95 % interval, seeds."""
    if record["mean"] is None:
        return ""
    return f"{record['mean']:.4f} ±{number(record['half_width_95'] or math.inf)} ({record['seeds']})"


def finite(value: float) -> float | None:
    """A number that JSON has a word for."""
    return value if math.isfinite(value) else None


def listing(sweeps: Sequence[Past], url: str, as_json: bool) -> str:
    """Every sweep of a storage, oldest first, with how far it is."""
    records = [summary(past) for past in sweeps]
    if as_json:
        return json.dumps({"storage": shown(url), "sweeps": records})
    if not records:
        return f"there is no sweep in {shown(url)} yet; python sweeps/beta_lr.py --help"
    titles = ("sweep", "experiment", "begun")
    columns = [Column(title, [record[title] for record in records], left=True, most=40) for title in titles]
    for title in ("complete", "pruned", "failed", "running"):
        columns.append(Column({"pruned": "stopped"}.get(title, title), [str(record[title]) for record in records]))
    values = [record["bits_per_dim"] for record in records]
    columns.append(Column("bits/dim", [number(math.inf if value is None else value) for value in values]))
    columns.append(Column("best", [record["best"] or "" for record in records]))
    return text(columns)


def summary(past: Past) -> Record:
    """One sweep in a row."""
    rows = searched(past.board)
    best = min((row for row in rows if row.state == "complete"), key=by_merit, default=None)
    counts = {state: sum(row.state == state for row in rows) for state in ("complete", "pruned", "failed", "running")}
    return {
        "sweep": past.name,
        "experiment": past.experiment_name,
        "begun": past.begun,
        **counts,
        "bits_per_dim": best.value if best else None,
        "best": best.run if best else None,
    }
