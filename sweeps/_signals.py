"""Ctrl-C, SIGTERM and a lost terminal, from a driver's first line to its last."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """The first signal ends what the driver does at that moment, in order; a second one ends it at once.

    While trials run, ``instead`` is told, and they save; at any other time it is a ``KeyboardInterrupt``, whichever
    signal it was. After the second, whoever had the signals before has them again.
    """

    def __init__(self) -> None:
        self.numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
            self.numbers.append(signal.SIGHUP)
        self._before: dict[signal.Signals, Any] = {}
        self._came = False
        self._instead: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in self.numbers}
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        if isinstance(error, SystemExit) and error.code == signal.SIGTERM:  # what Ray makes of one, while it starts
            raise KeyboardInterrupt from None

    def take(self) -> None:
        """Have the signals, also where Ray has taken SIGTERM for itself meanwhile, as ``ray.init`` does."""
        for number in self.numbers:
            signal.signal(number, self._handle)

    @contextmanager
    def tell(self, instead: Callable[[], None]) -> Iterator[None]:
        """Within the block, the first signal calls ``instead`` and nothing more.

        One that came before, and was swallowed by a library that catches everything, counts.
        """
        self.take()
        self._instead = instead
        try:
            if self._came:
                instead()
            yield
        finally:
            self._instead = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._came = self._came, True
        if self._instead and not again:
            self._instead()
            return
        if again:
            self._give_back()
        raise KeyboardInterrupt

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
