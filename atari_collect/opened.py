"""Open a collection: decode it once to arrays that every process maps, ``images.npy`` and ``labels.npy`` per split."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atari_collect.archive import SPLITS, Archive, Manifest
from atari_collect.frames import Painter
from atari_collect.progress import Progress
from atari_collect.resize import View
from atari_collect.shard import sync_folder, write_whole

FORMAT = 1
NO_LABEL = -1


class ArrayFile:
    """A .npy file that grows at its end and is hashed on the way; a context manager.

    Not a memory map: on a full disk writing to one ends the process, where a file raises ``OSError``.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._bytes = 0
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self, header)

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        """Add bytes, or an array's."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._file.write(view)
        self._bytes += len(view)
        return len(view)

    def entry(self) -> dict[str, Any]:
        """Its line in dataset.json, when all is written."""
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}


def describe(manifest: Manifest, view: View) -> dict[str, Any]:
    """What dataset.json says about where the images come from."""
    return {
        "from": "atari_collect",
        "frames": manifest.frames,
        "episodes": len(manifest.episodes),
        **manifest.recipe.to_json(),
        **dataclasses.asdict(view),
        "dataset_hash": manifest.dataset_hash,
    }


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The folder's dataset.json; None where there is none of ours, or a damaged one."""
    try:
        meta: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        ours = meta["format"] == FORMAT and meta["source"]["from"] == "atari_collect"
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None
    return meta if ours else None


def view_of(meta: dict[str, Any]) -> View:
    """How the images that a dataset.json describes look."""
    return View(**{field.name: meta["source"][field.name] for field in dataclasses.fields(View)})


def is_open(folder: Path, meta: dict[str, Any] | None) -> bool:
    """Whether all arrays are there, in their length."""
    if meta is None:
        return False
    paths = {folder / name: entry["bytes"] for name, entry in meta["files"].items()}
    return all(path.exists() and path.stat().st_size == size for path, size in paths.items())


def open_archive(archive: Archive, manifest: Manifest, name: str, view: View) -> Path:
    """Write the arrays beside the archive, unless they are there; to be called while it is locked.

    Other arrays than those asked for are replaced; a process that has mapped them keeps what it has. Raises
    ``shard.DamagedError`` for a shard that is not what was written, and ``OSError`` when the disk is full.
    """
    folder, source = archive.folder, describe(manifest, view)
    meta = read_meta(folder)
    if meta and meta["source"] == source and meta["name"] == name and is_open(folder, meta):
        return folder
    for stale in folder.glob(".opening-*"):
        shutil.rmtree(stale, ignore_errors=True)
    temporary = folder / f".opening-{uuid.uuid4().hex[:8]}"
    try:
        files = _write_arrays(archive, manifest, view, temporary)
        (folder / "dataset.json").unlink(missing_ok=True)
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
            (temporary / split).replace(folder / split)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)
    fresh = {
        "format": FORMAT,
        "name": name,
        "shape": list(view.shape),
        "splits": manifest.counts,
        "class_names": [],
        "source": source,
        "files": files,
    }
    write_whole(folder / "dataset.json", json.dumps(fresh, indent=1).encode())
    return folder


def _write_arrays(archive: Archive, manifest: Manifest, view: View, target: Path) -> dict[str, Any]:
    painter = Painter(manifest.screen, manifest.palette, view)
    progress, done = Progress("opening", manifest.frames), 0
    files = {}
    with ExitStack() as stack:
        images, labels = {}, {}
        for split, count in manifest.counts.items():
            images[split] = stack.enter_context(
                ArrayFile(target / split / "images.npy", (count, *view.shape), np.uint8)
            )
            labels[split] = stack.enter_context(ArrayFile(target / split / "labels.npy", (count,), np.int64))
            labels[split].write(np.full(count, NO_LABEL, np.int64))
        for row in manifest.episodes:
            for part in episode_images(archive, row, painter):
                images[row["split"]].write(part)
                done += len(part)
                progress.update(done)
        for split in manifest.counts:
            files[f"{split}/images.npy"] = images[split].entry()
            files[f"{split}/labels.npy"] = labels[split].entry()
    progress.close()
    return files


def episode_images(archive: Archive, row: dict[str, Any], painter: Painter) -> Iterator[NDArray[np.uint8]]:
    """An episode's images as far as they are used, (n, h, w, C) at a time."""
    changed, pieces = archive.arrays(row, "changed", "pieces")
    return painter.images(changed[: row["take"]], pieces)
