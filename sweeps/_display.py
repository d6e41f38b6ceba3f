"""What a user sees while a sweep runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sweeps._board import Board, Row
from sweeps._plan import point_text


def clock(seconds: float) -> str:
    """``1:02:03`` or ``4:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def number(value: float, digits: int = 4) -> str:
    """A figure, or a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def progress(board: Board) -> str:
    """``5 of 12 done (3 stopped early), best 3.912, about 1:10 left``."""
    parts = [f"{board.ended} of {board.planned} done"]
    early = [f"{board.count(state)} {word}" for state, word in WORDS.items() if board.count(state)]
    if early:
        parts[0] += f" ({', '.join(early)})"
    best = board.best()
    if best:
        parts.append(f"best {number(best.value)} bits/dim (trial {best.run})")
    left = board.seconds_left()
    if left is not None and board.ended < board.planned:
        parts.append(f"about {clock(left)} left")
    return ", ".join(parts)


WORDS = {"pruned": "stopped early", "failed": "failed"}


class Display(Protocol):
    """Something that shows a board."""

    def say(self, text: str) -> None: ...
    def changed(self, row: Row, event: str) -> None: ...
    def close(self) -> None: ...


class PlainLines:
    """A line for each thing that happens, for logs and pipes."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def say(self, text: str) -> None:
        print(text, flush=True)

    def changed(self, row: Row, event: str) -> None:
        head = f"trial {row.run}"
        match event:
            case "start":
                text = f"{head} starts: {point_text(row.point)} ({row.origin})" + (
                    f", seed {row.seed}" if row.seed else ""
                )
            case "report":
                text = f"{head}  {row.images_seen:,} of {row.budget:,} images  {number(row.value)} bits/dim"
            case _:
                text = f"{head} {WORDS.get(row.state, row.state)}: {row.reason}  [{progress(self.board)}]"
        print(text, flush=True)

    def close(self) -> None:
        pass


class LiveTable:
    """A table that is redrawn in place; at most ``most`` rows, the running and the best ones."""

    def __init__(self, board: Board, most: int = 16) -> None:
        self.board, self.most = board, most
        self.began = time.monotonic()
        self._lock = threading.Lock()
        self._console = Console()
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def changed(self, row: Row, event: str) -> None:
        if event == "end" and row.state == "failed":
            self.say(f"trial {row.run} failed: {row.reason}")

    def close(self) -> None:
        self._live.stop()

    def _table(self) -> Table:
        rows = list(self.board.rows.values())
        shown = sorted(rows, key=lambda row: (row.state != "running", row.value))[: self.most]
        elapsed = time.monotonic() - self.began
        table = Table(caption=f"{progress(self.board)}, {clock(elapsed)} so far", caption_justify="left")
        for name in ("trial", "point", "images", "bits/dim", "perplexity", "state"):
            table.add_column(name, justify="right" if name in ("images", "bits/dim", "perplexity") else "left")
        best = self.board.best()
        for row in shown:
            share = f"{row.images_seen:,} ({100 * row.images_seen / row.budget:.0f}%)"
            state = WORDS.get(row.state, row.state)
            perplexity = row.metrics.get("valid/perplexity", math.inf)
            style = "bold" if row is best else "dim" if row.state in WORDS else ""
            table.add_row(
                row.run, point_text(row.point), share, number(row.value), number(perplexity, 1), state, style=style
            )
        return table


def open_display(board: Board) -> Display:
    """The display that fits where the output goes."""
    return LiveTable(board) if Console().is_terminal else PlainLines(board)
