"""Made-up images, on disk in every form that is read, and what tests need to run a program on them."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vqvae_core.config import DVAEConfig, ModelConfig, VAEConfig, VIMCOConfig
from vqvae_core.data import Dataset, dataset_writer, open_dataset

# What ``tiny()`` is among VQ-VAEs, of every other model of images.
TINY_MODELS: dict[str, ModelConfig] = {
    "vae": VAEConfig(hidden=8, residual_blocks=1, latent_dim=3),
    "vimco": VIMCOConfig(hidden=8, residual_blocks=1, num_codes=16, code_dim=4, samples=3, likelihood="mixture"),
    "dvae": DVAEConfig(hidden=8, residual_blocks=1, num_codes=16, code_dim=4, likelihood="mixture"),
}

# Of what a run reports, the part that a clock decides.
TIMED = {"train/images_per_sec", "train/seconds"}


def made_up_images(count: int, shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured gradients with a bright square somewhere: unlike noise, there is something to learn."""
    height, width, channels = shape
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    slopes = random.uniform(-1, 1, (count, channels, 2))
    tilted = slopes[..., 0, None, None] * (y / height - 0.5) + slopes[..., 1, None, None] * (x / width - 0.5)
    images = 128 + 60 * random.uniform(-1, 1, (count, 1, 1, 1)) + 100 * tilted
    images = np.moveaxis(images, 1, -1)  # N H W C
    for image, top, left in zip(
        images, random.randint(0, height - 2, count), random.randint(0, width - 2, count), strict=True
    ):
        image[top : top + 2, left : left + 2] = 240
    return np.clip(images + random.uniform(-3, 3, images.shape), 0, 255).astype(np.uint8)


def write_made_up(
    folder: Path, shape: tuple[int, int, int] = (8, 8, 1), train: int = 64, valid: int = 21, test: int = 5
) -> Dataset:
    """A prepared data set of made-up images in two classes."""
    counts = {"train": train, "valid": valid, "test": test}
    with dataset_writer(folder, folder.name, shape, counts, ["dark", "light"], {"from": "made up"}) as splits:
        for number, (split, plan) in enumerate(splits.items()):
            plan.images[:] = made_up_images(counts[split], shape, seed=number)
            plan.labels[:] = np.arange(counts[split]) % 2
    return open_dataset(folder)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image file's bytes; (H, W) or (H, W, 1) is grey, (H, W, 3) coloured."""
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet(
    path: Path,
    images: Sequence[NDArray[np.uint8] | bytes | None],
    labels: Sequence[Any] | None,
    *,
    image_column: str = "image",
    names: Sequence[str] = ("even", "odd"),
    hub_metadata: bool = True,
) -> Path:
    """One parquet file as the hub keeps them: an image column of {bytes, path}, a label column, the hub's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": png(i) if isinstance(i, np.ndarray) else i, "path": f"{n}.png"} for n, i in enumerate(images)]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, Any] = {image_column: pa.array(cells, image_type)}
    features: dict[str, Any] = {image_column: {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels)
        features["label"] = {"_type": "ClassLabel", "names": list(names)}
    table = pa.table(columns)
    if hub_metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMED}


def run_module(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python -m ...`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )


def environment() -> dict[str, str]:
    """A child process's environment: one thread, warnings as in any user's process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process may become longer than so many bytes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
