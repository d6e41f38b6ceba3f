"""Collect: hand out episodes until there are enough, in this process or to Ray actors, and write the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from atari_collect import shard
from atari_collect.archive import Archive, Manifest
from atari_collect.emulator import emulator_version
from atari_collect.episode import Player
from atari_collect.plan import Plan
from atari_collect.progress import Progress
from atari_collect.recipe import Recipe


class Workers(Protocol):
    """Whoever plays: takes episodes while it has hands free, and hands back rows of episodes that are on disk."""

    def free(self) -> bool: ...
    def busy_with(self) -> set[int]: ...
    def submit(self, episode: int) -> None: ...
    def wait(self) -> list[dict[str, Any]]: ...


class InProcess:
    """Plays here, one episode at a time."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self._player, self._folder = Player(recipe), folder
        self._episode: int | None = None

    def free(self) -> bool:
        return self._episode is None

    def busy_with(self) -> set[int]:
        return set() if self._episode is None else {self._episode}

    def submit(self, episode: int) -> None:
        self._episode = episode

    def wait(self) -> list[dict[str, Any]]:
        if self._episode is None:
            return []
        played = self._player.play(self._episode)
        shard.write(self._folder, played)
        self._episode = None
        return [played.row]


@contextmanager
def in_process(recipe: Recipe, archive: Archive) -> Iterator[Workers]:
    yield InProcess(recipe, archive.episodes)


def workers(recipe: Recipe, archive: Archive, actors: int, address: str | None) -> AbstractContextManager[Workers]:
    """``actors`` Ray actors, or this process for 0."""
    if actors == 0:
        return in_process(recipe, archive)
    from atari_collect.actors import ray_actors

    return ray_actors(recipe, archive, actors, address)


def collect(archive: Archive, recipe: Recipe, frames: int, actors: int = 0, address: str | None = None) -> Manifest:
    """Make the archive hold exactly ``frames`` frames of the recipe; to be called while it is locked.

    Episodes that are there are kept when their checksums hold. Raises ``ValueError`` when the folder is another
    recipe's or holds more frames, or when too few episodes come of it to split, and ``OSError`` when the disk does not
    take them; what was collected until then is kept.
    """
    archive.begin(recipe)
    progress = Progress(recipe.game, frames)
    there = None
    if (archive.root / "manifest.json").exists():
        try:
            there = archive.manifest()
        except shard.DamagedError as error:  # the episodes give it again
            progress.note(str(error))
    if there and there.frames > frames:
        raise ValueError(
            f"{archive.folder} holds {there.frames:,} frames, not {frames:,}; choose another --out, or delete it"
        )
    plan = Plan(archive.finished(progress.note), frames, recipe.episode_frames)
    rows = plan.complete()
    if rows is None:
        if recipe.ale_py and recipe.ale_py != emulator_version():
            raise ValueError(
                f"{archive.folder} was begun with ale-py {recipe.ale_py}, this is {emulator_version()}; "
                "install that version, or delete the folder"
            )
        missing = frames - plan.frames
        actors = min(actors, -(-missing // recipe.episode_frames))  # more would have nothing to do
        who = f"with {actors} Ray actor{'s' * (actors > 1)}" if actors else "in this process"
        progress.note(f"{recipe.game}: collecting {missing:,} frames {who}, into {archive.folder}")
        progress = Progress(recipe.game, frames, plan.frames)
        with workers(recipe, archive, actors, address) as pool:
            while rows is None:
                while pool.free() and (episode := plan.next(pool.busy_with())) is not None:
                    pool.submit(episode)
                for row in pool.wait():
                    plan.add(row)
                progress.update(plan.frames)
                rows = plan.complete()
            while pool.busy_with():  # so that nobody writes any more when the rest is deleted
                pool.wait()
        progress.close()
        progress.note(f"{recipe.game}: {frames:,} frames, {progress.rate:,.0f} frames/s")
    if len(rows) < 3:
        raise ValueError(
            f"{frames:,} frames are {len(rows)} episodes, too few for train, valid and test; "
            f"ask for more --frames, or cut episodes with --episode-frames {max(1, frames // 20)}"
        )
    manifest = Manifest.of(recipe, frames, rows)
    if there and there.frames == frames and there.dataset_hash != manifest.dataset_hash:
        raise ValueError(
            f"{archive.folder}: collecting again gave the dataset hash {manifest.dataset_hash}, "
            f"not {there.dataset_hash}; this is not the emulator that made the rest"
        )
    if there != manifest or not archive.has_actions(manifest):
        archive.finish(manifest)
    return manifest
