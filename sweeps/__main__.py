"""After a sweep, and before one: ``python -m sweeps list``, ``best``, ``leaderboard``, ``importance``, ``doctor``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sweeps._settings import DEFAULT_STORAGE, DEFAULT_TRACKER
from vqvae_core.overrides import OneLineParser, at_least, fail

FORMATS = ("text", "csv", "md", "latex", "json")
ACTIONS = {
    "show": "what won, its figures, and how to repeat it",
    "export": "weights, config, figures, picture and command in one folder",
    "rerun": "train it again with the same config and seed, and compare",
    "extend": "train it on, from its checkpoint, to more images",
}


def build_parser() -> OneLineParser:
    """The command line of ``python -m sweeps``."""
    parser = OneLineParser("python -m sweeps", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="every sweep of the study storage", allow_abbrev=False)
    _places(listing)
    listing.add_argument("--json", action="store_true", help="print one JSON object")

    board = commands.add_parser("leaderboard", help="the trials of a sweep, best first", allow_abbrev=False)
    board.add_argument("name", metavar="NAME", help="of the sweep; `list` prints them")
    _places(board)
    board.add_argument("--format", choices=FORMATS, default="text", help="what to print (text)")
    board.add_argument("--top", type=at_least(1), metavar="N", help="so many rows at most (all)")

    shares = commands.add_parser(
        "importance", help="what told a sweep's best trials from the others", allow_abbrev=False
    )
    shares.add_argument("name", metavar="NAME", help="of the sweep; `list` prints them")
    _places(shares)
    shares.add_argument("--json", action="store_true", help="print one JSON object")

    best = commands.add_parser(
        "best",
        help="a sweep's winner: show, export, rerun, extend",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="\n".join(f"{action:8}{meaning}" for action, meaning in ACTIONS.items()),
    )
    best.add_argument("name", metavar="NAME", help="of the sweep; `list` prints them")
    best.add_argument("action", nargs="?", choices=ACTIONS, default="show", metavar="ACTION", help="see below (show)")
    _places(best)
    best.add_argument("--trial", metavar="RUN", help="another trial than the winner, or a replicate: 007, 007-seed-2")
    best.add_argument("--json", action="store_true", help="show: print one JSON object")
    best.add_argument("--to", type=Path, metavar="DIR", help="export: a new folder (NAME-RUN)")
    best.add_argument("--images", type=at_least(1), metavar="N", help="extend: images in all")
    best.add_argument(
        "--tracking-uri", metavar="URI", help=f"extend: MLflow's ($MLFLOW_TRACKING_URI, {DEFAULT_TRACKER})"
    )
    best.add_argument("--within", type=at_least(0, float), default=0.01, metavar="X", help="rerun: bits/dim (0.01)")
    best.add_argument("--threads", type=at_least(1), metavar="N", help="rerun, extend: of the CPU (torch's default)")
    best.add_argument("--device", choices=("auto", "cpu", "cuda"), help="rerun, extend: where (as the trial)")

    doctor = commands.add_parser("doctor", help="what is here, what is missing, and what to do", allow_abbrev=False)
    _places(doctor)
    doctor.add_argument("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    doctor.add_argument("--data", type=Path, metavar="DIR", help="where data sets are ($VQSWEEP_DATA or data)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage", metavar="URL", help=f"Optuna's ($VQSWEEP_STORAGE or {DEFAULT_STORAGE})")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where checkpoints are ($VQSWEEP_RUNS or runs)")


def main(arguments: list[str]) -> None:
    """Run a command; a mistake in it is one line and exit status 2."""
    chosen = build_parser().parse_args(arguments)
    try:
        run(chosen)
    except ValueError as error:
        fail(str(error))
    except BrokenPipeError:  # `| head` has seen enough; Python must not try again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(chosen: argparse.Namespace) -> None:
    """The command that was chosen; what it needs is imported for it alone."""
    if chosen.command == "doctor":
        from sweeps import _doctor

        raise SystemExit(_doctor.main(chosen))
    from sweeps import _best, _leaderboard
    from sweeps._past import find_all, find_one, runs_folder, storage_url

    url, runs = storage_url(chosen.storage), runs_folder(chosen.out)
    if chosen.command == "list":
        print(_leaderboard.listing(find_all(url, runs), url, chosen.json), flush=True)
        return
    past = find_one(chosen.name, url, runs)
    if chosen.command == "importance":
        from sweeps import _importance

        print(_importance.shown(past.study, chosen.json), flush=True)
        return
    match chosen.command, getattr(chosen, "action", None):
        case "leaderboard", _:
            print(_leaderboard.leaderboard(past, chosen.format, chosen.top), flush=True)
        case _, "show":
            print(_best.show(past, past.row(chosen.trial), chosen.json), flush=True)
        case _, "export":
            print(_best.export(past, past.row(chosen.trial), chosen.to))
        case _, "rerun":
            from sweeps import _again

            _again.rerun(past, past.row(chosen.trial), chosen.within, chosen.threads, chosen.device)
        case _, "extend":
            from sweeps import _again

            if chosen.images is None:
                raise ValueError("extend needs --images N, the images to train on in all")
            uri = chosen.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKER
            _again.extend(past, past.row(chosen.trial), chosen.images, uri, chosen.threads, chosen.device)


if __name__ == "__main__":
    main(sys.argv[1:])
