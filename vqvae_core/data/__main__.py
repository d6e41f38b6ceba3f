"""``python -m vqvae_core.data``: prepare a known data set, import a folder of images, list what there is."""

from __future__ import annotations

import sys
from pathlib import Path

from vqvae_core.config import DATA_NAME, DataConfig
from vqvae_core.data.folder import Dataset, open_dataset, prepared
from vqvae_core.data.prepare import make, prepare
from vqvae_core.data.sources import image_folder
from vqvae_core.files import sha256
from vqvae_core.overrides import OneLineParser, fail
from vqvae_core.presets import PRESETS


def describe(dataset: Dataset) -> str:
    """One data set in one line."""
    height, width, channels = dataset.shape
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.splits.items())
    classes = f", {len(dataset.class_names)} classes" if dataset.class_names else ""
    return f"{dataset.folder}: {height} x {width} x {channels}, {counts}{classes}"


def import_folder(folder: Path, name: str, root: Path, size: int, grey: bool) -> Dataset:
    """Make a data set of a folder of images; ``ValueError`` when there is one of that name."""
    if not DATA_NAME.fullmatch(name):
        raise ValueError(f"--name is {name!r}; allowed are letters, digits, '_', '-' and '.'")
    if name in {preset().data.name for preset in PRESETS.values()}:
        raise ValueError(f"--name is {name!r}; allowed is a name that no known data set has")
    if size < 4 or size % 4:
        raise ValueError(
            f"--size is {size}; allowed is a multiple of 4, the factor by which the encoder shrinks an image"
        )
    target = root / name
    if target.exists():
        raise ValueError(f"{target} exists; choose another --name or delete it")
    return make(target, name, image_folder(folder, size, grey))


def verify(dataset: Dataset) -> None:
    """Compare every file with its checksum; ``ValueError`` names the first that differs."""
    for name, entry in dataset.meta["files"].items():
        if sha256(dataset.folder / name) != entry["sha256"]:
            raise ValueError(f"{dataset.folder / name} does not have the content that was written")


def main(arguments: list[str]) -> None:
    parser = OneLineParser("python -m vqvae_core.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=OneLineParser)
    known = commands.add_parser("prepare", help="download or read a known data set")
    known.add_argument("name")
    known.add_argument(
        "--data-source", dest="source", metavar="DIR", help=DataConfig.__dataclass_fields__["source"].metadata["doc"]
    )
    known.add_argument("--size", type=int, default=0, help=DataConfig.__dataclass_fields__["size"].metadata["doc"])
    own = commands.add_parser("import", help="make a data set of a folder of images; sub-folders are classes")
    own.add_argument("folder", type=Path, metavar="DIR")
    own.add_argument("--name", required=True, help="the name under which sweeps will know it")
    own.add_argument("--size", type=int, default=32, help="height and width in pixels, a multiple of 4 (32)")
    own.add_argument("--grey", action="store_true", help="one channel")
    listing = commands.add_parser("list", help="what is prepared")
    listing.add_argument("--verify", action="store_true", help="compare every file with its checksum")
    for command in (known, own, listing):
        command.add_argument("--root", default="data", help="folder that holds prepared data sets (data)")
    chosen = parser.parse_args(arguments)
    try:
        match chosen.command:
            case "prepare":
                print(describe(prepare(DataConfig(chosen.name, chosen.root, chosen.source, chosen.size))))
            case "import":
                dataset = import_folder(chosen.folder, chosen.name, Path(chosen.root), chosen.size, chosen.grey)
                print(describe(dataset))
                print(f"next: python sweeps/beta_lr.py --dataset {chosen.name}")
            case "list":
                folders = prepared(Path(chosen.root))
                if not folders:
                    print(f"nothing is prepared in {chosen.root}")
                for folder in folders:
                    dataset = open_dataset(folder)
                    if chosen.verify:
                        verify(dataset)
                    print(describe(dataset))
    except (ValueError, OSError) as error:  # the latter: a folder that cannot be written, a full disk
        fail(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
