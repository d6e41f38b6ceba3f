"""What loses the players when a second VQ-VAE compresses a frame to three codes?

Run:     python sweeps/hierarchy.py --dataset boxing --model.first beta_lr-boxing --trials 24 --images 100000
         --model.first names the first VQ-VAE: a sweep (its best trial), a run, or a checkpoint's folder
Asked:   the report's second reconstructions are "mostly green squares" (2.4), and it does not know why
Suspects: the rate (more codes), the mean over the map (which forgets where things are), a decoder that hears the codes
         only through one bias for all positions, its power, codebooks that collapse, and a loss in which the players'
         rare codes drown
Look at: valid/second_foreground_error (0: all is kept, 1: as if only the background were there) and valid/information
"""

from sweeps._launch import launch
from sweeps._space import Point, Sweep, choice, log_uniform, only_if

ALIVE = {"model.codebook_init": "kmeans", "model.restart_below": 0.05, "model.beta": 0.25}

REPORT = {
    "model.pooling": "average",
    "model.codes": 3,
    "model.condition": "vector",
    "model.quantizer": "gradient",
    "model.decoder_hidden": 16,
    "model.rare_weight": 0.0,
    "train.lr": 3e-3,
}
POSITIONS = {**REPORT, "model.pooling": "positions", "model.condition": "map", "train.lr": 1e-3}
CELLS = {**POSITIONS, "model.pooling": "none", "model.codes": 1, "model.quantizer": "ema", "train.lr": 2e-3}


def alive(point: Point) -> Point:
    """Moving averages come with what keeps a codebook alive; the report's codebook has none of it."""
    return {**point, **(ALIVE if point.get("model.quantizer") == "ema" else {})}


sweep = Sweep(
    name="hierarchy",
    question="What keeps the players: more codes, codes that stay where they are, a codebook alive, or the loss?",
    model="hierarchy",
    objectives=("bits_per_dim", "foreground"),
    space={
        "model.pooling": choice("average", "positions", "none"),
        "model.halvings": only_if("model.pooling", ("none",), choice(2, 3)),
        "model.codes": choice(1, 3, 12),
        "model.condition": choice("vector", "map"),
        "model.quantizer": choice("gradient", "ema"),
        "model.decoder_hidden": choice(16, 32),
        "model.rare_weight": choice(0.0, 0.25, 0.5),
        "train.lr": log_uniform(3e-4, 5e-3),
    },
    derive=alive,
    known={
        "the report": REPORT,
        "cells": {**CELLS, "model.halvings": 2},
        "larger cells": {**CELLS, "model.halvings": 3},
        "12 codes of weighted positions": {**POSITIONS, "model.codes": 12, "model.quantizer": "ema"},
    },
)

if __name__ == "__main__":
    launch(sweep)
