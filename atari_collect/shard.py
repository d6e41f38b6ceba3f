"""One episode on disk: ``00012.zst``, then its JSON sidecar, whose appearance says that the episode is complete."""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from atari_collect.screens import Packed


class DamagedError(ValueError):
    """A shard that is not what was written."""


@dataclass(frozen=True)
class Shard:
    """An episode in memory, ready to be written; ``row`` is its sidecar and its line in the manifest."""

    row: dict[str, Any]
    data: bytes

    @property
    def episode(self) -> int:
        return int(self.row["episode"])


def build(episode: int, arrays: list[Packed], facts: dict[str, Any]) -> Shard:
    """Put an episode's arrays one behind the other, and say in the row where each lies and what it hashes to."""
    buffer = io.BytesIO()
    layout = {}
    for array in arrays:
        layout[array.name] = {
            "dtype": array.dtype,
            "shape": list(array.shape),
            "sha256": array.sha256,
            "at": buffer.tell(),
            "bytes": len(array.data),
        }
        buffer.write(array.data)
    data = buffer.getvalue()
    content = {"episode": episode, **facts, "arrays": {array.name: array.sha256 for array in arrays}}
    row = {
        "episode": episode,
        **facts,
        "arrays": layout,
        "bytes": len(data),
        # Of the file: is it damaged? Of the content: is it the same episode, whatever compressed it?
        "sha256": hashlib.sha256(data).hexdigest(),
        "content": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
    }
    return Shard(row, data)


def data_path(folder: Path, episode: int) -> Path:
    return folder / f"{episode:05}.zst"


def row_path(folder: Path, episode: int) -> Path:
    return folder / f"{episode:05}.json"


def write(folder: Path, shard: Shard) -> None:
    """Bring a shard to disk: data first, sidecar last, each under its name only when it is whole."""
    write_whole(data_path(folder, shard.episode), shard.data)
    write_whole(row_path(folder, shard.episode), json.dumps(shard.row, indent=1).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is never seen half written, not even after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_row(folder: Path, episode: int) -> dict[str, Any]:
    """The sidecar of an episode whose data holds its checksum; ``DamagedError`` says what does not."""
    path = row_path(folder, episode)
    try:
        row: dict[str, Any] = json.loads(path.read_text())
        if row["episode"] != episode:
            raise DamagedError(f"{path} is about episode {row['episode']}")
        _read_data(folder, row)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from None
    return row


def _read_data(folder: Path, row: dict[str, Any]) -> bytes:
    path = data_path(folder, row["episode"])
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise DamagedError(f"{path} is damaged: its SHA-256 is not the one in {row_path(folder, row['episode']).name}")
    return data


def read_arrays(folder: Path, row: dict[str, Any], *names: str) -> list[NDArray[Any]]:
    """Some of an episode's arrays; ``DamagedError`` when the file is not what was written."""
    data = memoryview(_read_data(folder, row))
    arrays = []
    for name in names:
        spec = row["arrays"][name]
        shape = tuple(spec["shape"])
        dtype = np.dtype(spec["dtype"])
        size = int(np.prod(shape)) * dtype.itemsize
        raw = zstandard.ZstdDecompressor().decompress(
            data[spec["at"] : spec["at"] + spec["bytes"]], max_output_size=size
        )
        arrays.append(np.frombuffer(raw, dtype).reshape(shape))
    return arrays


def pack_actions(episodes: list[NDArray[np.uint8]]) -> bytes:
    """The executed actions of all episodes in one small file, from which everything can be made again."""
    raw = b"".join(actions.tobytes() for actions in episodes)
    return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(raw)


def unpack_actions(path: Path, lengths: list[int], frame_skip: int) -> list[NDArray[np.uint8]]:
    """The episodes' actions, (n, frame_skip) each; ``DamagedError`` when the file is not what was written."""
    size = sum(lengths) * frame_skip
    try:
        raw = zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=size)
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except zstandard.ZstdError as error:
        raise DamagedError(f"{path} is damaged ({error})") from None
    if len(raw) != size:
        raise DamagedError(f"{path} holds {len(raw)} actions where the manifest has {size}")
    flat = np.frombuffer(raw, np.uint8).reshape(-1, frame_skip)
    return np.split(flat, np.cumsum(lengths)[:-1])
