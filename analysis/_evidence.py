"""The runs that published verdicts stand on, as a file: whoever has it can draw the verdicts again, or others."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis._commands import repeatable
from analysis._verdicts import Evidence
from analysis.runs import Run
from vqvae_core.files import write_whole

# Of a run's tags those that a verdict or its reader needs; the others name the machine, or repeat what is said.
TAGS = (
    "stage",
    "seed",
    "sweep.id",
    "hardware",
    "mlflow.source.git.commit",
    "git.dirty",
    "data.shape",
    "data.collected",
)
PLACES = (
    "data.root",
    "data.source",
    "model.first",
    "train.device",
)  # last part of a setting's name that is of a machine


def write_runs(path: Path, found: Mapping[int, Evidence]) -> None:
    """Write the runs of some puzzles; those of others that the file has already are kept.

    Raises ``ValueError`` when the file cannot be written, or is no such file.
    """
    content = {**(_content(path) if path.exists() else {}), **{str(n): _as_json(one) for n, one in found.items()}}
    text = json.dumps({"kind": "puzzle runs", "puzzles": dict(sorted(content.items()))}, separators=(",", ":"))
    try:
        write_whole(path, gzip.compress(text.encode(), mtime=0))
    except OSError as error:
        raise ValueError(f"--export writes {path}, which cannot be written ({error.strerror})") from None


def read_runs(path: Path) -> dict[int, Evidence]:
    """The runs of each puzzle in a file; ``ValueError`` where it is no such file."""
    return {int(number): _evidence(one) for number, one in _content(path).items()}


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        assert content["kind"] == "puzzle runs"
        puzzles: dict[str, Any] = content["puzzles"]
        return puzzles
    except (OSError, EOFError, ValueError, KeyError, TypeError, AssertionError):
        raise ValueError(f"{path} is no file of puzzles' runs") from None


def _as_json(found: Evidence) -> dict[str, Any]:
    return {
        "sweeps": [_run(sweep) for sweep in found.sweeps],
        "runs": [_run(run) for run in found.runs],
        "curves": {run.id: found.curves.get(run.id, []) for run in found.runs},
    }


def _run(run: Run) -> dict[str, Any]:
    """A run without what is of the machine that made it."""
    tags = {name: run.tags[name] for name in TAGS if name in run.tags}
    if "command" in run.tags:
        tags["command"] = repeatable(run.tags["command"])
    if "first.settings" in run.tags:
        tags["first.settings"] = json.dumps(_without_places(json.loads(run.tags["first.settings"])))
    kept = {"params": _without_places(run.params), "tags": tags, "artifacts": ""}
    return {**dataclasses.asdict(run), **kept}


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without folders; that images came from one is still said, as DIR."""
    kept = {name: value for name, value in settings.items() if not name.endswith(PLACES)}
    sources = {name: value for name, value in settings.items() if name.endswith("data.source")}
    return kept | {name: "DIR" for name, value in sources.items() if value not in (None, "None")}


def _evidence(content: Mapping[str, Any]) -> Evidence:
    sweeps, runs = ([Run(**fields) for fields in content[name]] for name in ("sweeps", "runs"))
    return Evidence(sweeps, runs, {run: [(step, value) for step, value in c] for run, c in content["curves"].items()})
