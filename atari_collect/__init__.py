"""Atari frames as data sets: played at the emulator's own speed, the same bytes on every machine."""

from __future__ import annotations

from pathlib import Path

from atari_collect.games import find_game

__all__ = ["ensure", "find_game", "folder_name"]


def ensure(name: str, root: Path, frames: int, actors: int | None = None) -> Path:
    """See ``atari_collect.dataset.ensure``, which is imported when it is needed."""
    from atari_collect import dataset

    return dataset.ensure(name, root, frames, actors)


def folder_name(name: str, frames: int) -> str:
    """``boxing`` for 60,000 frames, ``boxing-2000`` for another number; ``ValueError`` for a name that is no game."""
    from atari_collect import dataset

    return dataset.folder_name(name, frames)
