"""Puzzle 4: why are samples that are conditioned on 1 not Boxing?

Run:     python sweeps/puzzles/unseen_label.py --checkpoint boxing_prior
         --checkpoint names a prior on Boxing's codes: a run, a sweep, or a checkpoint's folder
Asked:   "the samples with no conditioning are very good, but the ones with conditioning don't quite look like Boxing
         frames. It would be interesting future work to determine why this happens." (2.3.1)
Guess:   all frames lay in one folder, so all had the label 0; row 1 of every embedding stayed the N(0, 1) noise that it
         began as
Scale:   exact for the gradient; the cost of such a row on all validation frames under a prior of real frames, 20 draws
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

import torch
from torch import Tensor

from sweeps.puzzles._record import Case, checkpoint_options, opened, record, training_of
from vqvae_core.batches import mix
from vqvae_core.codes import CodeMaps, codes_of
from vqvae_core.config import PriorConfig
from vqvae_core.overrides import fail
from vqvae_core.pixelcnn import PixelCNN
from vqvae_core.prior import Prior

QUESTION = "Why are samples that are conditioned on 1 not Boxing?"
STEPS, BATCH, DRAWS, MAPS = 30, 8, 20, 256


def trained_on_zero(maps: CodeMaps, num_codes: int) -> dict[str, float]:
    """How far each row of the class embedding moves in a training in which every label is 0."""
    torch.manual_seed(0)
    config = PriorConfig(layers=4, hidden=16, head=32, null_rate=0.0)
    model = PixelCNN(config, num_codes, maps.take(torch.arange(1).numpy()).shape[1], num_classes=2)
    rows = model.classes.weight
    torch.nn.init.normal_(rows[:2].data)  # as torch begins an embedding, and the report's code left it
    before = rows.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    gradient = torch.zeros_like(before)
    for step in range(STEPS):
        codes = maps.take(torch.arange(step * BATCH, (step + 1) * BATCH).numpy() % len(maps))
        optimizer.zero_grad()
        model.nll(codes, torch.zeros(BATCH, dtype=torch.long)).mean().backward()
        assert rows.grad is not None
        gradient += rows.grad.abs()
        optimizer.step()
    moved = (rows.detach() - before).abs()
    return {
        **{f"row_{label}/moved": float(moved[label].max()) for label in (0, 1)},
        **{f"row_{label}/gradient": float(gradient[label].max()) for label in (0, 1)},
    }


@torch.no_grad()
def bits_per_code(model: Prior, maps: Tensor) -> float:
    """What the prior pays for a code of some real maps, without a condition."""
    nats = torch.cat([model.pixelcnn.nll(part) for part in maps.split(32)])
    return float(nats.double().mean()) / math.log(2) / maps[0].numel()


def main() -> None:
    chosen = checkpoint_options("unseen_label", __doc__, "boxing_prior")
    torch.set_num_threads(1)
    checkpoint, dataset = opened(chosen.checkpoint[0])
    model = checkpoint.model()
    if not isinstance(model, Prior):
        fail(f"--checkpoint is a {checkpoint.experiment.model.type}; allowed is a prior")
    codes = codes_of(model.first, dataset, torch.device("cpu"))
    valid = CodeMaps(codes, "valid", torch.device("cpu"))
    maps = valid.take(torch.linspace(0, len(valid) - 1, min(MAPS, len(valid))).long().numpy())
    moved = trained_on_zero(CodeMaps(codes, "train", torch.device("cpu")), model.first.num_codes)
    size: dict[str, object] = {"maps": len(maps), "steps": STEPS, "images_seen": checkpoint.images_seen}
    size |= training_of(checkpoint, dataset)
    cases = [Case("training with the label 0", {"arm": "training", **size}, moved)]
    kept = model.pixelcnn.bias.detach().clone()
    cases.append(Case("no condition", {"arm": "none", **size}, {"bits_per_code": bits_per_code(model, maps)}))
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(mix("untrained", seed))
        model.pixelcnn.bias.data = kept + torch.randn(kept.shape, generator=generator)
        cost = {"bits_per_code": bits_per_code(model, maps)}
        cases.append(Case(f"an untrained row, {seed}", {"arm": "untrained", **size}, cost, seed))
    record("puzzle_unseen_label", QUESTION, dataset.name, cases, {"most": f"{math.log2(model.first.num_codes):.4g}"})


if __name__ == "__main__":
    main()
