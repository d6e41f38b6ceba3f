"""Collecting Atari frames: against gymnasium + OpenCV, the bare emulator, one actor, and no Ray.

Run:  python -m benchmarks.collect --json      (needs ale-py, gymnasium, opencv; Ray and psutil for the last rows)

"Collect" is everything up to the shard on disk: emulator, lossless full-resolution screens, compression, SHA-256,
fsync. "Open" decodes that shard to 84 x 84 RGB. The baseline steps ``ALE/Boxing-v5`` and resizes with INTER_AREA; it
throws its frames away, except where it is said to store them: then it compresses and hashes as much as we do, so that
both go all the way from the emulator to stored frames and to 84 x 84 RGB. Both count CPU seconds of this process, all
threads; ratios are medians over rounds in which every case had its turn.

Not taken, as measured here: the same in numba saves 3 us of 330 a frame and takes more than a second to import.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from atari_collect import shard
from atari_collect.dataset import make_recipe
from atari_collect.episode import Player
from atari_collect.frames import Painter
from atari_collect.policies import executed_actions
from atari_collect.resize import View
from atari_collect.screens import Packed
from benchmarks._harness import Row, faster, interleaved, parser, show

GAME = "Boxing"
RAW_BYTES = 84 * 84 * 3
BYTES_GOAL = 250  # a frame
SAMPLES_GOAL = 300_000  # frames/s, in random batches of 128


class Ours:
    """Collects episode after episode, as a real run does, and opens them."""

    def __init__(self, frame_skip: int, frames: int, folder: Path) -> None:
        self.player = Player(make_recipe(GAME, 60_000, frame_skip=frame_skip, episode_frames=frames))
        self.folder, self.episode = folder, 0
        self.painter: Painter | None = None
        self.row: dict = {}
        self.images = np.zeros(0, np.uint8)

    def collect(self) -> None:
        played = self.player.play(self.episode)
        shard.write(self.folder, played)
        self.row = played.row
        self.episode += 1

    def open(self) -> None:
        changed, pieces = shard.read_arrays(self.folder, self.row, "changed", "pieces")
        self.painter = self.painter or Painter(tuple(self.row["screen"]), self.row["palette"], View())
        for images in self.painter.images(changed, pieces):
            self.images = images  # and forget them, as the baseline does


class Gymnasium:
    """The usual way: the environment's RGB screens, resized by OpenCV."""

    def __init__(self, frame_skip: int, frames: int) -> None:
        import ale_py
        import cv2
        import gymnasium

        cv2.setNumThreads(1)
        gymnasium.register_envs(ale_py)
        self.env = gymnasium.make(f"ALE/{GAME}-v5", frameskip=frame_skip, obs_type="rgb", disable_env_checker=True)
        self.env.reset(seed=0)
        self.resize = lambda screen, image: cv2.resize(screen, (84, 84), image, interpolation=cv2.INTER_AREA)
        self.actions = np.random.default_rng(0).integers(18, size=frames).tolist()
        self.images = np.empty((frames, 84, 84, 3), np.uint8)

    def step(self) -> None:
        for i, action in enumerate(self.actions):
            screen, _, terminated, truncated, _ = self.env.step(action)
            self.resize(screen, self.images[i])
            if terminated or truncated:
                self.env.reset()

    def store(self) -> None:
        """What one would do with an episode's frames: compress them as fast as zstd does, and hash them."""
        Packed.of("images", self.images)


class BareEmulator:
    """Nothing but ``act``, with the actions of our first episode: what no collector can be faster than."""

    def __init__(self, player: Player) -> None:
        self.emulator = player.emulator
        self.actions = list(executed_actions(player.recipe, 0, player.emulator, None))

    def step(self) -> None:
        act = self.emulator._ale.act
        self.emulator.reset()
        for row in self.actions:
            for action in row:
                act(action)


Seconds = dict[str, np.ndarray]  # of each case, by round


def rounds(functions: Mapping[str, Callable[[], object]], count: int) -> Seconds:
    """CPU seconds of each function in each of ``count`` rounds, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(count + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            seconds[name].append(time.process_time() - start)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def against(case: str, ours: np.ndarray, baseline: np.ndarray, goal: float | None, note: str = "") -> Row:
    """A row whose ratio is the median of each round's: what slows the whole machine for a while slows both."""
    ratio = float(np.median(baseline / ours))
    return Row(case, float(np.median(ours)), float(np.median(baseline)), "us", ratio, goal, note)


def per_core(frame_skip: int, frames: int, goal: float, limit: float, count: int) -> list[Row]:
    """CPU time per stored frame, everything included; ``limit`` is the goal for the share of the emulator's rate."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Ours(frame_skip, frames, Path(folder)), Gymnasium(frame_skip, frames)
        bare = BareEmulator(ours.player)
        functions = {
            "collect": ours.collect,
            "open": ours.open,
            "gymnasium": theirs.step,
            "store": theirs.store,
            "emulator": bare.step,
        }
        us = {name: value / frames * 1e6 for name, value in rounds(functions, count).items()}
        stored = ours.row["bytes"] / ours.row["frames"]
    assert ours.row["frames"] == frames, "the game ended too early for this benchmark"
    name, both = f"frame skip {frame_skip}", us["collect"] + us["open"]
    stored_too = us["gymnasium"] + us["store"]
    share = f"{np.median(us['emulator'] / us['collect']):.0%} of the emulator's rate"
    rows = [
        against(f"{name}: collect / gymnasium + cv2 area", us["collect"], us["gymnasium"], goal, _rate(us["collect"])),
        against(f"{name}: collect and open / the same, stored", both, stored_too, goal, _rate(both)),
        against(f"{name}: collect and open / the same, thrown away", both, us["gymnasium"], None, _rate(both)),
        against(f"{name}: collect / bare emulator", us["collect"], us["emulator"], limit, share),
    ]
    if frame_skip == 4:
        rows.append(faster("bytes a frame / raw 84x84 RGB", stored, RAW_BYTES, "B", RAW_BYTES / BYTES_GOAL))
    return rows


def _rate(us: np.ndarray) -> str:
    return f"{1e6 / np.median(us):,.0f} frames/s"


def sampling(repeats: int) -> Row:
    """Random batches of 128 from a memory-mapped file against the same from memory."""
    batches, size, count = 200, 128, 20_000
    draws = np.random.default_rng(0).integers(count, size=(batches, size))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        memory = np.random.default_rng(0).integers(256, size=(count, 84, 84, 3), dtype=np.uint8)
        np.save(path, memory)
        mapped = np.load(path, mmap_mode="r")

        def read(source: np.ndarray) -> None:
            for batch in draws:
                source[batch]

        seconds = interleaved(
            {"mapped": lambda: read(mapped), "memory": lambda: read(memory)}, repeats, time.process_time
        )
    rate = batches * size / seconds["mapped"]
    note = f"{rate:,.0f} frames/s, {'above' if rate >= SAMPLES_GOAL else 'BELOW'} {SAMPLES_GOAL:,}"
    us = {name: value / batches * 1e6 for name, value in seconds.items()}
    return faster("random batch of 128: memory map / memory", us["mapped"], us["memory"], "us", 0.9, note)


def with_ray(repeats: int) -> list[Row]:
    """One actor against none in CPU time, and two against one in time on the wall."""
    try:
        import psutil
        import ray

        from atari_collect.actors import RayActors
    except ImportError as error:
        print(f"no rows about Ray: {error}")
        return []
    recipe, episodes = make_recipe(GAME, 60_000), 4
    player = Player(recipe)

    @contextmanager
    def pools(*counts: int) -> Iterator[list[Callable[[], None]]]:
        """Functions that collect the episodes with so many actors, in a Ray that has a CPU for each."""
        cpus = sum(counts)
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
        with tempfile.TemporaryDirectory() as name:
            actors = [RayActors(recipe, Path(name), count) for count in counts]
            yield [partial(play, pool) for pool in actors]
            for pool in actors:
                pool.close()
        ray.shutdown()

    def play(pool: RayActors) -> None:
        back = 0
        for episode in range(episodes):
            if not pool.free():
                back += len(pool.wait())
            pool.submit(episode)
        while back < episodes:
            back += len(pool.wait())

    def cpu() -> float:
        """CPU seconds of this process and of all that it started, Ray's own servers included."""
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in family)

    with tempfile.TemporaryDirectory() as folder, pools(1) as (one,):

        def alone() -> None:
            for episode in range(episodes):
                shard.write(Path(folder), player.play(episode))

        spent = interleaved({"alone": alone, "one": one}, repeats, cpu)
    with pools(1, 2) as (one, two):
        wall = interleaved({"one": one, "two": two}, repeats)
    load = f"load {os.getloadavg()[0]:.1f}"
    overhead = f"{spent['one'] / spent['alone'] - 1:.1%} of CPU for Ray, its servers included"
    return [
        faster(f"{episodes} episodes: one Ray actor / no Ray, CPU", spent["one"], spent["alone"], "s", 0.97, overhead),
        faster(f"{episodes} episodes: two actors / one, wall", wall["two"], wall["one"], "s", None, load),
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--no-ray", action="store_true", help="leave out the rows about Ray")
    chosen = options.parse_args()
    count = 3 * chosen.repeats  # a quarter of a second to one second each
    rows = [*per_core(1, 3000, 2.0, 0.68, count), *per_core(4, 1700, 1.3, 0.88, count), sampling(chosen.repeats)]
    if not chosen.no_ray:
        rows += with_ray(chosen.repeats)
    show("collect", rows, chosen.json)


if __name__ == "__main__":
    main()
