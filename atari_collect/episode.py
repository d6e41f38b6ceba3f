"""From a recipe and a number to an episode's shard: the unit of all work, the same wherever it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from atari_collect.emulator import Emulator
from atari_collect.policies import executed_actions, find_policy
from atari_collect.recipe import Recipe
from atari_collect.screens import Colour, Packed, ScreenWriter, UnseenColourError
from atari_collect.shard import Shard, build

BATCH = 64  # screens whose changes are gathered together


class Player:
    """Plays episodes of one recipe.

    Raises ``ValueError`` as ``Emulator`` and ``find_policy`` do, and for another ROM or policy than the recipe's.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.emulator = Emulator(recipe.game)
        self._colours: dict[int, Colour] = {}
        self._policy, policy_sha256 = find_policy(recipe.policy)
        for what, here, there in (
            ("the ROM", self.emulator.rom_md5, recipe.rom_md5),
            (f"the file of {recipe.policy}", policy_sha256, recipe.policy_sha256),
        ):
            if there and here != there:
                raise ValueError(f"{what} is another one than the recipe's: its hash is {here}, not {there}")

    def play(self, episode: int) -> Shard:
        """The episode as the recipe has it."""
        return self._record(episode, lambda: executed_actions(self.recipe, episode, self.emulator, self._policy))

    def replay(self, episode: int, rows: Sequence[Sequence[int]]) -> Shard:
        """The episode that these actions make, one row of ``frame_skip`` of them for each stored frame."""
        return self._record(episode, lambda: rows)

    def _record(self, episode: int, actions: Callable[[], Iterable[Sequence[int]]]) -> Shard:
        emulator = self.emulator
        # A colour may flash between two looks. The first episode looks at every screen and learns nearly all of them;
        # where a later one has another, it is played once more.
        for batch in (BATCH, 1) if self._colours else (1,):
            writer = ScreenWriter(emulator.height, emulator.width, emulator.rgb, self._colours, batch)
            try:
                played = emulator.play(actions(), writer)
                arrays = writer.packed()
            except UnseenColourError:
                continue
            break
        facts: dict[str, Any] = {
            "frames": len(played.rewards),
            "screen": [emulator.height, emulator.width],
            "game_over": played.game_over,
            "reward": int(played.rewards.sum()),
            "repeats": writer.repeats,
            "palette": {str(index): list(colour) for index, colour in sorted(writer.palette.items())},
        }
        arrays += [Packed.of("actions", played.actions), Packed.of("rewards", played.rewards)]
        return build(episode, arrays, facts)
