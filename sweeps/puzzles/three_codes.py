"""Puzzle 5: why does the second VQ-VAE lose the players?

Run:     python sweeps/puzzles/three_codes.py --checkpoint boxing_hierarchy --checkpoint boxing_hierarchy_better
         --checkpoint names a second VQ-VAE on Boxing; the first with the report's settings, others to compare
         (sweeps/hierarchy.py finds better ones, and says what each setting does)
Asked:   "We are still not sure how the original authors achieved such good reconstructions" (2.4)
Guess:   the report's code could not have kept them (it predicted each code from itself, on an eighth of the data, from
         random scalar codebooks); but three codes of a mean over the map hold too little of where things are too
Scale:   as trained; all validation frames: bits of the codes that the decoder uses, and the error where players, score
         and clock are
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

import torch

from sweeps.puzzles._record import Case, checkpoint_options, opened, record, training_of
from vqvae_core.codes import codes_of
from vqvae_core.hierarchical import Hierarchy
from vqvae_core.hierarchy_task import evaluate
from vqvae_core.overrides import fail
from vqvae_core.pictures import both_reconstructions, grid, write_picture

QUESTION = "Why does the second VQ-VAE lose the players?"
SETTINGS = ("codes", "num_codes", "pooling", "halvings", "condition", "decoder_hidden", "layers", "rare_weight",
            "quantizer")  # fmt: skip
MEASURED = ("information", "information_most", "bits_per_code", "perplexity", "codes_used", "first_foreground_error",
            "second_foreground_error", "first_mse", "second_mse", "bits_per_dim")  # fmt: skip


def main() -> None:
    chosen = checkpoint_options("three_codes", __doc__, "boxing_hierarchy")
    names = [case_name(where) for where in chosen.checkpoint]
    if twice := next((name for name in names if names.count(name) > 1), None):
        fail(f"--checkpoint names {twice} twice; allowed is each once")
    torch.set_num_threads(1)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for number, where in enumerate(chosen.checkpoint):
            checkpoint, dataset = opened(where)
            model = checkpoint.model()
            if not isinstance(model, Hierarchy):
                fail(f"--checkpoint is a {checkpoint.experiment.model.type}; allowed is a hierarchy")
            codes = codes_of(model.first, dataset, torch.device("cpu"))
            metrics = evaluate(model, codes, "valid", 64, 2000)
            picture = Path(folder) / f"reconstructions-{number}.png"
            write_picture(grid(both_reconstructions(model, dataset, "test")), picture)
            settings = {f"model.{name}": getattr(model.config, name) for name in SETTINGS}
            settings |= {"arm": "report" if not number else f"other {number}", "images_seen": checkpoint.images_seen}
            settings |= training_of(checkpoint, dataset)
            found = {name: metrics[name] for name in MEASURED if name in metrics}
            cases.append(Case(names[number], settings, found, pictures=[picture]))
        record("puzzle_three_codes", QUESTION, dataset.name, cases)


def case_name(where: str) -> str:
    """What a case is called: a run's name, and with it the checkpoint's where the latter was given."""
    path = Path(where)
    return f"{path.parent.name}-{path.name}" if path.name.startswith("at-") else path.name


if __name__ == "__main__":
    main()
