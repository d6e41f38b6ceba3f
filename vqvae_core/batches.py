"""Which images come when: a function of the seed and of the images seen alone, so that any run can be continued."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.data import Dataset
from vqvae_core.likelihood import to_unit


def mix(*parts: object) -> int:
    """A seed of 63 bits from anything: the same parts give the same seed, on every machine and in every version."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


class Order:
    """An endless stream of image numbers 0..count-1: one shuffle after the other, each image once in each."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._epoch, self._shuffle = -1, np.empty(0, np.int64)

    def take(self, start: int, length: int) -> NDArray[np.int64]:
        """Elements start..start+length-1 of the stream."""
        found: list[NDArray[np.int64]] = []
        while length:
            epoch, offset = divmod(start, self.count)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(mix("order", self.seed, epoch))
                self._epoch, self._shuffle = epoch, torch.randperm(self.count, generator=generator).numpy()
            piece = self._shuffle[offset : offset + length]
            found.append(piece)
            start, length = start + len(piece), length - len(piece)
        return np.concatenate(found)


class Images:
    """A split's images as batches on a device; a GPU holds the whole split when it takes little of its memory."""

    def __init__(self, dataset: Dataset, split: str, device: torch.device) -> None:
        self.array = dataset.images(split)
        self.device = device
        self._resident: Tensor | None = None
        if device.type == "cuda" and self.array.nbytes < 0.2 * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.tensor(self.array, device=device)

    def __len__(self) -> int:
        return len(self.array)

    def levels(self, numbers: NDArray[np.int64]) -> Tensor:
        """Grey levels 0..255 of some images: (B, C, H, W) uint8."""
        if self._resident is not None:
            batch = self._resident[torch.from_numpy(numbers).to(self.device)]
        else:
            batch = torch.from_numpy(self.array[numbers]).to(self.device)
        return batch.permute(0, 3, 1, 2)

    def unit(self, numbers: NDArray[np.int64]) -> Tensor:
        """Some images as float32 in [-1, 1]: (B, C, H, W)."""
        return to_unit(self.levels(numbers))
