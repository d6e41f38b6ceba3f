"""From a name to a data set on disk: once, by one process, and never half."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import track

from vqvae_core.config import DataConfig
from vqvae_core.data import sources
from vqvae_core.data.folder import Dataset, carve, dataset_writer, open_dataset, prepared
from vqvae_core.overrides import did_you_mean, first_line

VALID_SHARE, VALID_MOST = 0.1, 5000


@dataclass(frozen=True)
class HubData:
    """A data set of the Hugging Face hub."""

    repo: str
    config: str
    size: int = 0  # pixels to cut images of mixed sizes to


KNOWN = {
    "mnist": HubData("ylecun/mnist", "mnist"),
    "fashion_mnist": HubData("zalando-datasets/fashion_mnist", "fashion_mnist"),
    "cifar10": HubData("uoft-cs/cifar10", "plain_text"),
    "mini_imagenet": HubData("GATE-engine/mini_imagenet", "data", size=128),
}


def folder_of(data: DataConfig) -> Path:
    """Where a data set is, or will be."""
    root = Path(data.root)
    some = root / f"{data.name}-{data.frames}"  # as a collection of frames is called that is not the default one
    if data.frames != DataConfig.frames and (some / "dataset.json").exists():
        return some
    name = (
        data.name
        if not data.size or data.size == getattr(KNOWN.get(data.name), "size", 0)
        else f"{data.name}-{data.size}"
    )
    return root / name


def prepare(data: DataConfig) -> Dataset:
    """The data set, made on disk first when it is not there.

    Raises ``ValueError`` for a name that is nowhere, for a source that is missing or damaged, and when the folder holds
    images of another source than the one asked for.
    """
    folder = folder_of(data)
    if (folder / "dataset.json").exists():
        return _same_source(open_dataset(folder), data)
    return _same_source(make(folder, data.name, find_source(data)), data)


def make(folder: Path, name: str, source: sources.Source) -> Dataset:
    """Write a source as the data set ``folder``, unless another process does so first."""
    for path in (folder, *folder.parents):
        free = path.is_dir() and (path != folder or (path / "dataset.json").exists() or not any(path.iterdir()))
        if path.exists() and not free:
            kind = "data set" if path == folder else "folder"
            raise ValueError(f"{path} is in the way: it exists and is no {kind}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with FileLock(lock):
        if not (folder / "dataset.json").exists():  # another process may have made it while we waited
            for left in folder.parent.glob(f".{folder.name}.????????.tmp"):  # of a process killed in the middle
                shutil.rmtree(left, ignore_errors=True)
            try:
                write(folder, name, source)
            except ValueError:  # a damaged source leaves nothing; who waits for the lock will find the same damage
                lock.unlink(missing_ok=True)
                with suppress(OSError):
                    folder.parent.rmdir()
                raise
    return open_dataset(folder)


def find_source(data: DataConfig, others: Sequence[str] = ()) -> sources.Source:
    """The images behind a name, not yet read.

    Raises ``ValueError`` for a name that is nowhere, with the one that may have been meant: a data set's, or one of
    ``others``, which somebody else makes.
    """
    known = KNOWN.get(data.name)
    if data.source is not None:
        return sources.parquet(_source_folder(Path(data.source), data.name), data.size, known.size if known else 0)
    if data.name == "digits":
        if data.size:
            raise ValueError(f"data.size is {data.size}; allowed is 0 for digits, whose images are 8 x 8 pixels")
        return sources.digits()
    if known:
        return sources.parquet(_download(data.name, known), data.size, known.size)
    if data.size and (own := Path(data.root, data.name, "dataset.json")).exists():
        raise ValueError(f"data.size is {data.size}; allowed is 0 for what is prepared already, as {own.parent}")
    there = list(dict.fromkeys(["digits", *KNOWN, *(folder.name for folder in prepared(Path(data.root)))]))
    raise ValueError(
        f"data.name is {data.name!r}{did_you_mean(data.name, [*there, *others])}; allowed is one of {', '.join(there)},"
        f" or what you first make of a folder of images (python -m vqvae_core.data import) or of an Atari game "
        f"(python -m atari_collect)"
    )


def write(folder: Path, name: str, source: sources.Source) -> None:
    """Write all splits of a source under ``folder``, whole; validation is carved from train if it has none."""
    held = None if "valid" in source.counts else carve(source.counts["train"], VALID_SHARE, VALID_MOST)
    tested = None
    counts = dict(source.counts)
    if held is not None:
        counts |= {"valid": int(held.sum()), "train": int((~held).sum())}
    if "test" not in counts:
        # The rest after validation, by the same rule with another seed.
        tested = carve(source.counts["train"], VALID_SHARE, VALID_MOST, seed=1)
        if held is not None:
            tested &= ~held
        counts |= {"test": int(tested.sum()), "train": counts["train"] - int(tested.sum())}
    with dataset_writer(folder, name, source.shape, counts, source.class_names, source.record) as splits:
        filled = dict.fromkeys(splits, 0)
        for split in source.counts:
            for i, (image, label) in enumerate(_progress(source.rows(split), source.counts[split], f"{name} {split}")):
                to = split
                if split == "train":
                    to = (
                        "valid"
                        if held is not None and held[i]
                        else "test"
                        if tested is not None and tested[i]
                        else split
                    )
                if image.shape != source.shape:
                    raise ValueError(
                        f"{name}: image {i} of {split} is {image.shape[1]} x {image.shape[0]} pixels, the first one "
                        f"{source.shape[1]} x {source.shape[0]}; give data.size to cut all to one size"
                    )
                splits[to].images[filled[to]] = image
                splits[to].labels[filled[to]] = label
                filled[to] += 1


def _progress(rows: Iterator[sources.Row], count: int, what: str) -> Iterator[sources.Row]:
    if not sys.stderr.isatty():
        print(f"preparing {what}: {count:,} images", file=sys.stderr)
        return rows
    return iter(track(rows, f"preparing {what}", total=count, console=Console(stderr=True), transient=True))


def _source_folder(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise ValueError(f"data.source is {str(root)!r}, which is not a folder")
    for candidate in (root / name, root):
        if any(candidate.rglob("train-*.parquet")) and (candidate == root / name or _is_one_dataset(root)):
            return candidate
    there = sorted(p.name for p in root.iterdir() if p.is_dir() and any(p.rglob("train-*.parquet")))
    raise ValueError(f"data.source: {root} has no data set {name!r}; it has {', '.join(there) or 'no parquet files'}")


def _is_one_dataset(root: Path) -> bool:
    """Whether parquet files lie in this folder or in one configuration below it, not in data sets' own folders."""
    folders = {path.parent for path in root.rglob("train-*.parquet") if len(path.relative_to(root).parts) <= 2}
    return len(folders) == 1 and (folders == {root} or folders.isdisjoint(root / name for name in KNOWN))


def _download(name: str, known: HubData) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f"{name} is downloaded with huggingface_hub: pip install 'vqsweep[data]'") from None
    try:
        pattern = f"{known.config}/*.parquet"
        return Path(snapshot_download(known.repo, repo_type="dataset", allow_patterns=[pattern])) / known.config
    except Exception as error:  # the hub's client raises a dozen kinds, none of which helps to tell them apart
        reason = first_line(error)
        raise ValueError(
            f"{name} could not be downloaded from {known.repo} ({reason}); "
            f"give --data-source DIR with its parquet files"
        ) from None


def _same_source(dataset: Dataset, data: DataConfig) -> Dataset:
    """Refuse to pass one data set off as another that once was given the same name."""
    if data.source is not None:
        files = dataset.meta["source"].get("files", {})
        asked = _source_folder(Path(data.source), data.name)
        found = {path.name: path.stat().st_size for paths in sources.parquet_files(asked).values() for path in paths}
        if found != {name: entry["bytes"] for name, entry in files.items()}:
            raise ValueError(
                f"{dataset.folder} was prepared from other files than those in {asked}; "
                f"delete it, or give another --data.root"
            )
    return dataset
