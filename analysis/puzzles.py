"""The report's puzzles: the verdict of each, its evidence, and what would overturn it.

Run:     python analysis/puzzles.py
         python analysis/puzzles.py --pictures results/puzzles --export results/puzzles.json --page docs/puzzles.md
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # started as a file: Python looks for modules in analysis/, where ours are not
    sys.path[0] = str(PROJECT)

from analysis._commands import repeatable
from analysis._evidence import write_runs
from analysis._puzzles import PUZZLES
from analysis._verdicts import BITS, Finding, Puzzle, Verdict, evidence, verdicts
from analysis.runs import DEFAULT_TRACKER, tracking_uri
from vqvae_core.files import write_whole
from vqvae_core.intervals import interval
from vqvae_core.overrides import OneLineParser, fail
from vqvae_core.tables import wrapped

KIND = "puzzles"
RUNS = "puzzle_runs.json.gz"
UNITS = {
    BITS: "bits/dim on valid",
    "bits_per_code": "bits per code",
    "valid/second_foreground_error": "error where players, score and clock are (1: nothing of them is kept)",
    "memory/peak_mb": "peak memory of the search, MiB",
    "bits/dim": "bits/dim on test",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the verdicts, those of the tracker before published ones; mistakes are one line and status 2."""
    chosen = parse(arguments)
    try:
        known = evidence(tracking_uri(chosen.tracking_uri), PUZZLES)
        found = {number: as_json(verdict) for number, verdict in verdicts(known, PUZZLES).items()}
        published = read_published(chosen.results or PROJECT / "results")
        if chosen.export:
            export(chosen.export, {**published, **found} if chosen.export.exists() else found)
            write_runs(chosen.export.with_name(RUNS), {number: known[number] for number in found})
        sections = []
        for puzzle in PUZZLES:
            entry = found.get(puzzle.number) or published.get(puzzle.number)
            picture = draw(entry, chosen.pictures) if entry and chosen.pictures else None
            print(shown(puzzle, entry, puzzle.number in found, picture), end="\n\n", flush=True)
            sections.append(section(puzzle, entry))
        if chosen.page:
            save(chosen.page, "\n\n".join([INTRODUCTION, *sections]) + "\n", "--page")
    except ValueError as error:
        fail(str(error))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        "analysis/puzzles.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--pictures", type=Path, metavar="DIR", help="draw the evidence of each as DIR/puzzle-N.png, with its CSV")
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help=f"publish the tracker's verdicts as JSON, and their runs as {RUNS} beside it; others there are kept",
    )
    add("--page", type=Path, metavar="FILE", help="all verdicts as a page of Markdown (docs/puzzles.md)")
    add("--results", type=Path, metavar="DIR", help="published verdicts to fall back on (the project's results/)")
    add("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    return parser.parse_args(arguments)


def shown(puzzle: Puzzle, entry: Mapping[str, Any] | None, own: bool, picture: Path | None) -> str:
    """A verdict for a terminal."""
    lines = [f"{puzzle.number}. {puzzle.question}"]
    if entry is None:
        return "\n".join([*lines, f"   no runs yet; these decide it: {puzzle.program}"])
    lines.append(wrapped(f"   {entry['answer']}", indent=3))
    lines += [wrapped(f"   - {line}", indent=5) for line in entry["evidence"]]
    where = "the tracker" if own else "results/"
    dirty = "*" if entry["dirty"] else ""
    lines.append(wrapped(f"   scale: {entry['scale']}", indent=5))
    lines.append(wrapped(f"   overturned by: {entry['overturned_by']}", indent=5))
    runs = ", ".join(run[:8] for run in entry["runs"][:4]) + (" ..." if len(entry["runs"]) > 4 else "")
    lines.append(f"   from {where}: {len(entry['runs'])} runs ({runs}), commit {entry['commit'][:10]}{dirty}")
    lines += [f"   first: {command}" for command in entry.get("needs", ())]
    lines.append(f"   again: {entry['command']}")
    lines += [f"   images: results/{name}" for name in puzzle.pictures]
    return "\n".join([*lines, *([f"   picture: {picture}"] if picture else [])])


INTRODUCTION = """# The report's puzzles

What *Reproducing Neural Discrete Representation Learning* left open, and what our runs say to it. Each verdict has its
effect with a 95 % interval and n, what would overturn it, and the commands that make its runs; DIR holds the images.
This page is made from `results/puzzles.json` by `python analysis/puzzles.py --page docs/puzzles.md`."""


def section(puzzle: Puzzle, entry: Mapping[str, Any] | None) -> str:
    """A verdict as a part of a page in the project's docs/."""
    title = f"## {puzzle.number}. {puzzle.question}"
    if entry is None:
        return f"{title}\n\nNo runs yet. These decide it: `{puzzle.program}`"
    dirty = " with changes that are not in it" if entry["dirty"] else ""
    made = f"{len(entry['runs'])} runs at commit {entry['commit'][:10]}{dirty}, {entry['hardware']}"
    pictures = [f"![{puzzle.question} Every run and the means.](../results/puzzles/puzzle-{puzzle.number}.png)"]
    pictures += [f"![Images that it is about.](../results/{name})" for name in puzzle.pictures]
    parts = [
        title,
        f"**{entry['answer']}**",
        "\n".join(f"* {line}" for line in entry["evidence"]),
        "\n\n".join(pictures),
        f"Scale: {entry['scale']}. It would be overturned by {entry['overturned_by']}. From {made}:",
        "\n".join(["```", *entry.get("needs", ()), entry["command"], "```"]),
    ]
    return "\n\n".join(parts)


def save(path: Path, text: str, flag: str) -> None:
    """Replace a file whole; ``ValueError`` names the flag that asked for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise ValueError(f"{flag} is {path}, which cannot be written ({error.strerror})") from None


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict with everything that a reader needs, as JSON holds it."""
    puzzle, finding, sweep = verdict.puzzle, verdict.finding, verdict.sweep
    return {
        "number": puzzle.number,
        "question": puzzle.question,
        **dataclasses.asdict(finding),
        "overturned_by": puzzle.overturned_by,
        "needs": list(verdict.needs),
        "command": repeatable(sweep.tags.get("command") or puzzle.program),
        "commit": sweep.commit,
        "dirty": sweep.dirty,
        "hardware": sweep.tags.get("hardware"),
        "data": sweep.experiment.partition("/")[0],
        "runs": list(verdict.runs),
    }


def read_published(folder: Path) -> dict[int, dict[str, Any]]:
    """Published verdicts by number; ``ValueError`` names a file that is none."""
    path = folder / "puzzles.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        assert content["kind"] == KIND
        fields = {f.name for f in dataclasses.fields(Finding)} | {"number", "overturned_by", "command", "runs"}
        assert all(fields | {"commit", "dirty"} <= set(entry) for entry in content["puzzles"])
        return {entry["number"]: entry for entry in content["puzzles"]}
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise ValueError(f"{path} is no file of published verdicts") from None


def export(path: Path, entries: Mapping[int, Mapping[str, Any]]) -> None:
    """Publish verdicts; ``ValueError`` when there are none or the file cannot be written."""
    if not entries:
        raise ValueError(f"there is no verdict to publish in {path}")
    content = {"kind": KIND, "puzzles": [entries[number] for number in sorted(entries)]}
    save(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", "--export")
    print(f"published {len(entries)} verdicts in {path}", file=sys.stderr)


def draw(entry: Mapping[str, Any], folder: Path) -> Path:
    """The evidence of a verdict: every run a dot, the mean of each setting with its interval, beside them as CSV."""
    from analysis._graphs import plt
    from analysis._graphs import save as save_graph

    groups: Mapping[str, Sequence[float]] = entry["values"]
    if entry["metric"] == BITS:
        groups = dict(sorted(groups.items()))
    figure, axis = plt.subplots(figsize=(7, 1 + 0.38 * len(groups)), layout="constrained")
    for row, own in enumerate(groups.values()):
        mean, half = sum(own) / len(own), interval(own)
        axis.plot(own, [row] * len(own), "o", color="#2364aa", alpha=0.7)
        axis.plot([mean] * 2, [row - 0.3, row + 0.3], color="#1b1f24", linewidth=2)
        if half is not None:
            axis.plot([mean - half, mean + half], [row, row], color="#1b1f24", linewidth=1)
    names = [name.replace("_", " ").replace("none", "no batch norm") for name in groups]
    several = any(len(own) > 1 for own in groups.values())
    title = UNITS.get(entry["metric"], entry["metric"]) + ("; lines: means, 95 % intervals" if several else "")
    axis.set(yticks=range(len(groups)), yticklabels=names, xlabel=title)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    if max(map(max, groups.values())) > 100 * min(map(min, groups.values())) > 0:
        axis.set_xscale("log")
    axis.set_title(f"{entry['number']}. {entry['question']}", fontsize=10)
    table = [
        {"setting": name, "metric": entry["metric"], "value": value} for name, own in groups.items() for value in own
    ]
    return save_graph(figure, folder / f"puzzle-{entry['number']}", table)[0]


if __name__ == "__main__":
    main()
