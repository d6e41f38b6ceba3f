"""Sums and shares across the workers of a ``torch.distributed`` group; one process is a group of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_ALONE = ContextVar("_ALONE", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within, this worker is a group of one: for what one worker does while the others wait for a file."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def world_size() -> int:
    """Workers in the group, 1 without one."""
    grouped = dist.is_available() and dist.is_initialized() and not _ALONE.get()
    return dist.get_world_size() if grouped else 1


def rank() -> int:
    """This worker's number in the group, 0 without one."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_workers(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all workers, in place, the same on each."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def from_first(value: Any) -> Any:
    """The first worker's value, on every worker; it must be picklable."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all workers, first worker first; every worker brings equally many."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _SumWithGradient(torch.autograd.Function):
    """A sum over workers whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, tensor: Tensor) -> Tensor:
        return sum_over_workers(tensor.clone())

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return sum_over_workers(gradients[0].clone())


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batch of all workers.

    torch's own synchronised version needs a GPU; this one gives on CPU and GPU the result of a single process that
    sees the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        count = x.numel() // x.shape[1] * world_size()
        mean: Tensor = _SumWithGradient.apply(x.float().sum((0, 2, 3))) / count
        # Around the mean, not E[x^2] - E[x]^2: far from zero that is a difference of nearly equal numbers.
        centred = x.float() - mean[:, None, None]
        variance: Tensor = _SumWithGradient.apply(centred.pow(2).sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
