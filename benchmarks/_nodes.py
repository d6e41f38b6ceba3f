"""Ray nodes for tests and benchmarks, on this machine, each with its own ports and folder, and ended with them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks._servers import PATIENCE, free_port, in_its_own_group

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent


def plain_environment(home: Path, **more: str) -> dict[str, str]:
    """A user's environment with another home, in which nothing of Ray, of a sweep or of a tracker is set."""
    own = ("RAY_", "VQSWEEP_", "MLFLOW_", "TUNE_", "OMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    paths = {"PATH": f"{PROGRAMS}{os.pathsep}{kept.get('PATH', '')}", "PYTHONPATH": str(ROOT), "HOME": str(home)}
    return {**kept, **paths, "RAY_USAGE_STATS_ENABLED": "0", **more}


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for Ray's sockets, and whose processes are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        yield folder
    finally:
        end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end_processes_of(folder: Path) -> None:
    """Kill what has this very folder in its command line: the parts of a node outlive a parent that was killed."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(folder).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)


@contextmanager
def ray_node(
    folder: Path, environment: Mapping[str, str], *flags: str, before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """``ray start`` with some flags, its files in ``folder``; ``before`` are words to be put before the command."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "node.log"
    ports = ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
    command = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    with in_its_own_group([*command, *ports, *flags], environment, log) as node:
        end = time.monotonic() + PATIENCE
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        try:
            yield node
        finally:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)  # asked to end, it takes more than twenty seconds


@contextmanager
def ray_head(folder: Path, environment: Mapping[str, str], *flags: str) -> Iterator[str]:
    """A head node; gives its address."""
    port = free_port()
    own = [f"--port={port}", f"--dashboard-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    with ray_node(folder, environment, "--head", *own, f"--temp-dir={folder}", *flags):
        yield f"127.0.0.1:{port}"
