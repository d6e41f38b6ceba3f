"""What is each model of codes worth with a learned prior? A PixelCNN for every run of a sweep of Table 1.

Run:     python sweeps/table1.py --dataset mnist                  # the first stages, several seeds each
         python sweeps/table1_prior.py --model.first table1-mnist --only vqvae --images 60000
Then:    python analysis/table1.py
Asked:   the report trains priors to draw images and never to price them: its rate is log2 K a code (Equation 7)
Rows:    vqvae_prior stands on vqvae, a prior for each of its seeds, so that an interval is of both stages; and so on.
         A dVAE and VIMCO are priced by their likeliest codes. A VAE has none, and no such row.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps._journal import state_of
from sweeps._launch import launch
from sweeps._space import Point, Sweep
from sweeps._tracker import SWEEP
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import CategoricalConfig, VQVAEConfig
from vqvae_core.overrides import OneLineParser, fail
from vqvae_core.second_stage import runs_folder

HELP = """usage: python sweeps/table1_prior.py --model.first SWEEP [--only ROW] [OPTION ...]

  --model.first SWEEP  a sweep of sweeps/table1.py, by its folder or name, all of whose runs are finished
  --only ROW           a row of it, several times for several (all that have codes)

Every other option is one of a sweep:
"""


@dataclass(frozen=True)
class First:
    """A finished run of Table 1 whose codes a prior can learn."""

    row: str
    seed: int
    dataset: str
    checkpoint: Path


def firsts(where: str, only: Sequence[str]) -> list[First]:
    """The runs of a sweep of Table 1 that have codes, each at its end, where it was tested.

    Raises ``ValueError`` when there is none, or the sweep is not finished.
    """
    allowed = "allowed is the folder or name of a finished sweep of sweeps/table1.py"
    folder = next((path for path in (Path(where), runs_folder() / where) if (path / "trials").is_dir()), None)
    if folder is None:
        raise ValueError(f"--model.first is {where!r}; {allowed}")
    if state_of(folder, SWEEP) != "complete":
        raise ValueError(f"--model.first is {where!r}, which was not brought to its end; {allowed}")
    found, others = [], set()
    for trial in sorted((folder / "trials").iterdir()):
        row, _, seed = trial.name.rpartition("-seed-")
        last = Keeper(trial / "checkpoints").last() if row and seed.isdecimal() else None
        if last is None or (only and row not in only):
            continue
        if not isinstance(last.experiment.model, VQVAEConfig | CategoricalConfig):
            others.add(row)
        elif last.images_seen < last.experiment.train.images:
            raise ValueError(f"--model.first is {where!r}, whose run {trial.name} failed; leave its row out by --only")
        else:
            found.append(First(row, int(seed), last.experiment.data.name, last.folder.absolute()))
    for row in only:
        if row in others:
            raise ValueError(f"--only is {row}; allowed is a row with codes")
        if row not in {first.row for first in found}:
            raise ValueError(f"--only is {row}; {folder} has no runs of it")
    if not found:
        raise ValueError(f"--model.first is {where!r}, which has no run with codes; {allowed}")
    return found


def table1_prior(stages: Sequence[First]) -> Sweep:
    """The list of runs, one for each first stage and with its seed."""
    of = {(stage.row, stage.seed): str(stage.checkpoint) for stage in stages}

    def fields(point: Point) -> Point:
        return {"seed": point["seed"], "model.first": of[point["row"].removesuffix("_prior"), point["seed"]]}

    runs: Mapping[str, Point] = {f"{row}_prior-seed-{seed}": {"row": f"{row}_prior", "seed": seed} for row, seed in of}
    return Sweep(
        name="table1_prior",
        question="What is each model of codes worth with a learned prior, in bits/dim that are likelihoods?",
        model="prior",
        space={},
        base={"model.first": str(stages[0].checkpoint)},
        known={},
        derive=fields,
        fixed=runs,
    )


def main(arguments: list[str]) -> None:
    """One sweep; the same command continues it."""
    parser = OneLineParser("sweeps/table1_prior.py", allow_abbrev=False, add_help=False)
    parser.add_argument("--model.first", dest="first", metavar="SWEEP")
    parser.add_argument("--only", action="append", default=[], metavar="ROW")
    parser.add_argument("--dataset", metavar="NAME")
    parser.add_argument("--seed", metavar="N")
    chosen, rest = parser.parse_known_args(arguments)
    if {"-h", "--help"} & set(rest):
        print(HELP)
        launch(Sweep("table1_prior", "", {}, model="prior"), ["--help"])
    if not chosen.first:
        fail("--model.first is not given; allowed is the folder or name of a finished sweep of sweeps/table1.py")
    if chosen.seed:
        fail(f"--seed is {chosen.seed}; allowed is none: a prior has the seed of the run that it stands on")
    try:
        stages = firsts(chosen.first, chosen.only)
    except ValueError as error:
        fail(str(error))
    dataset = stages[0].dataset
    if chosen.dataset not in (None, dataset):
        fail(f"--dataset is {chosen.dataset}; allowed is {dataset}, which {chosen.first} was trained on")
    launch(table1_prior(stages), ["--dataset", dataset, *rest])


if __name__ == "__main__":
    main(sys.argv[1:])
