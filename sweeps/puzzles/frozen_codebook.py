"""Puzzle 2: is a codebook that is drawn once and never trained as good as a trained one?

Run:     python sweeps/puzzles/frozen_codebook.py --data-source DIR
Asked:   "randomly initializing the codebook and never training them [...] produces very similar overall results" (3.3)
Guess:   where D is large few codes are used anyway and the encoder comes to them; where D is small, or many codes are
         used, it matters where they lie
Scale:   all of MNIST with batch normalisation, 32 channels instead of 256, K 512, D 8 and 256, 24,000 images at lr 1e-3
         (after 12,000 at the report's 3e-4 all of them still lose to the mean training image)
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

from sweeps._space import Point
from sweeps.puzzles._arms import compare, run

LEARNING: dict[str, Point] = {
    "trained": {"model.quantizer": "gradient", "model.codebook_init": "uniform"},
    "frozen": {"model.quantizer": "frozen", "model.codebook_init": "uniform"},
    "frozen_normal": {"model.quantizer": "frozen", "model.codebook_init": "normal"},
    "ema_kmeans": {"model.quantizer": "ema", "model.codebook_init": "kmeans", "model.restart_below": 0.1},
}

sweep = compare(
    name="puzzle_frozen_codebook",
    question="Is a random frozen codebook as good as a trained one?",
    arms={f"{name}_d{dim}": {**fields, "model.code_dim": dim} for dim in (8, 256) for name, fields in LEARNING.items()},
    base={
        "model.batch_norm": True,
        "model.hidden": 32,
        "train.images": 24_000,
        "train.eval_every": 12_000,
        "train.lr": 1e-3,
    },
)

if __name__ == "__main__":
    run(sweep, "mnist")
