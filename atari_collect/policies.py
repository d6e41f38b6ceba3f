"""Who plays: a random player, nobody, or a Python function of the user's."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from atari_collect.recipe import ACTIONS, POLICY, STICKS, Draws, Recipe

if TYPE_CHECKING:
    from atari_collect.emulator import Emulator

NOOP = 0


class Moment:
    """What a policy may look at before each stored frame."""

    def __init__(self, emulator: Emulator, draws: Draws) -> None:
        self._emulator, self._draws = emulator, draws
        self.step = 0  # stored frames of this episode so far
        self.actions = emulator.actions  # what may be answered: ALE's numbers, 0 is no action

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The screen in colour, (H, 160, 3) uint8."""
        return self._emulator.rgb()

    @property
    def ram(self) -> NDArray[np.uint8]:
        """The console's memory, (128,) uint8."""
        return self._emulator.ram()

    def draw(self, limit: int) -> int:
        """An integer, uniform in [0, limit), from the episode's own stream: the only chance a policy should use."""
        return int(self._draws.below(limit, 1)[0])


Policy = Callable[[Moment], int]


def find_policy(name: str) -> tuple[Policy | None, str]:
    """The function behind ``module:function`` and the SHA-256 of its file; (None, "") for a policy of ours.

    Raises ``ValueError`` for a name that is neither ours nor an importable function.
    """
    if name in ("random", "noop"):
        return None, ""
    module_name, colon, function_name = name.partition(":")
    if not colon:
        raise ValueError(f"policy is {name!r}; allowed is random, noop, or module:function")
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - as `python -m` has it, also under Ray
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        file = inspect.getsourcefile(inspect.unwrap(function))
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"policy {name!r} cannot be imported: {error}") from None
    return function, hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def executed_actions(
    recipe: Recipe, episode: int, emulator: Emulator, policy: Policy | None
) -> Iterator[Sequence[int]]:
    """For each stored frame in turn, the actions of its emulated frames, stickiness included.

    Raises ``ValueError`` when a policy answers with an action that the game does not have.
    """
    limit, skip = recipe.episode_frames, recipe.frame_skip
    sticks = Draws(recipe, episode, STICKS).happens(recipe.stickiness, limit * skip)
    if policy is not None:
        return _asked(
            policy, Moment(emulator, Draws(recipe, episode, POLICY)), sticks.reshape(limit, skip).tolist(), recipe
        )
    wanted = np.zeros(limit * skip, np.uint8)
    if recipe.policy == "random":
        chosen = Draws(recipe, episode, ACTIONS).below(len(emulator.actions), limit)
        wanted = np.asarray(emulator.actions, np.uint8)[chosen].repeat(skip)
    # A sticky frame repeats the last one that was not; before the first of those, nothing is pressed.
    last = np.maximum.accumulate(np.where(sticks, -1, np.arange(limit * skip)))
    done = np.where(last < 0, np.uint8(NOOP), wanted[last])
    return iter(done.reshape(limit, skip).tolist())


def _asked(policy: Policy, moment: Moment, sticks: list[list[bool]], recipe: Recipe) -> Iterator[Sequence[int]]:
    last = NOOP
    for moment.step, row in enumerate(sticks):
        action = policy(moment)
        if action not in moment.actions:
            raise ValueError(f"policy {recipe.policy} answered {action!r}; allowed is one of {moment.actions}")
        done = []
        for stuck in row:
            last = last if stuck else int(action)
            done.append(last)
        yield done
