"""What decides every byte of a collection, and the random numbers that follow from it."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_EPISODES = 20  # so that a set of any length has train, valid and test of different episodes, alike in content
MOST_EPISODE_FRAMES = 4_500  # five minutes of play at frame skip 4: some games never end


@dataclass(frozen=True)
class Recipe:
    """A way to play; equal recipes give equal episodes, on any machine and in any order."""

    game: str  # as gymnasium names it: SpaceInvaders
    seed: int = 0  # root of every random number
    frame_skip: int = 4  # emulated frames for one stored frame
    stickiness: float = 0.25  # chance per emulated frame that the last action is repeated instead
    policy: str = "random"  # random, noop, or module:function
    episode_frames: int = 3_000  # stored frames after which an episode is cut
    policy_sha256: str = ""  # of the file that defines module:function
    rom_md5: str = ""
    ale_py: str = ""  # version of the emulator

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("frame_skip", 1), ("episode_frames", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} is {value}; allowed is an integer >= {least}")
        if not 0 <= self.stickiness < 1:
            raise ValueError(f"stickiness is {self.stickiness}; allowed is a number >= 0 and < 1")

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def differences(self, other: Recipe) -> str:
        """``frame_skip 4 -> 1, seed 0 -> 3``: every field in which the other recipe is another one."""
        mine, theirs = self.to_json(), other.to_json()
        return ", ".join(f"{name} {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name])


def default_episode_frames(frames: int) -> int:
    """Where to cut an episode so that ``frames`` frames come from at least 20 of them.

    60,000 frames give 3,000, which no game of Boxing reaches (1,786 at frame skip 4); 2,000 frames give 100.
    """
    return max(1, min(frames // MIN_EPISODES, MOST_EPISODE_FRAMES))


def split_of(episode: int) -> str:
    """Whole episodes go to one split: of every 12, one to valid and one to test.

    Episodes are drawn alike, so a fixed pattern is as fair as a drawn one, stays when episodes are added, and leaves
    no split empty from three episodes on.
    """
    return {1: "valid", 2: "test"}.get(episode % 12, "train")


class Draws:
    """Random integers of one episode for one purpose.

    Only ``SeedSequence`` and the raw bits of ``PCG64`` are used: numpy promises that these streams never change, which
    it does not promise for ``Generator.integers``.
    """

    def __init__(self, recipe: Recipe, episode: int, purpose: int) -> None:
        game = int.from_bytes(hashlib.sha256(recipe.game.encode()).digest()[:8], "big")
        self._bits = np.random.PCG64(np.random.SeedSequence([recipe.seed, game, episode, purpose]))

    def below(self, limit: int, count: int) -> NDArray[np.int64]:
        """``count`` integers, uniform in [0, limit), limit < 2**32."""
        high = self._bits.random_raw(count) >> np.uint64(32)
        return ((high * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)

    def happens(self, chance: float, count: int) -> NDArray[np.bool_]:
        """``count`` independent events of this probability, which is below 1."""
        result: NDArray[np.bool_] = self._bits.random_raw(count) < np.uint64(int(chance * 2**64))
        return result


ACTIONS, STICKS, POLICY = range(3)  # the purposes of an episode's streams
