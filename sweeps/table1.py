"""What is each model worth, in bits/dim that are likelihoods? Every row of Table 1, several seeds each.

Run:     python sweeps/table1.py --dataset mnist --data-source DIR
         python sweeps/table1.py --only vae --only vqvae_mse --images 20000
Then:    python analysis/table1.py
Asked:   the report's bits/dim are no likelihoods, and its row of VIMCO is blank
Rows:    _mse is trained on squared errors, as in the report, and priced with a scale fitted afterwards; the others on
         the likelihood that prices them; vqvae_ema is vqvae_mse with a codebook that is kept alive
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence

from sweeps._launch import launch
from sweeps._space import Point, Sweep
from vqvae_core.overrides import OneLineParser, at_least

DATASETS = ("mnist", "fashion_mnist", "cifar10")
# A codebook that is kept alive: begun among the encoder's outputs, and its unused codes drawn from them anew.
ALIVE = {"model.quantizer": "ema", "model.codebook_init": "kmeans", "model.restart_below": 0.1, "model.beta": 0.25}

ROWS: Mapping[str, Point] = {
    "vqvae_mse": {"model.type": "vqvae"},  # the preset is the report's
    "vqvae_ema": {"model.type": "vqvae", **ALIVE},
    "vae_mse": {"model.type": "vae"},
    "vqvae": {"model.type": "vqvae", "model.likelihood": "categorical", **ALIVE},
    "vae": {"model.type": "vae", "model.likelihood": "categorical"},
    "vimco": {"model.type": "vimco", "model.likelihood": "categorical"},
    "dvae": {"model.type": "dvae", "model.likelihood": "categorical"},
}

HELP = f"""usage: python sweeps/table1.py [--only ROW] [--dataset NAME] [--seeds N] [OPTION ...]

  --only ROW         a row, several times for several (all); one of {", ".join(ROWS)}
  --dataset NAME     a data set, several times for several ({", ".join(DATASETS)})
  --seeds N          seeds of each row (3)
  --seed N           the first of them (0)
  --likelihood NAME  what the rows trained on a likelihood have (categorical); mixture costs a quarter of the time
  --samples S        of VIMCO's bound in training (10)

Every other option is one of a sweep:
"""


def table1(
    rows: Sequence[str],
    seeds: Sequence[int],
    given: Collection[str],
    likelihood: str | None = None,
    samples: int | None = None,
) -> Sweep:
    """The list of runs, row by row; fields that the command line gives are not the rows' to choose."""

    def fields(point: Point) -> Point:
        chosen = {**ROWS[point["row"]], "seed": point["seed"]}
        if likelihood and "model.likelihood" in chosen:
            chosen["model.likelihood"] = likelihood
        if samples and chosen["model.type"] == "vimco":
            chosen["model.samples"] = samples
        return {name: value for name, value in chosen.items() if name not in given}

    return Sweep(
        name="table1",
        question="What is each model worth, in bits/dim that are likelihoods?",
        space={},
        known={},
        derive=fields,
        fixed={f"{row}-seed-{seed}": {"row": row, "seed": seed} for row in rows for seed in seeds},
    )


def main(arguments: list[str]) -> None:
    """One sweep for each data set, one after the other; the same command continues the one that is not finished."""
    parser = OneLineParser("sweeps/table1.py", allow_abbrev=False, add_help=False)
    parser.add_argument("--only", action="append", choices=list(ROWS), metavar="ROW")
    parser.add_argument("--dataset", action="append", metavar="NAME")
    parser.add_argument("--seeds", type=at_least(1), default=3, metavar="N")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N")
    parser.add_argument("--likelihood", choices=("categorical", "mixture"), metavar="NAME")
    parser.add_argument("--samples", type=at_least(2), metavar="S")
    chosen, rest = parser.parse_known_args(arguments)
    if {"-h", "--help"} & set(rest):
        print(HELP)
    given = {word[2:].partition("=")[0].replace("-", "_") for word in rest if word.startswith("--")}
    seeds = range(chosen.seed, chosen.seed + chosen.seeds)
    sweep = table1(chosen.only or list(ROWS), seeds, given, chosen.likelihood, chosen.samples)
    for dataset in chosen.dataset or DATASETS:
        launch(sweep, ["--dataset", dataset, *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
