"""Puzzle 3: does beta 0.25 diverge after 50 epochs where beta 1 does not?

Run:     python sweeps/puzzles/beta.py
Asked:   beta 1 "provided much more stability in training [than] beta = 0.25, which caused the model to diverge after 50
         epochs" (2.1)
Guess:   what drifts is the latents' scale, which only the commitment holds; with the in-place ReLU of the report's code
         it holds half of the dimensions alone (puzzle 8)
Scale:   the digits, 32 channels, 120 epochs of 1,350 images; the report's learning rate and its code's own, 1e-3
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

from sweeps.puzzles._arms import compare, run

sweep = compare(
    name="puzzle_beta",
    question="Does beta 0.25 diverge after 50 epochs where beta 1 does not?",
    arms={f"beta_{beta}_lr_{lr}": {"model.beta": beta, "train.lr": lr} for lr in (3e-4, 1e-3) for beta in (0.25, 1.0)},
    base={"model.hidden": 32, "model.code_dim": 32, "train.images": 162_000, "train.eval_every": 13_500},
)

if __name__ == "__main__":
    run(sweep, "digits")
