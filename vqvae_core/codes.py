"""The codes of a data set under one first stage: encoded once, on disk, mapped by everyone who trains on them."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from vqvae_core.batches import Images
from vqvae_core.data import Dataset
from vqvae_core.distributed import alone
from vqvae_core.files import sha256, whole_folder, write_whole
from vqvae_core.first_stage import FirstStage
from vqvae_core.hardware import choose_precision, precision_context
from vqvae_core.metrics import evaluate_split

CODES = "codes.json"


@dataclass(frozen=True)
class Codes:
    """Code maps of every split, memory-mapped, so n processes hold one copy."""

    folder: Path
    meta: Mapping[str, Any]
    first: FirstStage
    dataset: Dataset

    @property
    def fingerprint(self) -> str:
        """A hash of the first stage and the images: the same for the same codes, wherever they lie."""
        return str(self.meta["fingerprint"])

    @property
    def num_classes(self) -> int:
        """Classes are 0 .. num_classes - 1; 0 where no training image has a label."""
        return int(self.meta["num_classes"])

    def indices(self, split: str) -> NDArray[Any]:
        """All code maps of a split, mapped read-only: (N, G, h, w), in the smallest type that holds K."""
        return self._array(split, "indices")

    def labels(self, split: str) -> NDArray[np.int64]:
        """The images' labels: (N,), -1 where there is none."""
        return self._array(split, "labels")

    def _array(self, split: str, kind: str) -> NDArray[Any]:
        self.dataset.images(split)  # says which splits there are
        array: NDArray[Any] = np.load(self.folder / split / f"{kind}.npy", mmap_mode="r")
        return array

    def first_metrics(self, split: str) -> dict[str, float]:
        """What the first stage itself is worth on a split, measured once: distortion, and rates but a learned one."""
        path = self.folder / f"{split}.json"
        if not path.exists():
            with _lock(self.folder), alone():
                if not path.exists():
                    metrics = evaluate_split(self.first.experiment, self.first.model, self.dataset, split)
                    self.first.model.cpu()
                    write_whole(path, json.dumps(metrics, indent=1))
        metrics = json.loads(path.read_text())
        return {name: float(value) for name, value in metrics.items()}


def codes_of(first: FirstStage, dataset: Dataset, device: torch.device) -> Codes:
    """The codes of a data set, encoded first if nobody has done so.

    They lie beside the data set, under a name that the model's weights and the images' content decide. Several
    processes may ask at once: one encodes, the others wait. Raises ``ValueError`` for images of another shape than the
    model's and for files that are not what was written.
    """
    if first.model.shape != dataset.shape:
        raise ValueError(
            f"model.first is a {first.experiment.model.type} of images {_size(first.model.shape)}; "
            f"those of {dataset.name} are {_size(dataset.shape)}"
        )
    trained_on = first.experiment.data.name
    if trained_on not in (dataset.name, dataset.folder.name):  # frames may lie under another name than their game's
        raise ValueError(f"data.name is {dataset.name!r}; allowed is {trained_on!r}, which model.first was trained on")
    folder = dataset.folder.parent / ".codes" / f"{dataset.folder.name}-{dataset.fingerprint}-{first.key}"
    if not (folder / CODES).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder), alone():
            if not (folder / CODES).exists():  # another process may have encoded while we waited
                for left in folder.parent.glob(f".{folder.name}.????????.tmp"):  # of a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                _encode(folder, first, dataset, device)
    return _open(folder, first, dataset)


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _open(folder: Path, first: FirstStage, dataset: Dataset) -> Codes:
    """Codes as they were written; reading them all once costs little, and every trial's numbers rest on them."""
    meta = json.loads((folder / CODES).read_text())
    for name, entry in meta["files"].items():
        path = folder / name
        size = path.stat().st_size if path.exists() else None
        found = f"{size} bytes where {entry['bytes']} were written" if size != entry["bytes"] else ""
        if not found and sha256(path) != entry["sha256"]:
            found = "its content is not what was written"
        if found:
            raise ValueError(f"{path} is damaged: {found}; delete {folder} and start again")
    return Codes(folder, meta, first, dataset)


@torch.no_grad()
def _encode(folder: Path, first: FirstStage, dataset: Dataset, device: torch.device) -> None:
    """Encode every split as evaluation does, batch by batch in order, so that both see the same codes."""
    train = first.experiment.train
    model, precision = first.model.to(device), precision_context(device, choose_precision(first.experiment, device))
    kind = np.min_scalar_type(first.num_codes - 1)
    done, total, shown = 0, sum(dataset.splits.values()), time.monotonic()
    print(f"encoding {total:,} images of {dataset.name}, once for this first stage", file=sys.stderr, flush=True)
    with whole_folder(folder) as temporary:
        for split, count in dataset.splits.items():
            (temporary / split).mkdir()
            path = temporary / split / "indices.npy"
            array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(count, *first.latent_shape))
            images = Images(dataset, split, device)
            for start in range(0, count, train.eval_batch):
                numbers = np.arange(start, min(count, start + train.eval_batch))
                with precision():
                    array[start : start + len(numbers)] = model.encode(images.unit(numbers)).cpu().numpy()
                done += len(numbers)
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    print(f"{done:>10,} of {total:,} images encoded", file=sys.stderr, flush=True)
            array.flush()
            del array
            np.save(temporary / split / "labels.npy", np.asarray(dataset.labels(split)))
        meta = {
            "fingerprint": f"{dataset.fingerprint}-{first.key}",
            "num_codes": first.num_codes,
            "num_classes": _num_classes(dataset),
            "files": {
                str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(temporary.rglob("*.npy"))
            },
        }
        (temporary / CODES).write_text(json.dumps(meta, indent=1))
    model.cpu()


def _num_classes(dataset: Dataset) -> int:
    """As many as have names; where none has, as many as the largest label says."""
    largest = max((int(dataset.labels(split).max()) for split in dataset.splits), default=-1)
    return max(len(dataset.class_names), largest + 1) if dataset.labels("train").max() >= 0 else 0


def _size(shape: tuple[int, int, int]) -> str:
    height, width, channels = shape
    return f"{width} x {height} x {channels}"


class CodeMaps:
    """A split's code maps as batches on a device; a GPU holds the whole split when it takes little of its memory."""

    def __init__(self, codes: Codes, split: str, device: torch.device) -> None:
        self.array, self.device = codes.indices(split), device
        self._resident: Tensor | None = None
        if device.type == "cuda" and 8 * self.array.size < 0.2 * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.tensor(self.array.astype(np.int64), device=device)

    def __len__(self) -> int:
        return len(self.array)

    def take(self, numbers: NDArray[np.int64]) -> Tensor:
        """Some code maps: (B, G, h, w) int64."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(numbers).to(self.device)]
        return torch.from_numpy(self.array[numbers].astype(np.int64)).to(self.device)
