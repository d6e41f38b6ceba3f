"""One training run, no Ray: ``python -m vqvae_core cifar10_vqvae --train.images 1000000``.

Every field of the experiment is an option. The same command again continues from the last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Self

from vqvae_core.checkpoint import Keeper
from vqvae_core.config import SecondStageConfig
from vqvae_core.data import prepare
from vqvae_core.overrides import (
    OneLineParser,
    describe_fields,
    did_you_mean,
    fail,
    split_overrides,
    with_overrides,
)
from vqvae_core.presets import PRESETS
from vqvae_core.second_stage import pinned, runs_folder
from vqvae_core.train import Diverged, Report, fit

COLLAPSED = 2.0  # a perplexity below that of two codes, each used half of the time
INTERRUPTED = 130  # exit status after Ctrl-C, as of any program


def line(report: Report, budget: int) -> str:
    """A report in one line of a terminal."""
    m = report.metrics
    progress = f"{report.images_seen:>10,} of {budget:,} images  loss {m['train/loss']:.4f}"
    total, distortion = m["valid/bits_per_dim"], m["valid/distortion"]
    bits = f"bits/dim {total:.3f} = {distortion:.3f} + {total - distortion:.3f}"
    codes = f"perplexity {m['valid/perplexity']:.1f}  " if "valid/perplexity" in m else ""
    rest = f"{codes}{m['train/images_per_sec']:,.0f} images/s"
    return f"{progress}  {bits}  {rest}"


class Watch:
    """Shows how far training is between two reports, and makes Ctrl-C or SIGTERM end it with a checkpoint."""

    def __init__(self, budget: int, every: float = 20.0) -> None:
        self.budget, self.every = budget, 0.5 if sys.stderr.isatty() else every
        self.interrupted = False
        self._shown = time.monotonic()
        self._before: dict[int, Any] = {}

    def __call__(self, images_seen: int) -> bool:
        """What ``fit`` asks after each step: whether to stop."""
        if time.monotonic() - self._shown > self.every:
            self._shown = time.monotonic()
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"{images_seen:>10,} of {self.budget:,} images", end=end, file=sys.stderr, flush=True)
        return self.interrupted

    def clear(self) -> None:
        """A report is printed now; it says how far training is."""
        self._shown = time.monotonic()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        self._restore()  # a second signal ends the process at once

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()


def preset_name(text: str) -> str:
    """An argparse type: the name of a preset."""
    if text not in PRESETS:
        raise argparse.ArgumentTypeError(
            f"{text!r}{did_you_mean(text, PRESETS)}; allowed is one of {', '.join(PRESETS)}"
        )
    return text


def main(arguments: list[str]) -> None:
    parser = OneLineParser("python -m vqvae_core", description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("preset", nargs="?", type=preset_name, metavar="PRESET")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where checkpoints go ($VQSWEEP_RUNS/PRESET or runs/PRESET)"
    )
    parser.add_argument("--data-source", metavar="DIR", help="short for --data.source")
    parser.add_argument("--help", "-h", action="store_true")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.help or chosen.preset is None:
        print(f"usage: python -m vqvae_core PRESET [--out DIR] [--data-source DIR] [--FIELD VALUE ...]\n\n{__doc__}")
        print(f"presets: {', '.join(PRESETS)}\n\nfields and their values in {chosen.preset or 'tiny'}:")
        print(describe_fields(PRESETS[chosen.preset or "tiny"]()))
        return
    try:
        overrides = split_overrides(rest)
        if chosen.data_source:
            overrides["data.source"] = chosen.data_source
        if "VQSWEEP_DATA" in os.environ:
            overrides.setdefault("data.root", os.environ["VQSWEEP_DATA"])
        experiment = pinned(with_overrides(PRESETS[chosen.preset](), overrides))
        out = chosen.out or runs_folder() / chosen.preset
        if out.exists() and not out.is_dir():
            raise ValueError(f"--out is {str(out)!r}, which is not a folder")
        if isinstance(experiment.model, SecondStageConfig):
            print(f"codes of {experiment.model.first}", flush=True)
        dataset = prepare(experiment.data)
        keeper = Keeper(out)
        last = keeper.last()
        if last:
            print(f"continuing from {last.folder}")
        with Watch(experiment.train.images) as watch:
            for report in fit(experiment, last.state() if last else None, dataset, watch):
                keeper.save(report.state, report.metrics, dataset.shape)
                if report.metrics:
                    watch.clear()
                    print(line(report, experiment.train.images), flush=True)
        if watch.interrupted:
            print(f"stopped at {report.images_seen:,} images; the same command continues", file=sys.stderr)
            raise SystemExit(INTERRUPTED)
        best = keeper.best()
        if best:
            value = best.metrics["valid/bits_per_dim"]
            print(f"best: {value:.3f} bits/dim at {best.images_seen:,} images, in {best.folder}")
            perplexity = best.metrics.get("valid/perplexity", math.inf)
            if perplexity < COLLAPSED:
                words = f"its codes' perplexity is {perplexity:.1f}: they say next to nothing of an image"
                print(f"warning: {words}", file=sys.stderr)
    except (ValueError, Diverged, OSError) as error:  # the last: a folder that cannot be written, a full disk
        fail(str(error))
    except KeyboardInterrupt:  # before training, or a second time
        print("\nstopped; the same command continues from the last checkpoint", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main(sys.argv[1:])
