"""A collection on disk: ``archive/recipe.json`` first, ``archive/episodes/``, ``archive/manifest.json`` last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from atari_collect import shard
from atari_collect.recipe import Recipe, split_of

FORMAT = 1
SPLITS = ("train", "valid", "test")


class BusyError(ValueError):
    """Another run works in the same folder."""


@dataclass(frozen=True)
class Manifest:
    """A finished collection: exactly ``frames`` frames, the last episode used up to its ``take``."""

    recipe: Recipe
    frames: int
    episodes: list[dict[str, Any]]  # the sidecars in order, each with ``split`` and ``take``, the frames used of it

    @property
    def dataset_hash(self) -> str:
        """SHA-256 over screens, colours, actions, rewards and splits, however they are compressed."""
        used = [[row["content"], row["take"], row["split"]] for row in self.episodes]
        return hashlib.sha256(json.dumps(used).encode()).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """Frames in each split."""
        return {split: sum(row["take"] for row in self.episodes if row["split"] == split) for split in SPLITS}

    @property
    def screen(self) -> tuple[int, int]:
        height, width = self.episodes[0]["screen"]
        return height, width

    @property
    def palette(self) -> dict[str, list[int]]:
        """The colour of every index that occurs."""
        colours: dict[str, list[int]] = {}
        for row in self.episodes:
            colours |= row["palette"]
        return colours

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "dataset_hash": self.dataset_hash,
            "frames": self.frames,
            "splits": self.counts,
            "recipe": self.recipe.to_json(),
            "episodes": self.episodes,
        }

    @staticmethod
    def of(recipe: Recipe, frames: int, rows: list[dict[str, Any]]) -> Manifest:
        """Trim the episodes to exactly ``frames`` frames and give each its split."""
        episodes, left = [], frames
        for row in rows:
            episodes.append({**row, "split": split_of(row["episode"]), "take": min(left, row["frames"])})
            left -= episodes[-1]["take"]
        assert left == 0, f"{left} frames are missing"
        return Manifest(recipe, frames, episodes)


class Archive:
    """The files of a collection in ``folder``; nothing is written before ``begin``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "archive"
        self.episodes = self.root / "episodes"

    @contextmanager
    def locked(self, wait: bool) -> Iterator[None]:
        """Be the only run in this folder; ``BusyError`` when another one is, unless told to wait for it."""
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / ".lock", timeout=-1 if wait else 0):
                yield
        except Timeout:
            raise BusyError(f"another run is at work in {self.folder}; wait for it, or choose another --out") from None

    def recipe(self) -> Recipe | None:
        """What is collected here; None where nothing is."""
        path = self.root / "recipe.json"
        try:
            fields = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete {self.folder} and collect again") from None
        if fields.pop("format", None) != FORMAT:
            raise ValueError(f"{path} was written by another version of atari_collect")
        return Recipe(**fields)

    def begin(self, recipe: Recipe) -> None:
        """Make this folder the recipe's; ``ValueError`` names all differences when it is another one's."""
        there = self.recipe()
        if there is None:
            self.episodes.mkdir(parents=True, exist_ok=True)
            shard.write_whole(self.root / "recipe.json", _json({"format": FORMAT, **recipe.to_json()}))
        elif there != recipe:
            raise ValueError(
                f"{self.folder} was begun with other settings ({there.differences(recipe)}); "
                "choose another --out, or delete it"
            )
        for stale in self.root.rglob(".*.tmp"):
            stale.unlink(missing_ok=True)

    def finished(self, damaged: Callable[[str], None]) -> dict[int, dict[str, Any]]:
        """The episodes whose checksums hold, by number; the others are deleted and reported."""
        rows = {}
        for path in sorted(self.episodes.glob("*.json")):
            try:
                rows[int(path.stem)] = shard.read_row(self.episodes, int(path.stem))
            except shard.DamagedError as error:
                damaged(str(error))
                self.drop(int(path.stem))
        for path in self.episodes.glob("*.zst"):
            if int(path.stem) not in rows:
                path.unlink(missing_ok=True)
        return rows

    def drop(self, episode: int) -> None:
        """Delete an episode, its sidecar first."""
        shard.row_path(self.episodes, episode).unlink(missing_ok=True)
        shard.data_path(self.episodes, episode).unlink(missing_ok=True)

    def finish(self, manifest: Manifest) -> None:
        """Write the actions of all episodes, then the manifest, and delete episodes that were not needed."""
        for path in self.episodes.glob("*.json"):
            if int(path.stem) >= len(manifest.episodes):
                self.drop(int(path.stem))
        actions = [self.arrays(row, "actions")[0] for row in manifest.episodes]
        shard.write_whole(self.root / "actions.zst", shard.pack_actions(actions))
        shard.write_whole(self.root / "manifest.json", _json(manifest.to_json()))

    def manifest(self) -> Manifest:
        """The finished collection; ``ValueError`` where there is none, ``shard.DamagedError`` where it is damaged."""
        path = self.root / "manifest.json"
        try:
            fields = json.loads(path.read_text())
            manifest = Manifest(Recipe(**fields["recipe"]), fields["frames"], fields["episodes"])
            holds = manifest.to_json() == fields and sum(manifest.counts.values()) == manifest.frames
        except FileNotFoundError:
            begun = (self.root / "recipe.json").exists()
            why = (
                "its collection was not finished: run the same command again"
                if begun
                else "nothing was collected there"
            )
            raise ValueError(f"{self.folder} has no manifest; {why}") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise shard.DamagedError(f"{path} is damaged ({error}); run the collecting command again") from None
        if not holds:
            raise shard.DamagedError(
                f"{path} is damaged: its parts contradict each other; run the collecting command again"
            )
        return manifest

    def arrays(self, row: dict[str, Any], *names: str) -> list[NDArray[Any]]:
        """Some arrays of an episode, whole; ``shard.DamagedError`` when the file is not what was written."""
        return shard.read_arrays(self.episodes, row, *names)

    def actions(self, manifest: Manifest) -> list[NDArray[np.uint8]]:
        """The executed actions of every episode, (n, frame_skip) each, from ``actions.zst`` alone."""
        lengths = [row["frames"] for row in manifest.episodes]
        return shard.unpack_actions(self.root / "actions.zst", lengths, manifest.recipe.frame_skip)

    def has_actions(self, manifest: Manifest) -> bool:
        """Whether ``actions.zst`` can be read; its own checksum says whether it is what was written."""
        try:
            self.actions(manifest)
        except shard.DamagedError:
            return False
        return True


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
