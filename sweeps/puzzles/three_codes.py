"""Puzzle 5: why does the second VQ-VAE lose the players?

Run:     python -m atari_collect --game Boxing --frames 10000 --size 44 --out data/boxing44
         python -m vqvae_core boxing_vqvae --data.name boxing44 --model.hidden 64 --model.num_codes 128
         --model.code_dim 64 --model.beta 0.25 --model.quantizer ema --model.codebook_init kmeans
         --model.restart_below 0.05 --train.images 12000 --train.batch_size 16 --train.lr 0.001
         --train.eval_every 6000 --train.precision float32 --out runs/boxing44_vqvae
         python sweeps/puzzles/three_codes.py --model.first boxing44_vqvae
         and for a picture of a setting, here of "cells":
         python analysis/figures.py --figure 9 --checkpoint runs/puzzle_three_codes/trials/cells-seed-0/checkpoints
Asked:   "We are still not sure how the original authors achieved such good reconstructions" (2.4)
Guess:   the report's code could not have kept them (it predicted each code from itself, on an eighth of the data, from
         random scalar codebooks); but three codes of a mean over the map hold too little of where things are too
Scale:   frames of 44 x 44 pixels, so 11 x 11 codes, a quarter of the report's; every setting on the same first stage,
         with the same budget, and each one change away from another
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

from sweeps._space import Point
from sweeps.puzzles._arms import compare, run

# So short a training leaves the report's own codebooks at a few codes; each other setting has what keeps them alive.
ALIVE: Point = {
    "model.quantizer": "ema",
    "model.codebook_init": "kmeans",
    "model.restart_below": 0.05,
    "model.beta": 0.25,
}
CELLS = 36  # of a map of 11 x 11 codes, halved once

sweep = compare(
    name="puzzle_three_codes",
    question="Why does the second VQ-VAE lose the players?",
    model="hierarchy",
    arms={
        "report": {},
        "alive": ALIVE,
        "rate": {**ALIVE, "model.codes": CELLS},
        "cells": {**ALIVE, "model.codes": 1, "model.pooling": "none", "model.condition": "map"},  # as many codes
        "positions": {**ALIVE, "model.pooling": "positions"},
        "decoder": {**ALIVE, "model.decoder_hidden": 32},
        "rare": {**ALIVE, "model.rare_weight": 0.5},
    },
    base={
        "model.hidden": 64,
        "model.halvings": 1,
        "model.code_dim": 64,
        "model.head": 128,
        "train.batch_size": 16,
        "train.images": 8_000,
        "train.eval_every": 8_000,
        "train.precision": "float32",
    },
)

if __name__ == "__main__":
    run(sweep, "boxing44")
