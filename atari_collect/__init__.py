"""Atari frames as data sets: played at the emulator's own speed, the same bytes on every machine."""

from __future__ import annotations

from pathlib import Path

from atari_collect.games import find_game, near_games

__all__ = ["check", "ensure", "find_game", "folder_name", "near_games"]


def check(name: str, frames: int) -> None:
    """``ValueError`` for what ``ensure`` would refuse before it plays: no such game, too few frames, no ale-py."""
    from atari_collect import dataset

    dataset.make_recipe(name, frames)


def ensure(name: str, root: Path, frames: int, actors: int | None = None) -> Path:
    """See ``atari_collect.dataset.ensure``, which is imported when it is needed."""
    from atari_collect import dataset

    return dataset.ensure(name, root, frames, actors)


def folder_name(name: str, frames: int) -> str:
    """``boxing`` for 60,000 frames, ``boxing-2000`` for another number; ``ValueError`` for a name that is no game."""
    from atari_collect import dataset

    return dataset.folder_name(name, frames)
