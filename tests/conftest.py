"""What the tests share: made-up images on disk, and one prepared copy of the bundled digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import TINY_MODELS, made_up_images, png, write_made_up, write_parquet

from vqvae_core.config import DataConfig, Experiment
from vqvae_core.data import Dataset, prepare
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import tiny

torch.set_num_threads(1)  # the tests share the cores with each other


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data.root`` in which the bundled digits are prepared."""
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("data")
    prepare(DataConfig("digits", str(root)))
    return root


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 + 21 + 5 made-up images of 8 x 8 x 1; 21 is no multiple of any batch size."""
    return write_made_up(tmp_path_factory.mktemp("made-up") / "made_up")


@pytest.fixture(scope="session")
def made_up_rgb(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same in colour, and higher than wide: 12 x 8 x 3."""
    return write_made_up(tmp_path_factory.mktemp("made-up") / "made_up_rgb", (12, 8, 3))


@pytest.fixture
def tiny_on(made_up: Dataset) -> Callable[..., Experiment]:
    """``tiny()`` on the made-up images, with dotted fields changed: ``tiny_on(**{"model.beta": 2})``.

    ``{"model.type": "vae"}`` is another model of its size.
    """

    def build(dataset: Dataset = made_up, **overrides: Any) -> Experiment:
        base, kind = tiny(), overrides.pop("model.type", "vqvae")
        base = base if kind == "vqvae" else replace(base, model=TINY_MODELS[kind])
        data = replace(base.data, name=dataset.name, root=str(dataset.folder.parent))
        small = {"train.images": 48, "train.eval_every": 16, "train.calibration_images": 32, "train.eval_batch": 8}
        return with_overrides(replace(base, data=data), small | overrides)

    return build


@pytest.fixture
def png_folder(tmp_path: Path) -> Path:
    """Twelve PNG files of different sizes in two classes' folders."""
    folder = tmp_path / "pictures"
    for number in range(12):
        name = ("bird", "ant")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        shape = (20 + number, 30, 3)
        (folder / name / f"{number:02d}.png").write_bytes(png(made_up_images(1, shape, seed=number)[0]))
    return folder


@pytest.fixture
def parquet_root(tmp_path: Path) -> Path:
    """``--data-source``: a folder with MNIST in the hub's layout: 40 train images in two files, 8 test images."""
    folder = tmp_path / "source" / "mnist" / "mnist"
    images = made_up_images(48, (8, 8, 1))
    labels = [n % 2 for n in range(48)]
    write_parquet(folder / "train-00000-of-00002.parquet", images[:20], labels[:20])
    write_parquet(folder / "train-00001-of-00002.parquet", images[20:40], labels[20:40])
    write_parquet(folder / "test-00000-of-00001.parquet", images[40:], labels[40:])
    return tmp_path / "source"
