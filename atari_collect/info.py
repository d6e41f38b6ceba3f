"""What a collection is like: counts, duplicates, frames that two splits share, and its episodes."""

from __future__ import annotations

import hashlib
import statistics
from pathlib import Path
from typing import Any

from atari_collect.archive import SPLITS, Archive
from atari_collect.frames import Painter
from atari_collect.opened import episode_images, read_meta, view_of
from atari_collect.progress import Progress
from atari_collect.resize import View


def info(folder: Path) -> dict[str, Any]:
    """Figures of a collection, from the archive; what frames share is about the images as they are opened.

    Raises ``ValueError`` where nothing was collected or a shard is damaged.
    """
    archive = Archive(folder)
    manifest = archive.manifest()
    meta = read_meta(folder)
    view = view_of(meta) if meta else View()
    painter = Painter(manifest.screen, manifest.palette, view)
    digests: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    progress, done = Progress("reading", manifest.frames), 0
    for row in manifest.episodes:
        for images in episode_images(archive, row, painter):
            digests[row["split"]] += [hashlib.sha256(image).digest()[:16] for image in images]
        done += row["take"]
        progress.update(done)
    progress.close()
    train = set(digests["train"])
    everything = [digest for split in SPLITS for digest in digests[split]]
    stored = sum(path.stat().st_size for path in archive.root.rglob("*") if path.is_file())
    rows = manifest.episodes
    return {
        "folder": str(folder),
        "frames": manifest.frames,
        "splits": manifest.counts,
        "episodes": {split: sum(row["split"] == split for row in rows) for split in SPLITS},
        "recipe": manifest.recipe.to_json(),
        "dataset_hash": manifest.dataset_hash,
        "screen": list(manifest.screen),
        "opened": None if meta is None else list(view.shape),
        "archive_bytes": stored,
        "bytes_per_frame": stored / manifest.frames,
        "palette": manifest.palette,
        "distinct": len(set(everything)) / len(everything),
        "repeats": sum(row["repeats"] for row in rows) / sum(row["frames"] for row in rows),
        "also_in_train": {s: sum(d in train for d in digests[s]) / len(digests[s]) for s in ("valid", "test")},
        "lengths": _spread([row["frames"] for row in rows]),
        "rewards": _spread([row["reward"] for row in rows]),
        "game_over": sum(row["game_over"] for row in rows),
    }


def _spread(values: list[int]) -> dict[str, float]:
    return {
        "least": min(values),
        "median": statistics.median(values),
        "most": max(values),
        "mean": statistics.mean(values),
    }


def as_text(figures: dict[str, Any]) -> str:
    """The figures for people to read."""
    recipe, lengths, rewards = figures["recipe"], figures["lengths"], figures["rewards"]
    splits = ", ".join(f"{figures['splits'][s]:,} {s} ({figures['episodes'][s]} episodes)" for s in SPLITS)
    opened = "no" if figures["opened"] is None else " x ".join(map(str, figures["opened"]))
    shared = ", ".join(f"{share:.2%} of {split}" for split, share in figures["also_in_train"].items())
    return "\n".join(
        f"{name:13} {value}"
        for name, value in (
            ("data set", f"{figures['folder']}: {figures['frames']:,} frames of {recipe['game']}"),
            ("splits", splits),
            ("played", f"{recipe['policy']}, frame skip {recipe['frame_skip']}, stickiness {recipe['stickiness']}, "
             f"seed {recipe['seed']}, at most {recipe['episode_frames']:,} frames an episode"),
            ("emulator", f"ale-py {recipe['ale_py']}, ROM MD5 {recipe['rom_md5']}"),
            ("screens", f"{figures['screen'][0]} x {figures['screen'][1]}, {len(figures['palette'])} colours"),
            ("opened", opened),
            ("archive", f"{figures['archive_bytes'] / 1e6:.1f} MB, {figures['bytes_per_frame']:.0f} bytes a frame"),
            ("duplicates", f"{figures['distinct']:.2%} of the frames are distinct; "
             f"{figures['repeats']:.2%} equal the screen before"),
            ("leakage", f"also in train: {shared}"),
            ("episodes", f"{lengths['least']:,} to {lengths['most']:,} frames, median {lengths['median']:,.0f}; "
             f"{figures['game_over']} played to the end"),
            ("reward", f"{rewards['least']} to {rewards['most']}, mean {rewards['mean']:.1f}"),
            ("dataset hash", figures["dataset_hash"]),
        )
    )  # fmt: skip
