"""Recorded training runs on a grid, as a file and as something to search."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
METRICS = {"bits_per_dim": 6, "perplexity": 4, "dead_codes": 3, "latent_rms": 4, "code_rms": 4}  # name -> digits kept


@dataclass(frozen=True)
class Curve:
    """What one run reported."""

    curves: dict[str, list[float]]  # metric -> a value for each report
    failed: str  # why it broke off; empty when it came to its end
    seconds: float  # of one core


@dataclass(frozen=True)
class Recorded:
    """Runs over a grid, all with reports at the same steps."""

    about: dict[str, Any]  # command, commit, hardware, data, fixed settings
    grid: dict[str, list[Any]]  # field -> values, numbers in ascending order
    steps: list[int]  # images seen at each report
    runs: dict[tuple[int, ...], Curve]  # by position on the grid's axes


def write_table(path: Path, table: Recorded) -> None:
    """As compressed JSON, the same bytes for the same table."""
    runs = [[list(point), asdict(curve)] for point, curve in sorted(table.runs.items())]
    text = json.dumps({"about": table.about, "grid": table.grid, "steps": table.steps, "runs": runs})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_table(path: Path) -> Recorded:
    """The table that ``write_table`` was given."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    runs = {tuple(point): Curve(**curve) for point, curve in content["runs"]}
    return Recorded(content["about"], content["grid"], content["steps"], runs)
