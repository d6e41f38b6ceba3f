"""From an episode's stored pieces to its images, touching only what changed and computing it once.

A screen is cut into tiles that resize by themselves: 210 x 160 to 84 x 84 has 168 tiles of 5 x 40 pixels that become
2 x 21. Of these some 32 change from one frame of Boxing to the next, and 25 of the 32 were seen lately and are looked
up.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

import numpy as np
from numpy.typing import NDArray

from atari_collect.resize import View, colour_table, resize
from atari_collect.screens import PIECE

CHUNK = 128  # frames at a time
CACHE_BYTES = 32 << 20  # of tiles that are remembered, with what they became


def stored_numbers(changed: NDArray[np.uint8], count: int) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int32]]]:
    """For up to 128 frames at a time: which of the ``count`` pieces changed, and which stored piece is in each place.

    Both are (n, count); pieces are numbered in the order in which they were stored.
    """
    stored, last = 0, np.zeros(count, np.int32)
    for start in range(0, len(changed), CHUNK):
        bits = np.unpackbits(changed[start : start + CHUNK], axis=1, count=count).view(bool)
        new = np.flatnonzero(bits)
        # A piece that is not stored, 0 for now, is the one last stored in its place.
        numbers = np.zeros(bits.shape, np.int32)
        numbers.reshape(-1)[new] = np.arange(stored, stored + len(new), dtype=np.int32)
        stored += len(new)
        for row in numbers:  # three times as fast as np.maximum.accumulate
            last = np.maximum(row, last, out=row)
        yield bits, numbers


def screens(changed: NDArray[np.uint8], pieces: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An episode's screens, whole: (n, H, W) palette indices."""
    whole = pieces.view(f"V{PIECE}").reshape(-1)
    parts = [whole[numbers] for _, numbers in stored_numbers(changed, height * width // PIECE)]
    return np.concatenate(parts).view(np.uint8).reshape(-1, height, width)


class Painter:
    """Makes images of one kind from screens of one size and palette; remembers tiles from episode to episode."""

    def __init__(self, screen: tuple[int, int], palette: dict[str, list[int]], view: View) -> None:
        self._screen, self._view = screen, view
        self._table = colour_table(palette, view.grey)
        down = _tiles(screen[0], view.height, 4)
        across = _tiles(screen[1], view.width, PIECE)
        self._grid = down, across
        self._tile = screen[0] // down, screen[1] // across
        self._small = View(view.height // down, view.width // across, view.grey, view.kernel)
        words, became = self._tile[0] * self._tile[1] // 8, int(np.prod(self._small.shape))
        bits = (CACHE_BYTES // (8 * words + became)).bit_length() - 1
        self._seen = np.zeros((1 << bits, words), np.uint64)
        self._painted = np.zeros((1 << bits, became), np.uint8)
        self._painted[:] = self._paint(self._seen[:1])
        # Multiply-shift hashing: its quality decides how often a tile is painted again, never what is painted.
        self._factors = np.random.PCG64(0).random_raw(words) | np.uint64(1)
        self._shift = np.uint64(64 - bits)

    def images(self, changed: NDArray[np.uint8], pieces: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """An episode's images, (n, h, w, C) with n up to 128, from its arrays as they lie in the shard."""
        (down, across), small = self._grid, self._small
        whole = pieces.view(f"V{PIECE}").reshape(-1)
        places = np.arange(down * across, dtype=np.int32)
        shown = np.zeros((len(places), self._painted.shape[1]), np.uint8)  # the tiles of the last image
        for bits, numbers in stored_numbers(changed, self._screen[0] * self._screen[1] // PIECE):
            dirty = self._dirty(bits).reshape(len(bits), -1)
            at = np.flatnonzero(dirty)
            fresh = self._look_up(self._cut(whole, numbers, at))
            # Number the tiles: first those of the last image, then the fresh ones in the order of frame and place.
            tiles = np.zeros(dirty.shape, np.int32)
            tiles.reshape(-1)[at] = np.arange(len(places), len(places) + len(at), dtype=np.int32)
            last = places
            for row in tiles:
                last = np.maximum(row, last, out=row)
            mosaic = np.concatenate([shown, fresh]).take(tiles, axis=0)
            shown = mosaic[-1]
            rows = mosaic.reshape(-1, down, across, small.height, small.width * small.shape[2])
            yield rows.transpose(0, 1, 3, 2, 4).reshape(-1, *self._view.shape)

    def _dirty(self, bits: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which tiles changed, (n, down, across), from the pieces that did."""
        (down, across), (tall, wide) = self._grid, self._tile
        pieces = bits.reshape(len(bits), down, tall, across, wide // PIECE)
        dirty = pieces[:, :, 0, :, 0].copy()
        for row, column in np.ndindex(tall, wide // PIECE):
            dirty |= pieces[:, :, row, :, column]
        return dirty

    def _cut(self, whole: NDArray[np.void], numbers: NDArray[np.int32], at: NDArray[np.intp]) -> NDArray[np.uint64]:
        """The tiles at flat positions of (n, down, across), (len(at), words)."""
        (down, across), (tall, wide) = self._grid, self._tile
        band, column = np.divmod(at, across)
        bands = numbers.reshape(len(numbers) * down, tall, across, wide // PIECE)
        return whole.take(bands[band, :, column]).view(np.uint64).reshape(len(at), tall * wide // 8)

    def _look_up(self, tiles: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """What the tiles become, (N, h * w * C): what is not remembered is painted, and takes its slot."""
        slots = ((tiles * self._factors).sum(1) >> self._shift).astype(np.intp)
        small = self._painted.take(slots, axis=0)
        unknown = np.flatnonzero((self._seen.take(slots, axis=0) != tiles).any(1))
        if len(unknown):
            painted = self._paint(tiles[unknown])
            small[unknown] = painted
            self._seen[slots[unknown]] = tiles[unknown]
            self._painted[slots[unknown]] = painted
        return small

    def _paint(self, tiles: NDArray[np.uint64]) -> NDArray[np.uint8]:
        pixels = tiles.view(np.uint8).reshape(len(tiles), *self._tile)
        return resize(pixels, self._table, self._small).reshape(len(tiles), -1)


def _tiles(source: int, target: int, least: int) -> int:
    """Into how many parts both lengths can be cut, so that a part of the source is not smaller than ``least``."""
    shared = gcd(source, target)
    return max(n for n in range(1, shared + 1) if shared % n == 0 and (source // n >= least or n == 1))
