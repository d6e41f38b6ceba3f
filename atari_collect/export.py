"""The collection in other people's formats, without loss: Parquet with an image column, .npy, Minari."""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atari_collect.archive import SPLITS, Archive, Manifest
from atari_collect.frames import Painter
from atari_collect.games import rom_name
from atari_collect.opened import ArrayFile, describe, episode_images, read_meta, view_of
from atari_collect.progress import Progress
from atari_collect.resize import View


@dataclass(frozen=True)
class Episode:
    """What there is of one episode, n frames of it."""

    number: int
    split: str
    images: NDArray[np.uint8]  # (n, h, w, C), each seen after the actions of the same row
    actions: NDArray[np.uint8]  # (n, frame_skip)
    rewards: NDArray[np.int32]  # (n,)
    game_over: bool  # whether the game ended with the last frame


def export(folder: Path, kind: str, out: Path) -> Path:
    """Write the collection to ``out``, which must be new or empty; it appears there whole or not at all.

    Images look as they are opened, 84 x 84 RGB where they are not. Raises ``ValueError`` for a collection that is not
    finished or is damaged, for an ``out`` that holds something, and for a package that is missing.
    """
    archive = Archive(folder)
    manifest = archive.manifest()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    meta = read_meta(folder)
    view = view_of(meta) if meta else View()
    try:
        EXPORTS[kind](manifest, view, _episodes(archive, manifest, view), temporary)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _episodes(archive: Archive, manifest: Manifest, view: View) -> Iterator[Episode]:
    painter = Painter(manifest.screen, manifest.palette, view)
    progress, done = Progress("exporting", manifest.frames), 0
    for row in manifest.episodes:
        take = row["take"]
        actions, rewards = archive.arrays(row, "actions", "rewards")
        images = np.concatenate(list(episode_images(archive, row, painter)))
        over = row["game_over"] and take == row["frames"]
        yield Episode(row["episode"], row["split"], images, actions[:take], rewards[:take], over)
        done += take
        progress.update(done)
    progress.close()


def _parquet(manifest: Manifest, view: View, episodes: Iterator[Episode], out: Path) -> None:
    """One row a frame: image (PNG), episode, step, action of its last emulated frame, all actions, reward."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError("--to parquet needs pyarrow: pip install 'vqsweep[data]'") from None
    columns = {
        "image": (pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}),
        "episode": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
        "step": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
        "action": (pa.uint8(), {"dtype": "uint8", "_type": "Value"}),
        "actions": (pa.list_(pa.uint8()), {"feature": {"dtype": "uint8", "_type": "Value"}, "_type": "List"}),
        "reward": (pa.int32(), {"dtype": "int32", "_type": "Value"}),
    }
    # `datasets` reads the image column's meaning from here.
    features = {"info": {"features": {name: feature for name, (_, feature) in columns.items()}}}
    schema = pa.schema([(name, kind) for name, (kind, _) in columns.items()], {"huggingface": json.dumps(features)})
    (out / "data").mkdir()
    writers = {split: pq.ParquetWriter(out / f"data/{split}-00000-of-00001.parquet", schema) for split in SPLITS}
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for episode in episodes:
                count = len(episode.rewards)
                table = {
                    "image": [{"bytes": png, "path": None} for png in pool.map(_png, episode.images)],
                    "episode": [episode.number] * count,
                    "step": range(count),
                    "action": episode.actions[:, -1],
                    "actions": episode.actions.tolist(),
                    "reward": episode.rewards,
                }
                # Groups of a few hundred rows, so that a viewer needs to load only a megabyte for its page.
                writers[episode.split].write_table(pa.Table.from_pydict(table, schema), row_group_size=500)
    finally:
        for writer in writers.values():
            writer.close()
    (out / "README.md").write_text(_card(manifest, view))


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def _card(manifest: Manifest, view: View) -> str:
    recipe = manifest.recipe
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in SPLITS)
    return f"""---
pretty_name: {manifest.frames:,} frames of Atari {recipe.game}
configs:
- config_name: default
  data_files:
{files}---
Frames of the Atari 2600 game {recipe.game}, {view.height} x {view.width}, played by the policy `{recipe.policy}`.
Splits hold whole episodes. `step` counts from 0 in each episode; `image` is seen after `actions`, the executed actions
of its {recipe.frame_skip} emulated frames; `reward` is what these won.

```json
{json.dumps(describe(manifest, view), indent=1)}
```
"""


def _npy(manifest: Manifest, view: View, episodes: Iterator[Episode], out: Path) -> None:
    """Everything in the order of play: images, and per frame its episode, step, split, actions and reward."""
    rest: dict[str, list[NDArray[Any]]] = {name: [] for name in ("actions", "rewards", "episodes", "steps", "splits")}
    with ArrayFile(out / "images.npy", (manifest.frames, *view.shape), np.uint8) as images:
        for episode in episodes:
            count = len(episode.rewards)
            images.write(episode.images)
            rest["actions"].append(episode.actions)
            rest["rewards"].append(episode.rewards)
            rest["episodes"].append(np.full(count, episode.number, np.int32))
            rest["steps"].append(np.arange(count, dtype=np.int32))
            rest["splits"].append(np.full(count, SPLITS.index(episode.split), np.uint8))
    for name, parts in rest.items():
        np.save(out / f"{name}.npy", np.concatenate(parts))
    about = {"splits": list(SPLITS), **describe(manifest, view)}
    (out / "about.json").write_text(json.dumps(about, indent=1))


def _minari(manifest: Manifest, view: View, episodes: Iterator[Episode], out: Path) -> None:
    """A Minari data set ``atari/<game>/<policy>-v0``; MINARI_DATASETS_PATH is then this folder.

    Our first frame follows the first action, so the first row's action and reward have no observation before them and
    are left out: n frames are n observations and n - 1 steps.
    """
    try:
        import gymnasium as gym
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError:
        raise ValueError("--to minari needs it: pip install 'minari>=0.5.4' pyarrow") from None
    recipe = manifest.recipe
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(out.resolve())
    policy = "".join(c if c.isalnum() else "-" for c in recipe.policy)
    try:
        with warnings.catch_warnings():
            # It warns of each of five descriptions that we have not: an author, an address, an environment, ...
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                f"atari/{rom_name(recipe.game)}/{policy}-v0",
                buffer=[],
                observation_space=gym.spaces.Box(0, 255, view.shape, np.uint8),
                action_space=gym.spaces.MultiDiscrete([18] * recipe.frame_skip),
                algorithm_name=recipe.policy,
                description=json.dumps(describe(manifest, view)),
                data_format="parquet",
                jpeg_encoding=False,  # its default changes three pixels of four
            )
        for episode in episodes:
            count = len(episode.rewards) - 1
            ends = np.zeros((2, max(count, 0)), bool)
            ends[0 if episode.game_over else 1, -1:] = True
            dataset.storage.update_episodes([
                EpisodeBuffer(
                    id=episode.number,
                    observations=episode.images,
                    actions=episode.actions[1:].astype(np.int64),
                    rewards=episode.rewards[1:].astype(np.float64),
                    terminations=ends[0],
                    truncations=ends[1],
                    options={"split": episode.split},
                )
            ])  # fmt: skip
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before


Export = Callable[[Manifest, View, Iterator[Episode], Path], None]
EXPORTS: dict[str, Export] = {"parquet": _parquet, "npy": _npy, "minari": _minari}
