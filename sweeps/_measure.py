"""What a configuration costs on this machine: a step's time, memory at its peak, the size of a checkpoint."""

from __future__ import annotations

import importlib
import itertools
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sweeps._trial import task_of
from vqvae_core.checkpoint import save
from vqvae_core.overrides import first_line, with_overrides
from vqvae_core.train import fit

SHORT_SECONDS = 2.0  # after which the short form takes no further step
NO_MEMORY = ("allocate memory", "could not create a primitive")  # as torch says it, and oneDNN
HEADROOM = 0.9  # of a memory that may be planned for


@dataclass(frozen=True)
class Measured:
    """A corner's cost. Memory is the GPU's where there is one, else the process's."""

    seconds: float  # a step of the whole batch, median
    evaluation: float  # seconds of one report, 0 where none was made
    memory: int  # bytes at the peak
    free: int  # bytes that a trial alone on such a device or machine could have
    checkpoint: int  # bytes on disk


class TooLarge(MemoryError):
    """A configuration that does not fit where it was measured."""


def measure(config: Mapping[str, Any], steps: int, short: bool = False) -> Measured:
    """Train a configuration for some steps on this machine, and evaluate it unless that is to be ``short``.

    Raises ``TooLarge`` when the memory of the device is not enough. To be called in a process of its own: once oneDNN
    was refused memory, it stays broken for as long as the process lives.
    """
    # As the first optimiser does; not under the limit, where an import can break in its midst.
    importlib.import_module("torch._dynamo")
    # Nor are OpenMP's threads started there: where one cannot be, it ends the process.
    torch.zeros(1 << 20).add_(1)
    experiment, dataset = task_of(config)
    batch = experiment.train.batch_size
    # So small a learning rate that nothing diverges, for it costs what any other does.
    few = {"train.images": steps * batch, "train.eval_every": steps * batch, "train.lr": 1e-6}
    experiment = with_overrides(experiment, few)
    times: list[float] = []

    def watch(images_seen: int) -> bool:
        times.append(time.perf_counter())
        slow = len(times) > 1 and times[-1] - began > SHORT_SECONDS  # the first step has much to load: it tells nothing
        return short and (slow or images_seen >= (steps - 1) * batch)

    reset_peak()
    began = time.perf_counter()
    with memory_limited():
        report = list(fit(experiment, None, dataset, watch))[-1]
    ended = time.perf_counter()
    laps = [after - before for before, after in itertools.pairwise(times)]
    memory, free = peak()
    folder = Path(tempfile.mkdtemp())
    try:
        save(folder / "checkpoint", report.state, report.metrics, dataset.shape)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    finally:
        shutil.rmtree(folder)
    evaluation = ended - times[-1] if report.metrics else 0.0
    return Measured(statistics.median(laps), evaluation, memory, free, size)


@contextmanager
def memory_limited() -> Iterator[None]:
    """``TooLarge`` where torch asks for more than the machine has, instead of the kernel's choice of whom to kill."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    free = int(HEADROOM * memory_left())
    if free:
        most = kibibytes("/proc/self/status", "VmData") + free
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise TooLarge(first_line(error)) from None
    except RuntimeError as error:
        if not any(text in str(error) for text in NO_MEMORY):
            raise
        raise TooLarge(first_line(error)) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def reset_peak() -> None:
    """From now on, ``peak`` knows of what follows only."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # of Linux alone
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> tuple[int, int]:
    """Bytes that this process had at most, and bytes that it could have: of the GPU if there is one."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        # What the allocator reserved it keeps; the rest of what is taken is the context of CUDA.
        return max(total - free, torch.cuda.max_memory_reserved()), total
    memory, own = kibibytes("/proc/self/status", "VmHWM"), kibibytes("/proc/self/status", "VmRSS")
    return memory, memory_left() + own


def memory_left() -> int:
    """Bytes that this machine, or this container, has left."""
    left, folder = kibibytes("/proc/meminfo", "MemAvailable"), Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no such files, or the word "max"
        left = min(left, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    return max(0, left)


def kibibytes(path: str, name: str) -> int:
    """A figure of Linux in bytes; 0 elsewhere, where memory is not planned."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(path).read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024
    return 0
