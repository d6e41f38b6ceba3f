"""The images of a sweep on whichever machine asks: mapped where they lie, made where they do not."""

from __future__ import annotations

from pathlib import Path

import atari_collect
from vqvae_core.config import DataConfig
from vqvae_core.data import KNOWN, Dataset, open_dataset, prepare
from vqvae_core.data.prepare import folder_of


def game_of(name: str) -> str | None:
    """The Atari game that a data set's name means, if it means one."""
    return None if name in KNOWN or name == "digits" else atari_collect.find_game(name)


def to_be_collected(data: DataConfig) -> bool:
    """Whether its frames are not there: without a number asked for, whatever lies under the game's name is taken."""
    if data.source is not None or not game_of(data.name):
        return False
    folder = folder_of(data)
    if data.frames != DataConfig.frames:
        return folder.name != atari_collect.folder_name(data.name, data.frames)
    return not (folder / "dataset.json").exists()


def prepared_images(data: DataConfig) -> Dataset | None:
    """The data set as it lies on disk; None when it is not there."""
    if to_be_collected(data) or not (folder_of(data) / "dataset.json").exists():
        return None
    return prepare(data)


def images_of(data: DataConfig, actors: int | None = None) -> Dataset:
    """The data set, downloaded, read or collected (by so many actors) when it is not there."""
    if to_be_collected(data):
        return open_dataset(atari_collect.ensure(data.name, Path(data.root), data.frames, actors))
    return prepare(data)


def images_on_this_node(folder: Path, data: DataConfig, fingerprint: str) -> Dataset:
    """The images that the driver has in ``folder``, on a machine that may not see that folder.

    There they are made once, by the first process that asks. Raises ``ValueError`` when they are not the same images.
    """
    dataset = open_dataset(folder) if folder.exists() else images_of(data, actors=0)
    if dataset.fingerprint != fingerprint:
        raise ValueError(f"{dataset.folder} holds other images than the driver has; delete it, or share the folder")
    return dataset
