"""Make a whole data set again from its manifest and its actions, 60 kilobytes for 60,000 frames."""

from __future__ import annotations

from pathlib import Path

from atari_collect import shard
from atari_collect.archive import Archive, Manifest
from atari_collect.episode import Player
from atari_collect.games import rom_name
from atari_collect.opened import open_archive
from atari_collect.progress import Progress
from atari_collect.resize import View


def render(folder: Path, out: Path, view: View) -> Manifest:
    """Play the recorded actions of ``folder`` into ``out`` and open them there.

    Needs ``archive/manifest.json`` and ``archive/actions.zst``, no shards. Raises ``ValueError`` when an episode does
    not come out as it was recorded, or ``out`` holds something else.
    """
    source, target = Archive(folder), Archive(out)
    manifest = source.manifest()
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and target.recipe() is None:
        raise ValueError(f"{out} holds something else; choose another --out")
    actions = source.actions(manifest)
    player = Player(manifest.recipe)
    with target.locked(wait=False):
        target.begin(manifest.recipe)
        there = target.finished(lambda text: None)
        progress, done = Progress("rendering", sum(row["frames"] for row in manifest.episodes)), 0
        for row, rows in zip(manifest.episodes, actions, strict=True):
            if there.get(row["episode"], {}).get("content") != row["content"]:
                played = player.replay(row["episode"], rows.tolist())
                if played.row["content"] != row["content"]:
                    raise ValueError(
                        f"episode {row['episode']} comes out as {played.row['content']}, not as {row['content']}: "
                        "the actions or the emulator are not those of the collection"
                    )
                shard.write(target.episodes, played)
            done += row["frames"]
            progress.update(done)
        progress.close()
        again = [shard.read_row(target.episodes, row["episode"]) for row in manifest.episodes]
        rendered = Manifest.of(manifest.recipe, manifest.frames, again)
        assert rendered.dataset_hash == manifest.dataset_hash
        target.finish(rendered)
        open_archive(target, rendered, rom_name(manifest.recipe.game), view)
    return rendered
