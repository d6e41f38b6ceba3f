"""One game, played at the emulator's own speed; an episode is the same whatever was played before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from atari_collect.games import find_rom
from atari_collect.screens import ScreenWriter


@dataclass(frozen=True)
class Played:
    """What was done in an episode of n stored frames, and what came of it."""

    actions: NDArray[np.uint8]  # (n, frame_skip): ALE's number of the action of every emulated frame
    rewards: NDArray[np.int32]  # (n,): points won between the last stored frame and this one
    game_over: bool  # False where the episode was cut


class Emulator:
    """ALE without its wrapper: palette screens into a buffer of ours, and no chance of its own.

    Raises ``ValueError`` as ``find_rom`` does.
    """

    def __init__(self, game: str) -> None:
        rom = find_rom(game)
        from ale_py import ALEInterface, LoggerMode

        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale = ALEInterface()
        # We draw the stickiness, so that the action that was executed is known and no state outlives an episode.
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.setInt("random_seed", 0)
        self._ale.loadROM(rom.path)
        self._ale.reset_game()
        self._start = self._ale.cloneState()
        self.rom_md5 = rom.md5
        self.actions: tuple[int, ...] = tuple(action.value for action in self._ale.getMinimalActionSet())
        self.height, self.width = self._ale.getScreenDims()

    def reset(self) -> None:
        """Back to the state after power-on."""
        # Neither is enough by itself. After reset_game alone, 22 games (Pitfall II, Tennis, ...) start with other
        # memory each time; after restoreState alone, 2 games (Tetris, Q*bert) keep something of the game before.
        self._ale.reset_game()
        self._ale.restoreState(self._start)

    def rgb(self) -> NDArray[np.uint8]:
        """The screen in colour, (H, 160, 3) uint8."""
        screen: NDArray[np.uint8] = self._ale.getScreenRGB()
        return screen

    def ram(self) -> NDArray[np.uint8]:
        """The console's memory, (128,) uint8."""
        memory: NDArray[np.uint8] = self._ale.getRAM()
        return memory

    def play(self, rows: Iterable[Sequence[int]], writer: ScreenWriter) -> Played:
        """Play from the start: one row of actions gives one stored screen, until the rows or the game end.

        ``rows`` may look at the emulator before it gives the next row. The screens go to ``writer``.
        """
        act, screen, game_over, add = self._ale.act, self._ale.getScreen, self._ale.game_over, writer.add
        done: list[Sequence[int]] = []
        rewards: list[int] = []
        over = False
        self.reset()
        for row in rows:
            reward = 0
            for action in row:
                reward += act(action)
            screen(writer.screen)
            add()
            done.append(row)
            rewards.append(reward)
            if game_over():
                over = True
                break
        return Played(np.array(done, np.uint8), np.array(rewards, np.int32), over)


def emulator_version() -> str:
    """The version of ale-py; ``ValueError`` when it is not installed."""
    try:
        return version("ale-py")
    except ImportError:
        raise ValueError("Atari frames need ale-py: pip install 'vqsweep[atari]'") from None
