"""From palette indices to images of any size, in integers, so that every machine computes the same bytes.

The area kernel is exact: an output pixel is the mean of the source pixels it covers, each weighed by the area covered,
rounded half up. For 210 x 160 to 84 x 84, 5 rows become 2 (weights 2 2 1 | 1 2 2) and 40 columns 21. OpenCV's
INTER_AREA is the same within one grey level, in floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

KERNELS = ("area", "nearest")


@dataclass(frozen=True)
class View:
    """How the opened images look."""

    height: int = 84  # pixels
    width: int = 84
    grey: bool = False  # one channel instead of three
    kernel: str = "area"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"size is {self.height}x{self.width}; allowed are integers >= 1")
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel is {self.kernel!r}; allowed is one of {', '.join(KERNELS)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, 1 if self.grey else 3


@dataclass(frozen=True)
class Axis:
    """How one axis is resized: target pixel t is the sum of weights[t, j] * source[first[t] + j], over ``total``."""

    first: NDArray[np.int32]  # (target,)
    weights: NDArray[np.int32]  # (target, taps), 0 where a pixel has fewer
    total: int

    @staticmethod
    @cache
    def of(source: int, target: int, kernel: str) -> Axis:
        """Weights are integers: in units of 1/target of a source pixel, divided by what source and target share."""
        if kernel == "nearest":
            # The source pixel that holds the target pixel's centre.
            first = ((2 * np.arange(target) + 1) * source // (2 * target)).astype(np.int32)
            return Axis(first, np.ones((target, 1), np.int32), 1)
        shared = gcd(source, target)
        length, width = source // shared, target // shared  # of a target and of a source pixel
        starts = np.arange(target, dtype=np.int32) * np.int32(length)
        first = starts // width
        taps = int(((starts + length - 1) // width - first).max()) + 1
        # Near the end a window of `taps` pixels would stick out: it begins earlier, with weights of 0.
        first = np.minimum(first, source - taps)
        left = (first[:, None] + np.arange(taps)) * width
        overlap = np.minimum(left + width, (starts + length)[:, None]) - np.maximum(left, starts[:, None])
        return Axis(first.astype(np.int32), np.maximum(overlap, 0).astype(np.int32), length)

    def apply(self, images: NDArray[np.uint64], dimension: int) -> NDArray[np.uint64]:
        """The weighted sums along one dimension, not yet divided."""
        shape = [1] * images.ndim
        shape[dimension] = -1
        sums = np.uint64(0)
        for j, weights in enumerate(self.weights.T):
            sums = sums + images.take(self.first + j, dimension) * weights.astype(np.uint64).reshape(shape)
        return np.asarray(sums)


def colour_table(palette: dict[str, list[int]], grey: bool) -> NDArray[np.int32]:
    """The channels of each palette index, (256, C); grey as ALE computes it. Indices that do not occur are black."""
    table = np.zeros((256, 3), np.int32)
    for index, colour in palette.items():
        table[int(index)] = colour
    if not grey:
        return table
    return ((table @ np.array([2989, 5870, 1140]) + 5000) // 10000).astype(np.int32)[:, None]


def resize(screens: NDArray[np.uint8], table: NDArray[np.int32], view: View) -> NDArray[np.uint8]:
    """Whole screens or parts of them: (N, H, W) palette indices -> (N, h, w, C)."""
    rows, columns = (Axis.of(s, t, view.kernel) for s, t in zip(screens.shape[1:], view.shape[:2], strict=True))
    total = rows.total * columns.total
    images = np.empty((len(screens), *view.shape), np.uint8)
    # Three sums fit into one 64-bit word, 21 bits for each, unless sizes share so little that sums grow larger.
    bits = 21 if 256 * total < 1 << 21 else 63
    for first in range(0, view.shape[2], 63 // bits):
        channels = range(first, min(first + 63 // bits, view.shape[2]))
        words = sum(table[:, c].astype(np.uint64) << np.uint64(bits * (c - first)) for c in channels)
        # Rows first: they become fewer, so that the slower step along the columns has less to do.
        sums = columns.apply(rows.apply(np.asarray(words).take(screens), 1), 2)
        for c in channels:
            channel = (sums >> np.uint64(bits * (c - first))) & np.uint64((1 << bits) - 1)
            images[..., c] = (channel.astype(np.uint32) + np.uint32(total // 2)) // np.uint32(total)
    return images
