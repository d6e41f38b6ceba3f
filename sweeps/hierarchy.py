"""What loses the players when a second VQ-VAE compresses a frame to three codes?

Run:     python sweeps/hierarchy.py --dataset boxing --model.first beta_lr-boxing --trials 24 --images 100000
         --model.first names the first VQ-VAE: a sweep (its best trial), a run, or a checkpoint's folder
Asked:   the report's second reconstructions are "mostly green squares" (2.4), and it does not know why
Suspects: the rate (more codes), the mean over the map (which forgets where things are), a decoder that hears the codes
         only through one bias for all positions, its power, and a loss in which the players' rare codes drown
Look at: valid/second_foreground_error (0: all is kept, 1: as if only the background were there) and valid/information
"""

from sweeps._launch import launch
from sweeps._space import Sweep, choice, log_uniform

REPORT = {
    "model.codes": 3,
    "model.pooling": "average",
    "model.condition": "vector",
    "model.decoder_hidden": 16,
    "model.rare_weight": 0.0,
    "train.lr": 3e-3,
}

sweep = Sweep(
    name="hierarchy",
    question="What keeps the players: more codes, where the encoder and the decoder know they are, or the loss?",
    model="hierarchy",
    objectives=("bits_per_dim", "foreground"),
    space={
        "model.codes": choice(3, 6, 12),
        "model.pooling": choice("average", "positions"),
        "model.condition": choice("vector", "map"),
        "model.decoder_hidden": choice(16, 32, 64),
        "model.rare_weight": choice(0.0, 0.25, 0.5),
        "train.lr": log_uniform(3e-4, 5e-3),
    },
    known={
        "the report": REPORT,
        "positions": {**REPORT, "model.pooling": "positions", "model.condition": "map", "train.lr": 1e-3},
        "positions, 12 codes": {
            **REPORT,
            "model.codes": 12,
            "model.pooling": "positions",
            "model.condition": "map",
            "train.lr": 1e-3,
        },
    },
)

if __name__ == "__main__":
    launch(sweep)
