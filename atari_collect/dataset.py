"""A game's name to a data set on disk: lock, collect what is missing, open."""

from __future__ import annotations

import sys
from pathlib import Path

from atari_collect.archive import Archive, Manifest
from atari_collect.collect import collect
from atari_collect.emulator import emulator_version
from atari_collect.games import find_rom, game_id, rom_name
from atari_collect.opened import is_open, open_archive, read_meta
from atari_collect.policies import find_policy
from atari_collect.recipe import Recipe, default_episode_frames
from atari_collect.resize import View

REPORT_FRAMES = 60_000  # 2.3 of the report
WORTH_ACTORS = 20_000  # frames; fewer are played before actors have started


def folder_name(name: str, frames: int) -> str:
    """``boxing`` for the report's 60,000 frames, ``boxing-2000`` for another number; ``ValueError`` for no game."""
    rom = rom_name(name)
    return rom if frames == REPORT_FRAMES else f"{rom}-{frames}"


def make_recipe(
    game: str,
    frames: int,
    seed: int = 0,
    frame_skip: int = 4,
    stickiness: float = 0.25,
    policy: str = "random",
    episode_frames: int | None = None,
) -> Recipe:
    """A recipe for this machine's emulator, ROM and policy; ``ValueError`` names what is wrong before anything runs."""
    if frames < 3:
        raise ValueError(f"frames is {frames}; allowed is an integer >= 3, one for each of train, valid and test")
    return Recipe(
        game=game_id(rom_name(game)),
        seed=seed,
        frame_skip=frame_skip,
        stickiness=stickiness,
        policy=policy,
        episode_frames=default_episode_frames(frames) if episode_frames is None else episode_frames,
        policy_sha256=find_policy(policy)[1],
        rom_md5=find_rom(game).md5,
        ale_py=emulator_version(),
    )


def make(
    folder: Path,
    recipe: Recipe,
    frames: int,
    view: View | None = None,
    actors: int = 0,
    wait: bool = False,
    address: str | None = None,
) -> Manifest:
    """Collect into ``folder`` what is missing there and, where a view is given, open it.

    Raises as ``collect`` and ``open_archive`` do, and ``archive.BusyError`` when another run is at work in the folder
    and ``wait`` is not set.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "archive").is_dir():
        raise ValueError(f"{folder} holds something else; choose another --out")
    archive = Archive(folder)
    with archive.locked(wait):
        manifest = collect(archive, recipe, frames, actors, address)
        if view is not None:
            open_archive(archive, manifest, rom_name(recipe.game), view)
    return manifest


def ensure(name: str, root: Path, frames: int, actors: int | None = None) -> Path:
    """The folder of a game's opened data set: collected with the report's settings if it is not there.

    84 x 84 RGB by area average, random policy, frame skip 4, stickiness 0.25, seed 0: ``root/boxing`` for 60,000
    frames, ``root/boxing-2000`` for another number. A collection that is there under this name is kept, with whatever
    settings it was made. ``actors=None`` uses the free CPUs of a Ray connection that is there where they are worth it,
    else this process; 0 this process; n > 0 that many actors. Several processes may call it at once: one collects, the
    others wait.

    Raises ``ValueError`` for a name that is no game, for fewer than 3 frames, without ale-py, and for a folder that
    holds another game or another number of frames; ``OSError`` when the disk is full.
    """
    folder = root / folder_name(name, frames)
    game = game_id(rom_name(name))
    meta = read_meta(folder)
    if meta is not None and is_open(folder, meta):
        found = meta["source"].get("game"), meta["source"].get("frames")
        if found != (game, frames):
            raise ValueError(f"{folder} holds {found[1]} frames of {found[0]}, not {frames} of {game}; delete it first")
        return folder
    recipe = Archive(folder).recipe()
    if recipe is None:
        recipe = make_recipe(name, frames)
    elif recipe.game != game:
        raise ValueError(f"{folder} holds frames of {recipe.game}, not of {game}; delete it first")
    if actors is None:
        actors = _free_cpus() if frames >= WORTH_ACTORS else 0
    make(folder, recipe, frames, View(), actors, wait=True)
    return folder


def _free_cpus() -> int:
    """CPUs that a Ray connection of this process has to spare: 0 where there is none, or where 2 actors do not fit."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0
    free = int(ray.available_resources().get("CPU", 0))
    return free if free >= 2 else 0
