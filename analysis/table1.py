"""The report's Table 1, bits/dim on the test split: theirs beside the best that the tracker has.

Run:     python analysis/table1.py
         python analysis/table1.py --format md
         python analysis/table1.py --export results/table1.json --hardware "1 x NVIDIA H200"
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # started as a file: Python looks for modules in analysis/, where ours are not
    sys.path[0] = str(PROJECT)

from analysis._layout import FORMATS
from analysis._rows import Row, find_rows, with_hardware
from analysis.published import Result, read_results, this_machine, write_results
from analysis.runs import DEFAULT_TRACKER, tracking_uri
from vqvae_core.overrides import OneLineParser, fail


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; a mistake in the command line, or a tracker that does not answer, is one line and status 2."""
    chosen = parse(arguments)
    uri = tracking_uri(chosen.tracking_uri)
    try:
        rows = find_rows(uri, chosen.split, published_in(chosen.results))
        if chosen.export:
            export(chosen.export, rows, chosen.hardware)
    except ValueError as error:
        fail(str(error))
    try:
        print(FORMATS[chosen.format](rows, chosen.split, uri), flush=True)
    except BrokenPipeError:  # `| head` has seen enough; Python must not try again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        "analysis/table1.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    add("--format", choices=FORMATS, default="text", help="what to print (text)")
    add("--split", choices=("test", "valid"), default="test", help="valid: of all complete trials (test)")
    add("--results", type=Path, metavar="DIR", help="published results to show too (the project's results/)")
    add("--export", type=Path, metavar="FILE", help="also publish our rows as JSON in this file")
    add("--hardware", metavar="TEXT", help="what they were made on, for --export (as tracked, else this machine)")
    return parser.parse_args(arguments)


def published_in(folder: Path | None) -> list[tuple[str, Result]]:
    """The published results, each with its file's name; a folder that the user named must be there."""
    if folder and not folder.is_dir():
        raise ValueError(f"--results is {folder}; allowed is a folder")
    return read_results(folder or PROJECT / "results")


def export(path: Path, rows: Sequence[Row], hardware: str | None) -> None:
    """Publish ours of all rows; ``ValueError`` when there are none or the file cannot be written."""
    ours = [row.ours for row in rows if row.ours]
    if not ours:
        raise ValueError(f"there is no run to publish in {path}")
    if not hardware and not all(result.hardware for result in ours):
        hardware = this_machine()
    write_results(path, with_hardware(ours, hardware or ""))
    print(f"published {len(ours)} rows in {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
