"""Puzzle 1: why does MNIST, and MNIST alone, need batch normalisation?

Run:     python sweeps/puzzles/batch_norm.py --data-source DIR
Asked:   "To our surprise, Batch Normalization was essential to make VQ-VAEs work on MNIST dataset alone." (2.1)
Guess:   five pixels in six are black, so an untrained Tanh learns to answer -1 everywhere and saturates there before
         the codes carry anything; normalisation is one of several things that prevent it
Scale:   all of MNIST, 32 channels instead of 256, 12,000 images; sure of the mechanism, not of the report's own width
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

from sweeps.puzzles._arms import compare, run

sweep = compare(
    name="puzzle_batch_norm",
    question="Why does MNIST need batch normalisation?",
    arms={
        "batch_norm": {"model.batch_norm": True},
        "none": {},
        "none_linear": {"model.output": "linear"},
        "none_kmeans": {"model.codebook_init": "kmeans"},
        "none_softmax": {"model.likelihood": "categorical"},
    },
    base={
        "model.batch_norm": False,
        "model.hidden": 32,
        "model.code_dim": 32,
        "train.images": 12_000,
        "train.eval_every": 6_000,
    },
)

if __name__ == "__main__":
    run(sweep, "mnist")
