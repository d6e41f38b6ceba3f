"""Ray actors that play episodes: one episode a task, spread over the nodes, and nobody trusts that they live."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atari_collect import ray_token, shard
from atari_collect.archive import Archive
from atari_collect.episode import Player
from atari_collect.recipe import Recipe

MOST_DEATHS = 5  # actors that may die one after the other without an episode in between

ray_token.send()
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError:
    raise ValueError("--actors needs Ray: pip install 'vqsweep[atari]'; or give --actors 0") from None


class Actor:
    """Plays in a process of its own; writes shards where it sees the driver's folder, else hands them back."""

    def __init__(self, recipe: Recipe, folder: Path, token: str) -> None:
        # Nothing here can fail: an error in a task has its own name at the driver, one in here has not.
        self._recipe, self._folder, self._token = recipe, folder, token
        self._player: Player | None = None

    def play(self, episode: int) -> tuple[dict[str, Any], shard.Shard | None]:
        """The row of an episode; with the shard when it is for the driver to write."""
        self._player = self._player or Player(self._recipe)
        played = self._player.play(episode)
        if not (self._folder / self._token).exists():
            return played.row, played
        shard.write(self._folder, played)
        return played.row, None


class RayActors:
    """Some actors, each with one episode in hand; one that dies is replaced and its episode played again."""

    def __init__(self, recipe: Recipe, folder: Path, count: int) -> None:
        self._folder = folder
        self._token = f".shared-{uuid.uuid4().hex}.tmp"
        (folder / self._token).touch()
        remote = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(Actor)
        self._start = lambda: remote.remote(recipe, folder, self._token)
        self._idle: list[Any] = [self._start() for _ in range(count)]
        self._tasks: dict[Any, tuple[int, Any]] = {}  # of each running task: its episode and its actor
        self._deaths = 0

    def free(self) -> bool:
        return bool(self._idle)

    def busy_with(self) -> set[int]:
        return {episode for episode, _ in self._tasks.values()}

    def submit(self, episode: int) -> None:
        actor = self._idle.pop()
        self._tasks[actor.play.remote(episode)] = episode, actor

    def wait(self) -> list[dict[str, Any]]:
        """Rows of the episodes that came back; raises what a task raised, or ``OSError`` when actors keep dying."""
        if not self._tasks:
            return []
        rows = []
        ready, _ = ray.wait(list(self._tasks), num_returns=1)
        for task in ready:
            episode, actor = self._tasks.pop(task)
            try:
                row, played = ray.get(task)
            except RayTaskError as error:
                raise error.cause from None  # as if it had happened here
            except RayError as error:  # the actor, its node, or the network between us is gone
                self._deaths += 1
                if self._deaths >= MOST_DEATHS:
                    raise OSError(f"{MOST_DEATHS} actors died one after the other; the last: {error}") from None
                ray.kill(actor)
                self._idle.append(self._start())
                self.submit(episode)
                continue
            if played is not None:
                shard.write(self._folder, played)
            self._deaths = 0
            self._idle.append(actor)
            rows.append(row)
        return rows

    def close(self) -> None:
        for actor in [*self._idle, *(actor for _, actor in self._tasks.values())]:
            ray.kill(actor)
        (self._folder / self._token).unlink(missing_ok=True)


@contextmanager
def ray_actors(recipe: Recipe, archive: Archive, count: int, address: str | None) -> Iterator[RayActors]:
    """``count`` actors in the Ray that this process is connected to, else at ``address``, else in a Ray of our own."""
    ours = not ray.is_initialized()
    if ours:
        _connect(count, address)
    actors = None
    try:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < count:
            print(f"this Ray has {cpus} CPUs: {max(1, cpus)} actors instead of {count}", file=sys.stderr)
        actors = RayActors(recipe, archive.episodes.resolve(), max(1, min(count, cpus)))
        yield actors
    finally:
        if actors:
            actors.close()
        if ours:
            ray.shutdown()


def check(address: str | None) -> None:
    """``ValueError`` when the Ray at ``address``, or at ``RAY_ADDRESS``, would not take our token; starts nothing."""
    if why := ray_token.refusal(address or os.environ.get("RAY_ADDRESS") or "local"):
        raise ValueError(why)


def _connect(count: int, address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    check(address)
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address and address != "local":
            ray.init(address=address, **quiet)
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
    except (ConnectionError, ValueError) as error:
        raise ValueError(f"there is no Ray at {address!r}: {error}") from None
    except Exception as error:  # Ray has no name for it: one of its servers did not come up in 30 seconds
        ray.shutdown()
        raise OSError(f"Ray did not start ({error})") from None
