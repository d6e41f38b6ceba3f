"""Frames, frames per second and time left on stderr: a line that changes on a terminal, now and then one elsewhere."""

from __future__ import annotations

import sys
import time

SECONDS = 10.0  # between two lines where there is no terminal


class Progress:
    """Counts up to ``total`` frames, of which ``before`` were there when we began."""

    def __init__(self, what: str, total: int, before: int = 0) -> None:
        self._what, self._total, self._before = what, total, before
        self._start = self._shown = time.monotonic()
        self._live = sys.stderr.isatty()
        self._done = before
        self._first: tuple[float, int] | None = (
            None  # when the first frames came, and how many: workers need time to start
        )

    @property
    def rate(self) -> float:
        """Frames per second since we began."""
        return (self._done - self._before) / max(1e-9, time.monotonic() - self._start)

    def update(self, done: int) -> None:
        """Say how many frames there are."""
        self._done = done
        now = time.monotonic()
        self._first = self._first or (now, done)
        if now - self._shown >= (0.2 if self._live else SECONDS):
            self._shown = now
            rate = (done - self._first[1]) / max(1e-9, now - self._first[0])
            left = f", {rate:,.0f} frames/s, {(self._total - done) / rate:.0f} s left" if rate else ""
            line = f"{self._what}: {done:,} of {self._total:,} frames{left}"
            print(f"\r{line:<78}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say something in a line of its own."""
        self._wipe()
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal clean; what came of it is for the caller to say."""
        self._wipe()

    def _wipe(self) -> None:
        if self._live:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
