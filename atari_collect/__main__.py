"""``python -m atari_collect``: make, check, describe, show and pass on data sets of Atari frames.

    python -m atari_collect --game Boxing --frames 60000 --actors 8 --out data/boxing

The same command goes on after a crash, and does nothing when all is there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from atari_collect.export import EXPORTS, export
from atari_collect.games import ROMS, game_id
from atari_collect.info import as_text, info
from atari_collect.preview import preview
from atari_collect.render import render
from atari_collect.resize import KERNELS, View
from atari_collect.verify import verify


class OneLineParser(argparse.ArgumentParser):
    """``argparse`` whose errors are one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        fail(f"{self.prog}: {message}")


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what was wrong in one line and leave."""
    print(" ".join(f"error: {message}".split()), file=sys.stderr)
    raise SystemExit(status)


def size(text: str) -> tuple[int, int]:
    """``84`` -> (84, 84), ``210x160`` -> (210, 160): height and width."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; 84 and 210x160 are")
    return int(match[1]), int(match[2] or match[1])


def collect_command(chosen: argparse.Namespace) -> None:
    from atari_collect.dataset import make, make_recipe

    actors = chosen.actors
    if actors is None:
        actors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        actors = 0 if actors == 1 else actors  # one actor is no faster than none
    if actors < 0:
        raise ValueError(f"--actors is {actors}; allowed is an integer >= 0")
    if actors:  # before anything is written
        from atari_collect.actors import check

        check(chosen.address)
    view = None if chosen.archive_only else view_from(chosen)
    recipe = make_recipe(
        chosen.game,
        chosen.frames,
        chosen.seed,
        chosen.frame_skip,
        chosen.stickiness,
        chosen.policy,
        chosen.episode_frames,
    )
    manifest = make(chosen.out, recipe, chosen.frames, view, actors, address=chosen.address)
    splits = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    print(f"{chosen.out}: {manifest.frames:,} frames of {recipe.game}, {splits}")
    print(f"dataset hash {manifest.dataset_hash}")


def verify_command(chosen: argparse.Namespace) -> None:
    print(verify(chosen.folder, chosen.episodes))


def render_command(chosen: argparse.Namespace) -> None:
    manifest = render(chosen.folder, chosen.out, view_from(chosen))
    print(f"{chosen.out}: {manifest.frames:,} frames, dataset hash {manifest.dataset_hash}")


def info_command(chosen: argparse.Namespace) -> None:
    figures = info(chosen.folder)
    print(json.dumps(figures, indent=1) if chosen.json else as_text(figures))


def export_command(chosen: argparse.Namespace) -> None:
    print(export(chosen.folder, chosen.to, chosen.out))


def preview_command(chosen: argparse.Namespace) -> None:
    print(*preview(chosen.folder, chosen.out or chosen.folder), sep="\n")


def view_from(chosen: argparse.Namespace) -> View:
    height, width = chosen.size
    return View(height, width, chosen.grey, chosen.kernel)


def _view_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=size, default=(84, 84), help="pixels, such as 84 or 210x160, height first (84)")
    parser.add_argument("--grey", action="store_true", help="one channel")
    parser.add_argument("--kernel", choices=KERNELS, default="area", help="how screens are resized (area)")


def build_parser() -> OneLineParser:
    games = ", ".join(game_id(rom) for rom in ROMS)
    parser = OneLineParser("python -m atari_collect", description=__doc__, epilog=f"games: {games}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if run is not collect_command:
            sub.add_argument("folder", type=Path, metavar="DIR", help="a collection, such as data/boxing")
        return sub

    sub = command("collect", collect_command, "play a game into a data set; the default command")
    sub.add_argument("--game", required=True, help="such as Boxing or space_invaders")
    sub.add_argument("--frames", type=int, default=60_000, help="stored frames, exactly (60000)")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="such as data/boxing")
    sub.add_argument("--actors", type=int, help="Ray actors; 0 plays in this process (one for each CPU)")
    sub.add_argument("--seed", type=int, default=0, help="root of every random number (0)")
    sub.add_argument("--frame-skip", type=int, default=4, help="emulated frames for a stored one (4)")
    sub.add_argument(
        "--stickiness", type=float, default=0.25, help="chance that an emulated frame repeats the last action (0.25)"
    )
    sub.add_argument("--policy", default="random", help="random, noop, or module:function (random)")
    sub.add_argument(
        "--episode-frames", type=int, help="stored frames after which an episode is cut (frames / 20, at most 4500)"
    )
    sub.add_argument("--archive-only", action="store_true", help="do not open the arrays")
    sub.add_argument("--address", help="of a Ray to use instead of one of our own; auto finds one on this machine")
    _view_options(sub)
    sub = command("verify", verify_command, "compare every checksum, and collect some episodes again")
    sub.add_argument("--episodes", type=int, default=3, help="how many to collect again, drawn at random (3)")
    sub = command("render", render_command, "play the recorded actions again, into a new folder and at any size")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR")
    _view_options(sub)
    sub = command("info", info_command, "counts, duplicates, frames that splits share, episodes")
    sub.add_argument("--json", action="store_true", help="as JSON")
    sub = command("export", export_command, "write it in another format, without loss")
    sub.add_argument("--to", choices=sorted(EXPORTS), required=True)
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    sub = command("preview", preview_command, "make a contact sheet, preview.png, and preview.gif")
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to (the collection's folder)")
    return parser


def main(arguments: list[str]) -> None:
    if arguments and arguments[0].startswith("--") and arguments[0] != "--help":
        arguments = ["collect", *arguments]
    chosen = build_parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        where = error.filename or getattr(chosen, "out", None) or chosen.folder
        fail(f"{where}: {error.strerror or error}; what is there is kept, the same command goes on", 1)
    except KeyboardInterrupt:
        fail("stopped; the same command goes on", 130)


if __name__ == "__main__":
    main(sys.argv[1:])
