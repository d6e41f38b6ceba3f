"""Which episodes are still needed: the first ones that make the frames, no more, whatever comes back first."""

from __future__ import annotations

from typing import Any


class Plan:
    """Starts from the ``rows`` of the episodes that are there, by number."""

    def __init__(self, rows: dict[int, dict[str, Any]], frames: int, episode_frames: int) -> None:
        self._rows = dict(rows)
        self._frames, self._most = frames, episode_frames

    def add(self, row: dict[str, Any]) -> None:
        """An episode is there."""
        self._rows[row["episode"]] = row

    @property
    def frames(self) -> int:
        """Frames that are there, not more than are needed."""
        return min(self._frames, sum(row["frames"] for row in self._rows.values()))

    def complete(self) -> list[dict[str, Any]] | None:
        """The episodes of the collection in order, the last one maybe too long; None while one is missing."""
        rows: list[dict[str, Any]] = []
        frames = 0
        while frames < self._frames:
            row = self._rows.get(len(rows))
            if row is None:
                return None
            rows.append(row)
            frames += row["frames"]
        return rows

    def next(self, in_flight: set[int]) -> int | None:
        """The episode to play next; None when those in flight will probably do.

        How long an episode will be is not known before it is played: those that are there tell.
        """
        lengths = [row["frames"] for row in self._rows.values()]
        typical = sum(lengths) / len(lengths) if lengths else self._most
        expected, episode = 0.0, 0
        while expected < self._frames:
            if episode not in self._rows and episode not in in_flight:
                return episode
            expected += self._rows[episode]["frames"] if episode in self._rows else typical
            episode += 1
        return None
