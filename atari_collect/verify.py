"""Is it what it says? Every checksum on disk, and some episodes played again."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np

from atari_collect import shard
from atari_collect.archive import Archive
from atari_collect.episode import Player
from atari_collect.opened import read_meta
from atari_collect.progress import Progress


def verify(folder: Path, again: int) -> str:
    """Check a collection and say what was checked; ``again`` episodes, drawn at random, are collected again.

    Raises ``ValueError`` that names the first thing that is not as it was written, or not as the emulator has it.
    """
    archive = Archive(folder)
    manifest = archive.manifest()
    if archive.recipe() != manifest.recipe:
        raise ValueError(f"{archive.root / 'recipe.json'} is another one than the manifest says")
    recorded = archive.actions(manifest)
    for row in manifest.episodes:
        if shard.read_row(archive.episodes, row["episode"])["content"] != row["content"]:
            raise ValueError(f"episode {row['episode']} of {folder} is another one than the manifest says")
        if not np.array_equal(archive.arrays(row, "actions")[0], recorded[row["episode"]]):
            raise ValueError(f"{archive.root / 'actions.zst'} has other actions for episode {row['episode']}")
    arrays = _check_opened(folder, manifest.dataset_hash)
    chosen = sorted(random.sample(range(len(manifest.episodes)), min(again, len(manifest.episodes))))
    if chosen:
        _play_again(archive, chosen)
    played = f"; episodes {', '.join(map(str, chosen))} collected again, the same" if chosen else ""
    return f"{folder}: {len(manifest.episodes)} episodes and {arrays} arrays hold their checksums{played}"


def _check_opened(folder: Path, dataset_hash: str) -> int:
    meta = read_meta(folder)
    if meta is None:
        return 0
    if meta["source"]["dataset_hash"] != dataset_hash:
        raise ValueError(f"{folder} was opened from another collection; run the collecting command again")
    for name, entry in meta["files"].items():
        path = folder / name
        try:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while part := file.read(1 << 20):
                    digest.update(part)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing; run the collecting command again") from None
        if digest.hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{path} is damaged; delete {folder / 'dataset.json'} and run the collecting command again"
            )
    return len(meta["files"])


def _play_again(archive: Archive, chosen: list[int]) -> None:
    manifest = archive.manifest()
    player = Player(manifest.recipe)
    rows = [manifest.episodes[episode] for episode in chosen]
    progress, done = Progress("collecting again", sum(row["frames"] for row in rows)), 0
    for row in rows:
        content = player.play(row["episode"]).row["content"]
        if content != row["content"]:
            raise ValueError(f"episode {row['episode']} collected again is {content}, not {row['content']}")
        done += row["frames"]
        progress.update(done)
    progress.close()
