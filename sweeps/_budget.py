"""How long a sweep may train in all, over all the times that its command was given."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vqvae_core.files import write_whole

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "gpuh": 3600}
ALLOWED = "a number > 0 and s, m, h, d or gpuh, such as 90m, 4h or 20gpuh"
SAVED_EVERY = 5.0  # seconds; so much is not counted when a driver is killed


@dataclass(frozen=True)
class Budget:
    """Seconds of training, by the clock or summed over the GPUs that trials hold."""

    text: str  # as the user wrote it
    seconds: float
    of_gpus: bool

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``90m``, ``4h``, ``20gpuh``; ``ValueError`` for anything else."""
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(s|m|h|d|gpuh)", text.strip().lower())
        amount = float(found[1]) * UNITS[found[2]] if found else 0.0
        if not found or amount <= 0 or not math.isfinite(amount):
            raise ValueError(f"{text!r}; allowed is {ALLOWED}")
        return cls(text.strip(), amount, found[2] == "gpuh")


class Meter:
    """What a sweep has spent, kept in its folder so that it adds up over its drivers.

    ``running`` gives the trials that train at a moment, each of which holds ``gpus`` GPUs.
    """

    def __init__(self, folder: Path, budget: Budget | None, gpus: float, running: Callable[[], int]) -> None:
        self.budget, self.gpus, self.running = budget, gpus, running
        self.seconds = self.gpu_seconds = 0.0
        self._path = folder / "spent.json"
        with suppress(OSError, ValueError, KeyError):  # nothing yet
            before = json.loads(self._path.read_text())
            self.seconds, self.gpu_seconds = float(before["seconds"]), float(before["gpu_seconds"])
        self._last: float | None = None
        self._saved = time.monotonic()

    def tick(self) -> None:
        """Count the time since the last tick; called all the time while trials run."""
        now = time.monotonic()
        if self._last is not None:
            self.seconds += now - self._last
            self.gpu_seconds += (now - self._last) * self.gpus * self.running()
        self._last = now
        if now - self._saved > SAVED_EVERY:
            self.save()

    def rest(self) -> None:
        """Nothing is trained until the next tick."""
        self._last = None
        self.save()

    def save(self) -> None:
        """Write down what is spent; a disk that is full is told by those who write what matters."""
        self._saved = time.monotonic()
        with suppress(OSError):
            write_whole(self._path, json.dumps({"seconds": self.seconds, "gpu_seconds": self.gpu_seconds}))

    @property
    def spent(self) -> bool:
        """Whether the budget, if there is one, is used up."""
        if self.budget is None:
            return False
        return (self.gpu_seconds if self.budget.of_gpus else self.seconds) >= self.budget.seconds

    @property
    def reason(self) -> str:
        """Why the sweep stops when it is."""
        return f"the budget of {self.budget.text} is spent" if self.budget else ""
