"""Which device and which arithmetic a configuration means on this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from vqvae_core.config import Experiment, HierarchyConfig

Precision = Callable[[], AbstractContextManager[object]]


def choose_device(experiment: Experiment) -> torch.device:
    """The device that ``train.device`` means on this machine; ``ValueError`` if there is none."""
    wanted = experiment.train.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device is 'cuda'; this machine has no GPU that torch can use, allowed is auto or cpu")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def choose_precision(experiment: Experiment, device: torch.device) -> torch.dtype:
    """The arithmetic that ``train.precision`` means on this device."""
    wanted = experiment.train.precision
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    # Narrow layers lose more to the casts than they gain.
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_gains_by_bfloat16()
    model = experiment.model
    width = model.decoder_hidden if isinstance(model, HierarchyConfig) else model.hidden
    return torch.bfloat16 if fast and width >= 64 else torch.float32


def cpu_gains_by_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 on this CPU, and not only there.

    With AMX, or with AVX-512's instructions on AMD, which compute twice as many products a cycle as those of float32.
    On Intel without AMX they are no faster, and the casts make a convolution take 1.6 times as long.
    """
    if _supported("_is_amx_tile_supported"):
        return True
    return _supported("_is_avx512_bf16_supported") and _is_amd()


def _supported(probe: str) -> bool:
    found = getattr(torch.cpu, probe, None)  # private to torch: it may go
    return bool(found and found())


def _is_amd() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "AuthenticAMD" in cpuinfo.read_text()


def precision_context(device: torch.device, dtype: torch.dtype) -> Precision:
    """What to wrap a model's calls in so that its convolutions run in an arithmetic."""
    if dtype == torch.bfloat16:
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return nullcontext
