"""Screens without loss in about 200 bytes: of 840 pieces of 40 pixels, those that changed, compressed.

An Atari screen is H x 160 palette indices, 160 = 4 x 40. From one stored frame of Boxing to the next some 90 of its
840 pieces change. Keeping only these makes the compressor's and the hash's input ten times smaller, which is what makes
storing cost a few percent of the emulator's own time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

PIECE = 40  # pixels, a divisor of every screen's width
WORDS = PIECE // 8  # of 64 bits in a piece
LEVEL = 3  # of zstd; 9 would save 60 bytes a frame and cost 25 us, a quarter of an emulated frame
BLOCK = 1 << 20  # bytes that are hashed and compressed at once
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Packed:
    """An array as it lies in a shard."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str  # of the array's bytes, so that it does not depend on the compressor
    data: bytes  # one zstd frame

    @staticmethod
    def of(name: str, array: NDArray[Any]) -> Packed:
        raw = np.ascontiguousarray(array).tobytes()
        data = zstandard.ZstdCompressor(level=LEVEL).compress(raw)
        return Packed(name, array.dtype.str, array.shape, hashlib.sha256(raw).hexdigest(), data)


class _Stream:
    """Bytes that are hashed and compressed while they come, in blocks that do not depend on how they come."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._zstd = zstandard.ZstdCompressor(level=LEVEL).compressobj()
        self._waiting = bytearray()
        self._parts: list[bytes] = []

    def write(self, raw: bytes) -> None:
        self._waiting += raw
        while len(self._waiting) >= BLOCK:
            self._compress(bytes(self._waiting[:BLOCK]))
            del self._waiting[:BLOCK]

    def packed(self, name: str, shape: tuple[int, ...]) -> Packed:
        self._compress(bytes(self._waiting))
        data = b"".join(self._parts) + self._zstd.flush()
        return Packed(name, "|u1", shape, self._hash.hexdigest(), data)

    def _compress(self, raw: bytes) -> None:
        self._hash.update(raw)
        self._parts.append(self._zstd.compress(raw))


class UnseenColourError(Exception):
    """A palette index came and went before anybody looked at its colour."""


class ScreenWriter:
    """Takes the screens of one episode: fill ``screen``, call ``add``, and ``packed`` at the end.

    ``rgb`` gives the screen that was added last in colour; it is asked when an index is new to ``colours``, which
    outlives the episode. Each screen is compared with the one before while both are in the core's cache; what changed
    is gathered ``batch`` screens at a time, because code that was not used for a while is slow too. So an index may be
    gone again when it is found: ``UnseenColourError``. With a batch of 1 it never is.

    ``palette`` has the colour of each index that occurs in the episode; ``repeats`` counts the screens that are equal
    to the one before.
    """

    def __init__(
        self, height: int, width: int, rgb: Callable[[], NDArray[np.uint8]], colours: dict[int, Colour], batch: int
    ) -> None:
        self._rgb, self._colours, self._batch = rgb, colours, batch
        # The last screen of the batch before, then this batch.
        self._ring = np.zeros((batch + 1, height, width), np.uint8)
        self._pieces = self._ring.reshape(batch + 1, -1).view(f"V{PIECE}")
        words = self._ring.reshape(batch + 1, -1).view(np.uint64)
        self._differs = np.empty((batch, words.shape[1]), bool)
        self._compare = [(words[i + 1], words[i], self._differs[i]) for i in range(batch)]
        self._waiting = self._frames = self._stored = 0
        self._bits, self._data = _Stream(), _Stream()
        self._screens = [self._ring[i + 1] for i in range(batch)]
        self.screen = self._screens[0]  # where the next screen's palette indices go: (H, W)
        self.palette: dict[int, Colour] = {}
        self.repeats = 0

    def add(self) -> None:
        """``screen`` is filled."""
        np.not_equal(*self._compare[self._waiting])
        self._waiting += 1
        if self._waiting == self._batch:
            self._keep()
        self.screen = self._screens[self._waiting]

    def packed(self) -> list[Packed]:
        """``changed``, the bits of (n, pieces), and ``pieces``, (k, 40), in the order of frame and place."""
        self._keep()
        bits = (self._frames, -(-self._pieces.shape[1] // 8))
        return [self._bits.packed("changed", bits), self._data.packed("pieces", (self._stored, PIECE))]

    def _keep(self) -> None:
        """Store what changed in the screens that wait."""
        count = self._waiting
        if not count:
            return
        changed = np.zeros((count, self._pieces.shape[1]), bool)
        changed.reshape(-1)[self._differs[:count].reshape(-1).nonzero()[0] // WORDS] = True
        if not self._frames:
            changed[0] = True
        places = changed.reshape(-1).nonzero()[0]
        new = self._pieces[1 : count + 1].reshape(-1).take(places).tobytes()
        # What is left when every index of the episode is deleted is new to it.
        if unknown := new.translate(None, bytes(self.palette)):
            self._learn(set(unknown), self._ring[count])
        bits = np.packbits(changed, axis=1)
        self.repeats += count - int(np.count_nonzero(bits.any(1)))
        self._bits.write(bits.tobytes())
        self._data.write(new)
        self._stored += len(places)
        self._frames += count
        self._ring[0] = self._ring[count]
        self._waiting = 0

    def _learn(self, indices: set[int], screen: NDArray[np.uint8]) -> None:
        rgb = None
        for index in sorted(indices):
            if index not in self._colours:
                rgb = self._rgb() if rgb is None else rgb
                pixels = rgb[screen == index]
                if not len(pixels):
                    raise UnseenColourError(index)
                red, green, blue = pixels[0].tolist()
                self._colours[index] = (red, green, blue)
            self.palette[index] = self._colours[index]
