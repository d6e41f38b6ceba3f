"""A data set on disk: ``dataset.json`` and, per split, ``images.npy`` (uint8, N H W C) and ``labels.npy`` (int64)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvae_core.files import sha256, whole_folder

SPLITS = ("train", "valid", "test")
FORMAT = 1
FIELDS = {"format", "name", "shape", "splits", "class_names", "source", "files"}
NO_LABEL = -1


@dataclass(frozen=True)
class Dataset:
    """A prepared data set; its arrays are memory maps, so n processes hold one copy."""

    folder: Path
    meta: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.meta["name"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.meta["shape"]
        return height, width, channels

    @property
    def dims(self) -> int:
        """N of Equation 7: values in one image."""
        height, width, channels = self.shape
        return height * width * channels

    @property
    def class_names(self) -> list[str]:
        """Names of the classes by label; empty when the images have none."""
        return list(self.meta["class_names"])

    @property
    def splits(self) -> dict[str, int]:
        """Images in each split that has any."""
        return dict(self.meta["splits"])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content of every file: the same for the same images, wherever they lie."""
        text = json.dumps({name: entry["sha256"] for name, entry in sorted(self.meta["files"].items())})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def images(self, split: str) -> NDArray[np.uint8]:
        """All images of a split, mapped read-only: (N, H, W, C) uint8."""
        return self._array(split, "images")

    def labels(self, split: str) -> NDArray[np.int64]:
        """All labels of a split: (N,) int64, -1 where there is none."""
        return self._array(split, "labels")

    def _array(self, split: str, kind: str) -> NDArray[Any]:
        if split not in self.splits:
            raise ValueError(f"data set {self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        array: NDArray[Any] = np.load(self.folder / split / f"{kind}.npy", mmap_mode="r")
        return array


def open_dataset(folder: Path) -> Dataset:
    """Open a prepared folder; ``ValueError`` names what is missing or damaged in it."""
    try:
        meta = json.loads((folder / "dataset.json").read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} is not a data set: it has no dataset.json") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'dataset.json'} is damaged: {error}") from None
    if not isinstance(meta, dict) or (missing := FIELDS - set(meta)):
        lacking = ", ".join(sorted(missing)) if isinstance(meta, dict) else "every field"
        raise ValueError(f"{folder / 'dataset.json'} is damaged: it lacks {lacking}")
    if meta["format"] != FORMAT:
        raise ValueError(f"{folder} has data format {meta['format']!r}; this version reads {FORMAT}")
    for name, entry in meta["files"].items():
        path = folder / name
        size = path.stat().st_size if path.exists() else None
        if size != entry["bytes"]:
            raise ValueError(
                f"{path} is damaged: {size} bytes where {entry['bytes']} were written; "
                f"delete {folder} and prepare it again"
            )
    return Dataset(folder, meta)


def prepared(root: Path) -> list[Path]:
    """The folders of the data sets below ``root``, by name; not those that are still being written."""
    return sorted(meta.parent for meta in root.glob("*/dataset.json") if not meta.parent.name.startswith("."))


class SplitPlan:
    """The arrays of one split while they are filled, in any order."""

    def __init__(self, folder: Path, count: int, shape: tuple[int, int, int]) -> None:
        folder.mkdir(parents=True)
        self.folder, self.count = folder, count
        self.images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(count, *shape))
        self.labels = np.full(count, NO_LABEL, np.int64)

    def close(self) -> None:
        self.images.flush()
        del self.images
        np.save(self.folder / "labels.npy", self.labels)


@contextmanager
def dataset_writer(
    folder: Path,
    name: str,
    shape: tuple[int, int, int],
    counts: Mapping[str, int],
    class_names: list[str],
    source: Mapping[str, Any],
) -> Iterator[dict[str, SplitPlan]]:
    """Write a data set in one step: it appears under ``folder`` whole, or not at all.

    Yields the splits' arrays to fill. ``shape`` is H, W, C; ``source`` is recorded as it is given.
    """
    with whole_folder(folder) as temporary:
        splits = {split: SplitPlan(temporary / split, counts[split], shape) for split in SPLITS if counts.get(split)}
        yield splits
        for split in splits.values():
            split.close()
        meta = {
            "format": FORMAT,
            "name": name,
            "shape": list(shape),
            "splits": {split: plan.count for split, plan in splits.items()},
            "class_names": class_names,
            "source": dict(source),
            "files": {
                str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(temporary.rglob("*.npy"))
            },
        }
        (temporary / "dataset.json").write_text(json.dumps(meta, indent=1))


def carve(count: int, share: float, most: int, seed: int = 0) -> NDArray[np.bool_]:
    """Which of ``count`` images are held out: min(share * count, most) of them, always the same ones."""
    held = max(1, min(int(count * share), most)) if count > 1 else 0
    mask = np.zeros(count, bool)
    # RandomState, because its stream is frozen for ever; Generator's may change from release to release.
    mask[np.random.RandomState(seed).permutation(count)[:held]] = True
    return mask
