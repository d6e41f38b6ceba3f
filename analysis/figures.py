"""The report's figures from runs in the tracker, each as a PNG beside a CSV of what is drawn.

Run:     python analysis/figures.py --figure 8
         python analysis/figures.py --all --data-root data
         python analysis/figures.py --figure 9 --checkpoint runs/boxing_hierarchy
         python analysis/figures.py --figure 5 --dataset my_photographs
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # started as a file: Python looks for modules in analysis/, where ours are not
    sys.path[0] = str(PROJECT)

from analysis._catalogue import FIGURES, Missing, make
from analysis.runs import DEFAULT_TRACKER, tracking_uri
from vqvae_core.overrides import OneLineParser, fail


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what was asked for. A figure without its run says which command makes it: then the exit status is 1."""
    chosen = parse(arguments)
    figures = list(FIGURES.values()) if chosen.all else [FIGURES[name] for name in chosen.figure]
    made = 0
    for figure in figures:
        try:
            for path in make(figure, tracking_uri(chosen.tracking_uri), chosen):
                print(f"figure {figure.name}: {path}", flush=True)
                made += 1
        except Missing as missing:
            print(f"figure {figure.name}: {missing}", file=sys.stderr, flush=True)
        except ValueError as error:
            fail(f"figure {figure.name}: {error}")
    if not made:
        raise SystemExit(1)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    lines = [f"  {name:16}{figure.title}" for name, figure in FIGURES.items()]
    parser = OneLineParser(
        "analysis/figures.py",
        description=__doc__,
        epilog="figures:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--figure", action="append", choices=FIGURES, metavar="N", help="which one; several times for several")
    add("--all", action="store_true", help="all of them")
    add("--dataset", metavar="NAME", help="of this data set instead of the report's")
    add("--checkpoint", metavar="PATH", help="from this checkpoint, run's folder or run's name, not from the tracker")
    add("--data-root", type=Path, metavar="DIR", help="where the images are prepared (as in training)")
    add("--seed", type=int, default=0, metavar="S", help="of samples (0)")
    add("--out", type=Path, default=Path("figures"), metavar="DIR", help="where to write (figures)")
    add("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    chosen = parser.parse_args(arguments)
    if not chosen.all and not chosen.figure:
        parser.error(f"--figure is not given; allowed is one of {', '.join(FIGURES)}, or --all")
    if chosen.checkpoint and (chosen.all or len(chosen.figure) > 1):
        parser.error("--checkpoint is for one figure; give --figure once")
    if chosen.out.exists() and not chosen.out.is_dir():
        parser.error(f"--out is {str(chosen.out)!r}, which is not a folder")
    return chosen


if __name__ == "__main__":
    main()
