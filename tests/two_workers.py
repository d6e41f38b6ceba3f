"""What ``test_distributed.py`` runs twice: in one process, and in two of a gloo group with half of each batch.

python two_workers.py RANK FOLDER    one of two workers; writes FOLDER/<rank>.pt
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from made_up import TINY_MODELS
from stages import KINDS, second
from torch import nn

from vqvae_core.data import open_dataset
from vqvae_core.distributed import GlobalBatchNorm2d, gather_rows, rank, sum_over_workers, world_size
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import tiny
from vqvae_core.quantize import VectorQuantizer
from vqvae_core.train import Diverged, _Run, fit

VARIANTS: dict[str, dict[str, Any]] = {
    "gradient": {"train.grad_clip": 0.1},
    "restart": {"model.codebook_init": "data", "model.restart_below": 0.5, "model.ema_decay": 0.5},
    "ema": {"model.quantizer": "ema", "model.codebook_init": "normal", "model.codes_per_position": 2},
    "batch norm": {"model.batch_norm": True},
    "all": {
        "model.batch_norm": True,
        "model.quantizer": "ema",
        "model.codebook_init": "kmeans",
        "model.restart_below": 0.5,
        "model.ema_decay": 0.5,
    },
    "vit-vqgan": {"model.normalize": True, "model.projected_dim": 2},
    "residual": {"model.residual": True, "model.codes_per_position": 2, "model.quantizer": "ema"},
    "mixture": {"model.likelihood": "mixture"},
    "vae": {"model.type": "vae"},
    "vimco": {"model.type": "vimco"},
    "dvae": {"model.type": "dvae"},
}
PARTS = (1, 2)


def trained(folder: Path, variant: str, parts: int, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Three steps of 16 images, a report after each."""
    small = {"train.images": 48, "train.eval_every": 16, "train.calibration_images": 32, "train.eval_batch": 8}
    overrides = small | {"train.lr": 1e-4, "train.accumulate": parts, "train.precision": "float32"} | VARIANTS[variant]
    dataset = open_dataset(folder / "made_up")
    kind = overrides.pop("model.type", "vqvae")
    base = tiny() if kind == "vqvae" else replace(tiny(), model=TINY_MODELS[kind])
    reports = list(fit(with_overrides(base, overrides), state, dataset))
    return {
        "metrics": [report.metrics for report in reports],
        "weights": reports[-1].state["model"],
        "first state": reports[0].state,
    }


def second_stage(folder: Path, kind: str) -> dict[str, Any]:
    """Six steps of a second stage; whoever comes first encodes for all."""
    dataset = open_dataset(folder / "made_up")
    alike = {"model.dropout": 0.0, "train.lr": 1e-4}
    alike |= {"model.null_rate": 0.5} if kind == "prior" else {"model.restart_below": 0.5, "model.rare_weight": 0.5}
    reports = list(fit(second(kind, dataset, folder / "first", **alike), dataset=dataset))
    return {"metrics": [report.metrics for report in reports], "weights": reports[-1].state["model"]}


def batch_norm(offset: float) -> dict[str, Any]:
    """Output, gradients and running averages of one normalised batch: torch's own in one process, ours in two."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(8, 3, 4, 5, generator=generator) * torch.tensor([1.0, 3.0, 0.1])[:, None, None] + offset
    weights = torch.randn(8, 3, 4, 5, generator=generator)
    module = GlobalBatchNorm2d(3) if world_size() > 1 else nn.BatchNorm2d(3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        module.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    own = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    x = whole[own].clone().requires_grad_()
    out = module(x)
    (out * weights[own]).sum().backward()
    gradients = [sum_over_workers(p.grad.clone()) for p in (module.weight, module.bias) if p.grad is not None]
    assert x.grad is not None
    return {
        "out": gather_rows(out.detach()),
        "x": gather_rows(x.grad),
        "gradients": gradients,
        "running": [module.running_mean, module.running_var, module.num_batches_tracked],
        "eval": gather_rows(module.eval()(x).detach()),
    }


def restarts() -> dict[str, Any]:
    """Which vectors a quantiser restarts its dead codes at, when they may come from any worker."""
    torch.manual_seed(0)
    config = replace(tiny().model, code_dim=3, restart_below=0.5, ema_decay=0.01, quantizer="ema")
    quantizer = VectorQuantizer(config)
    z = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    own = z[rank() * 8 // world_size() : (rank() + 1) * 8 // world_size()]
    counts = []
    for seed in range(4):
        quantizer(own)
        counts.append(quantizer.update(torch.Generator().manual_seed(seed)))
    return {"codebook": quantizer.codebook, "usage": quantizer.usage, "restarted": counts}


def lonely_image(folder: Path) -> dict[str, Any]:
    """A validation split with fewer images than workers."""
    small = {"train.images": 16, "train.precision": "float32", "train.calibration_images": 1}
    reports = list(fit(with_overrides(tiny(), small), dataset=open_dataset(folder / "lonely")))
    return {"metrics": [report.metrics for report in reports]}


def share(folder: Path) -> dict[str, Any]:
    """How many of 21 validation images this worker reads."""
    dataset = open_dataset(folder / "made_up")
    run = _Run(tiny(), dataset)
    read: list[int] = []
    levels = run.task.valid_images.levels
    run.task.valid_images.levels = lambda numbers: (read.extend(numbers), levels(numbers))[1]  # type: ignore[method-assign]
    run.evaluate()
    return {"read": [int(number) for number in read]}


def mistakes(folder: Path) -> dict[str, Any]:
    """What happens to a batch that cannot be shared, and when the loss of the last worker alone is no number."""
    dataset, said = open_dataset(folder / "made_up"), {}
    try:
        list(fit(with_overrides(tiny(), {"train.batch_size": 15, "train.accumulate": 5}), dataset=dataset))
    except ValueError as error:
        said["odd batch"] = str(error)
    run = _Run(tiny(), dataset)
    try:
        run._check(torch.tensor(float("nan") if rank() == world_size() - 1 else 1.0))
    except Diverged as error:
        said["diverged"] = str(error)
    return said


def everything(folder: Path) -> dict[str, Any]:
    scenarios: dict[str, Callable[[], dict[str, Any]]] = {
        f"{variant} / {parts}": lambda variant=variant, parts=parts: trained(folder, variant, parts)  # type: ignore[misc]
        for variant in VARIANTS
        for parts in PARTS
    }
    scenarios |= {
        "normalised": lambda: batch_norm(0.0),
        "normalised far from zero": lambda: batch_norm(300.0),
        "restarts": restarts,
        "share": lambda: share(folder),
        **{kind: lambda kind=kind: second_stage(folder, kind) for kind in KINDS},  # type: ignore[misc]
        "lonely": lambda: lonely_image(folder),
        "mistakes": lambda: mistakes(folder),
    }
    results = {name: scenario() for name, scenario in scenarios.items()}
    # What one process trained on alone, two go on with.
    state = torch.load(folder / "state.pt", weights_only=True)
    return results | {"continued": trained(folder, "all", 2, state)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    number, shared = int(sys.argv[1]), Path(sys.argv[2])
    dist.init_process_group(
        "gloo", f"file://{shared / 'rendezvous'}", rank=number, world_size=2, timeout=timedelta(seconds=120)
    )
    found = everything(shared)
    torch.save(found, shared / f"{number}.pt")
    dist.barrier()
    dist.destroy_process_group()
