"""Where images come from: the bundled digits, parquet files in the hub's layout, and folders of image files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vqvae_core.data.folder import NO_LABEL
from vqvae_core.files import sha256
from vqvae_core.overrides import first_line

Row = tuple[NDArray[np.uint8], int]
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Source:
    """Images before they are prepared: how many there are in each split, and a way to read them in order."""

    shape: tuple[int, int, int]  # H, W, C
    class_names: list[str]
    counts: dict[str, int]  # by split; a split that is missing is carved from train
    rows: Callable[[str], Iterator[Row]]
    record: dict[str, Any]  # what dataset.json says about where the images are from


def digits() -> Source:
    """The 1,797 8 x 8 digits that scikit-learn bundles; the last 297 are the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("data.name is 'digits', which needs scikit-learn: pip install 'vqsweep[data]'") from None
    bunch = load_digits()
    # 17 grey levels, 0..16, spread over 0..255.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    parts = {"train": slice(0, 1500), "test": slice(1500, None)}

    def rows(split: str) -> Iterator[Row]:
        yield from zip(images[parts[split]], bunch.target[parts[split]].tolist(), strict=True)

    counts = {"train": 1500, "test": len(images) - 1500}
    return Source((8, 8, 1), [str(i) for i in range(10)], counts, rows, {"from": "scikit-learn load_digits"})


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split that has any, in the hub's naming ``<split>-*.parquet``."""
    files = {
        split: sorted(path for start in starts for path in folder.rglob(f"{start}-*.parquet"))
        for split, starts in {"train": ["train"], "valid": ["validation", "valid"], "test": ["test"]}.items()
    }
    return {split: paths for split, paths in files.items() if paths}


def parquet(folder: Path, size: int, resize_default: int = 0) -> Source:
    """Parquet files ``[config/]<split>-*.parquet`` as the hub keeps them, with an image and maybe a label column.

    Images of other sizes are cut to ``size`` x ``size`` pixels (or ``resize_default``); with neither, the first image's
    size is everyone's. Raises ``ValueError`` that names the file which is missing, damaged or of another kind.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError("data.source holds parquet files, which need pyarrow: pip install 'vqsweep[data]'") from None
    files = parquet_files(folder)
    if "train" not in files:
        raise ValueError(f"data.source: {folder} has no train-*.parquet file")
    opened = {}
    for path in (path for paths in files.values() for path in paths):
        try:
            opened[path] = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is damaged or no parquet file: {first_line(error)}") from None
    schema = opened[files["train"][0]].schema_arrow
    features = _hub_features(schema)
    image_column = _column(schema, features, ("image", "img"), "Image", files["train"][0])
    label_column = _column(schema, features, ("label", "labels", "fine_label"), "ClassLabel", None)
    columns = [column for column in (image_column, label_column) if column]
    for path, file in opened.items():
        for column in columns:
            if column not in file.schema_arrow.names:
                raise ValueError(f"{path} has no column {column!r}; it has {', '.join(file.schema_arrow.names)}")
        kind = file.schema_arrow.field(label_column).type if label_column else pa.null()
        if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise ValueError(f"{path}: column {label_column!r} holds values of type {kind}; allowed are integers")
    counts = {split: sum(opened[path].metadata.num_rows for path in paths) for split, paths in files.items()}
    if not counts["train"]:
        raise ValueError(f"{files['train'][0]} has no images")
    size = size or resize_default

    def cells(split: str) -> Iterator[tuple[io.BytesIO, str, int]]:
        for path in files[split]:
            number = 0
            try:
                for batch in opened[path].iter_batches(batch_size=256, columns=columns):
                    labels = batch.column(label_column).to_pylist() if label_column else [None] * len(batch)
                    for cell, label in zip(batch.column(image_column).to_pylist(), labels, strict=True):
                        raw = cell["bytes"] if isinstance(cell, dict) else cell
                        yield io.BytesIO(raw), f"image {number} of {path}", NO_LABEL if label is None else label
                        number += 1
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{path} is damaged: {first_line(error)}") from None

    def rows(split: str) -> Iterator[Row]:
        for file, where, label in cells(split):
            yield decode(file, where, channels, size), label

    first = _read(*next(cells("train"))[:2])
    channels = 1 if first.mode in ("L", "1", "LA") else 3
    height, width = (size, size) if size else (first.height, first.width)
    return Source(
        (height, width, channels),
        list(features.get(label_column, {}).get("names", [])) if label_column else [],
        {split: count for split, count in counts.items() if count},
        rows,
        {
            "from": "parquet",
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for p in files.values() for path in p
            },
            "resize": _RESIZE if size else None,
        },
    )


def image_folder(folder: Path, size: int, grey: bool) -> Source:
    """A folder of image files; sub-folders are classes, and train/valid/test above them are splits.

    Without split folders a tenth is held out for validation and a tenth for test, always the same files.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    names = {"train": ("train",), "valid": ("valid", "validation", "val"), "test": ("test",)}
    split_folders = {s: folder / n for s, options in names.items() for n in options if (folder / n).is_dir()}
    roots = split_folders if "train" in split_folders else {"train": folder}
    paths = {split: _image_files(root) for split, root in roots.items()}
    if not paths["train"]:
        raise ValueError(f"{roots['train']} has no image files ({', '.join(sorted(IMAGE_ENDINGS))})")
    if len(paths["train"]) < 10:
        raise ValueError(f"{roots['train']} has {len(paths['train'])} images; allowed is 10 or more")

    def class_of(split: str, path: Path) -> str | None:
        parts = path.relative_to(roots[split]).parts
        return parts[0] if len(parts) > 1 else None

    classes = sorted({c for split in paths for p in paths[split] if (c := class_of(split, p)) is not None})
    channels = 1 if grey else 3

    def rows(split: str) -> Iterator[Row]:
        for path in paths[split]:
            name = class_of(split, path)
            yield decode(path, str(path), channels, size), NO_LABEL if name is None else classes.index(name)

    counts = {split: len(found) for split, found in paths.items() if found}
    return Source((size, size, channels), classes, counts, rows, {"from": "image files", "resize": _RESIZE})


def _image_files(root: Path) -> list[Path]:
    """Image files below a folder in sorted order, without hidden ones (some systems keep one beside each image)."""
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith("."))


_RESIZE = "shorter side to size by area average (PIL BOX down, LANCZOS up), centre crop"


def decode(file: Path | io.BytesIO, label: str, channels: int, size: int) -> NDArray[np.uint8]:
    """One image as (H, W, C) uint8, cut to a square of ``size`` pixels unless that is 0."""
    image = _read(file, label).convert("L" if channels == 1 else "RGB")
    if size and image.size != (size, size):
        kernel = Image.Resampling.BOX if min(image.size) >= size else Image.Resampling.LANCZOS
        image = ImageOps.fit(image, (size, size), kernel)
    array = np.asarray(image, np.uint8)
    return array[..., None] if channels == 1 else array


def _read(file: Path | io.BytesIO, label: str) -> Image.Image:
    """An image of 8 bits a channel; ``ValueError`` names the one that cannot be read."""
    try:
        with Image.open(file) as image:
            image.load()
    except UnidentifiedImageError:
        raise ValueError(f"{label} is no readable image: no format that Pillow knows") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        raise ValueError(f"{label} is no readable image: {first_line(error)}") from None
    if image.mode[0] not in "IF":
        return image
    # Pillow's own conversion of 16-bit images cuts every level above 255 to white.
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise ValueError(f"{label} has levels of type {levels.dtype}; allowed are 8 or 16 bits")
    return Image.fromarray(np.rint(levels / 257).astype(np.uint8))


def _hub_features(schema: Any) -> dict[str, dict[str, Any]]:
    """What the hub wrote about the columns: ``{"label": {"_type": "ClassLabel", "names": [...]}}``."""
    text = (schema.metadata or {}).get(b"huggingface")
    return dict(json.loads(text)["info"]["features"]) if text else {}


def _column(
    schema: Any, features: dict[str, dict[str, Any]], usual: tuple[str, ...], kind: str, required_in: Path | None
) -> str | None:
    typed = [name for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == kind]
    for name in (*usual, *typed):
        if name in schema.names:
            return name
    if required_in:
        raise ValueError(f"{required_in} has no image column; it has {', '.join(schema.names)}")
    return None
