"""What the training loop asks of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]  # what a model's ``forward`` takes, each (B, ...)
State = dict[str, Any]  # what ``fit`` continues from, and what a checkpoint holds


@dataclass(frozen=True)
class Loss:
    """What a model answers in training; all values are per example, for the caller to average."""

    loss: Tensor  # (B,): what is minimised
    parts: dict[str, Tensor] = field(default_factory=dict)  # the terms of the loss, each (B,)


class Trainable(nn.Module):
    """A model that ``fit`` can train; in training mode, ``forward(*batch)`` answers a ``Loss`` or more.

    Where ``noise`` is a shape, uniform numbers (B, *noise) come last in the batch: they are drawn for the whole batch
    before it is shared out, so that they are the same for any number of workers.
    """

    noise: tuple[int, ...] = ()
    anneals: bool = False  # whether what is trained depends on the share of the budget that is behind it

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Before the first step, with its batch; the generator's state is the same on every worker."""

    def before_step(self, progress: float) -> None:
        """Before each optimiser step, with the share of the budget that is behind it."""

    def after_step(self, generator: torch.Generator) -> None:
        """After each optimiser step; the generator's state is the same on every worker."""


def size(model: nn.Module) -> int:
    """Numbers that training decides: parameters, and codebooks also where moving averages keep them."""
    codebooks = {name: buffer for name, buffer in model.named_buffers() if name.endswith("codebook")}
    return sum(tensor.numel() for tensor in {**dict(model.named_parameters()), **codebooks}.values())
