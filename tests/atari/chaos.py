"""Collect the same frames in every way, one of them under a hail of SIGKILLs, and compare the hashes.

Run:  python -m tests.atari.chaos --frames 60000 --kills 20      (some minutes)

Runs with 0, 1 and 2 actors are left alone. A further one with 2 is killed again and again, the driver or one of its
actors, at random moments between its first second and the last array that it opens, and started again by the same
command. One that ends before it is killed loses three of its episodes and its arrays, and goes on as well.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from atari_collect.archive import Archive

WAIT = 300.0  # seconds without a moment to kill at


def collect(out: Path, game: str, frames: int, actors: int) -> psutil.Popen:
    """The command, started, in a Ray of its own."""
    command = [sys.executable, "-m", "atari_collect", "--game", game, "--frames", str(frames)]
    command += ["--actors", str(actors), "--out", str(out), "--address", "local"]
    with log_of(out).open("ab") as log:
        return psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


def log_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.log")


def finish(run: psutil.Popen, again: Callable[[], psutil.Popen], out: Path) -> None:
    """Wait for a run, which should end well; on a busy machine Ray may need more than one attempt to start."""
    for _ in range(5):
        if not (status := run.wait()):
            return
        said = log_of(out).read_text()
        if "Ray did not start" not in said.splitlines()[-1]:
            break
        run = again()
    raise SystemExit(f"error: the run into {out} ended with status {status}; it said:\n{said}")


def fingerprint(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder but its lock."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def family(run: psutil.Popen) -> list[psutil.Process]:
    try:
        return run.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def actors_of(run: psutil.Popen) -> list[psutil.Process]:
    """The run's actors that live; Ray names their processes ``ray::Actor``."""
    found = []
    for process in family(run):
        try:
            if process.cmdline() and process.cmdline()[0].startswith("ray::Actor"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(run: psutil.Popen) -> None:
    """Kill the driver, and what Ray's own watch on its parent did not end."""
    rest = family(run)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(rest, timeout=10)
    for process in alive:
        process.kill()


def kill_often(out: Path, game: str, frames: int, kills: int, seed: int) -> dict[str, int]:
    """Collect into ``out`` while ``kills`` processes are killed; how many of which kind."""
    chance = random.Random(seed)
    killed = {"driver": 0, "actor": 0}
    start = partial(collect, out, game, frames, 2)
    archive, run = Archive(out), start()
    episodes = 0  # that a whole collection has, when known
    while sum(killed.values()) < kills:
        victim = chance.choice(["driver", "actor"])
        # A moment is a number of episodes on disk, or for the start and for the opening of the arrays a time.
        goal = chance.choice([0, chance.randint(1, episodes or 20), 10**9])
        delay, patience = chance.uniform(0, 3), time.monotonic() + (WAIT if goal < 10**9 else chance.uniform(0, 20))
        while run.poll() is None and time.monotonic() < patience:
            there = len(list(archive.episodes.glob("*.json"))) >= goal
            if there and (victim == "driver" or actors_of(run)):
                break
            time.sleep(0.05)
        time.sleep(delay)
        if run.poll() is not None:
            finish(run, start, out)
            episodes = len(archive.manifest().episodes)
            for episode in chance.sample(range(episodes), 3):
                archive.drop(episode)
            (out / "dataset.json").unlink(missing_ok=True)
            run = start()
            continue
        actors = actors_of(run)
        if victim == "actor" and actors:
            chance.choice(actors).kill()
            killed["actor"] += 1
        else:
            end(run)
            killed["driver"] += 1
            run = start()
        print(f"killed {killed['driver']} drivers, {killed['actor']} actors", flush=True)
    finish(run, start, out)
    return killed


def main(arguments: list[str]) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--game", default="Boxing")
    options.add_argument("--frames", type=int, default=60_000)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--alone", type=int, nargs="+", default=[0, 1, 2], help="actors of the runs left alone")
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    options.add_argument("--out", type=Path, default=Path("chaos"), help="a new folder, deleted at the end (chaos)")
    chosen = options.parse_args(arguments)
    chosen.out.mkdir(parents=True)
    try:
        found = {}
        for actors in chosen.alone:
            folder = chosen.out / f"actors-{actors}"
            start = partial(collect, folder, chosen.game, chosen.frames, actors)
            finish(start(), start, folder)
            found[f"--actors {actors}"] = folder
        killed = kill_often(chosen.out / "killed", chosen.game, chosen.frames, chosen.kills, chosen.seed)
        found[f"{killed['driver']} drivers and {killed['actor']} actors killed"] = chosen.out / "killed"
        files = {case: fingerprint(folder) for case, folder in found.items()}
        for case, folder in found.items():
            print(f"{Archive(folder).manifest().dataset_hash}  {len(files[case])} files  {case}")
        first = next(iter(files.values()))
        if any(each != first for each in files.values()):
            raise SystemExit("error: the files differ")
        print("every file is the same")
    finally:
        shutil.rmtree(chosen.out)


if __name__ == "__main__":
    main(sys.argv[1:])
