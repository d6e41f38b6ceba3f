"""The further quantisers behind the one interface: residual codes, codes in few dimensions, and FSQ."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_core.config import VQVAEConfig, fsq_levels
from vqvae_core.quantize import Quantized, Quantizer, VectorQuantizer


def quantizer(config: VQVAEConfig) -> Quantizer:
    """The quantiser of a configuration, for encoder outputs (B, ``config.latent_channels``, H, W)."""
    if config.quantizer == "fsq":
        return Projected(config, FSQ(config), len(fsq_levels(config)))
    inner = replace(config, code_dim=config.projected_dim or config.code_dim, projected_dim=0)
    found = ResidualQuantizer(inner) if config.residual else VectorQuantizer(inner)
    return Projected(config, found, config.projected_dim) if config.projected_dim else found


class ResidualQuantizer(Quantizer):
    """G codebooks for the same channels: each codes what the ones before have left (Zeghidour et al. 2021)."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        one = replace(config, codes_per_position=1, residual=False)
        self.stages = nn.ModuleList(VectorQuantizer(one) for _ in range(config.codes_per_position))

    @property
    def ready(self) -> bool:
        return all(stage.ready for stage in self._stages())

    def forward(self, z: Tensor) -> Quantized:
        """Quantise encoder outputs (B, D, H, W); losses are means over the codebooks."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            left, total, answers = z, torch.zeros_like(z), []
            for stage in self._stages():
                answers.append(stage(left))
                codes = answers[-1].vectors.detach()
                total, left = total + codes, left - codes
            return Quantized(
                total + (z - z.detach()),
                torch.cat([answer.indices for answer in answers], 1),
                torch.stack([answer.codebook_loss for answer in answers]).mean(0),
                torch.stack([answer.commitment_loss for answer in answers]).mean(0),
            )

    def decode(self, indices: Tensor) -> Tensor:
        total = torch.zeros(())
        for number, stage in enumerate(self._stages()):
            total = total.to(indices.device) + stage.decode(indices[:, number : number + 1])
        return total

    @torch.no_grad()
    def start(self, z: Tensor, generator: torch.Generator) -> None:
        left = z.float()
        for stage in self._stages():
            stage.start(left, generator)
            left = left - stage(left).vectors
            stage.forget()

    def update(self, generator: torch.Generator) -> int:
        return sum(stage.update(generator) for stage in self._stages())

    def _stages(self) -> list[VectorQuantizer]:
        return list(self.stages)  # type: ignore[arg-type]


class Projected(Quantizer):
    """Codes in few dimensions (Yu et al. 2021, 3.1): each group's D channels are projected before and after."""

    def __init__(self, config: VQVAEConfig, inner: Quantizer, dim: int) -> None:
        super().__init__()
        groups = config.latent_channels // config.code_dim
        self.down = nn.Conv2d(config.latent_channels, groups * dim, 1, groups=groups)
        self.inner = inner
        self.up = nn.Conv2d(groups * dim, config.latent_channels, 1, groups=groups)

    @property
    def ready(self) -> bool:
        return self.inner.ready

    def forward(self, z: Tensor) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            found: Quantized = self.inner(self.down(z.float()))
            return replace(found, vectors=self.up(found.vectors.contiguous()))

    def decode(self, indices: Tensor) -> Tensor:
        with torch.autocast(indices.device.type, enabled=False):
            # Contiguous, as there: a convolution rounds otherwise where memory is laid out otherwise.
            vectors: Tensor = self.up(self.inner.decode(indices).contiguous())
            return vectors

    @torch.no_grad()
    def start(self, z: Tensor, generator: torch.Generator) -> None:
        with torch.autocast(z.device.type, enabled=False):
            self.inner.start(self.down(z.float()), generator)

    def update(self, generator: torch.Generator) -> int:
        return self.inner.update(generator)


class FSQ(Quantizer):
    """Finite scalar quantisation (Mentzer et al. 2023): each dimension is rounded to a few levels; no codebook.

    A code is the number whose digits are the dimensions' levels, the first one the least significant.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        levels = torch.tensor(fsq_levels(config))
        self.levels: Tensor
        self.basis: Tensor
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", F.pad(levels.cumprod(0)[:-1], (1, 0), value=1), persistent=False)

    @property
    def ready(self) -> bool:
        return True

    def forward(self, z: Tensor) -> Quantized:
        """Quantise (B, G * d, H, W), where d is the number of dimensions with levels."""
        with torch.autocast(z.device.type, enabled=False):
            bounded = self._bound(z.float().unflatten(1, (-1, len(self.levels))))
            rounded = bounded.round()
            indices = ((rounded + self._half()).long() * self._along(self.basis)).sum(2)  # B G H W
            # Exactly what ``decode`` answers in value; the gradient is that of the bounded numbers.
            values = rounded / self._half() + (bounded - bounded.detach()) / self._half()
            none = z.new_zeros(len(z), dtype=torch.float32)
            return Quantized(values.flatten(1, 2), indices, none, none)

    def decode(self, indices: Tensor) -> Tensor:
        digits = (indices[:, :, None] // self._along(self.basis)) % self._along(self.levels)
        return ((digits - self._half()) / self._half()).flatten(1, 2)

    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Nothing: there is no codebook."""

    def update(self, generator: torch.Generator) -> int:
        return 0

    def _bound(self, z: Tensor) -> Tensor:
        """Each dimension between its least and its greatest level; an even number of levels is shifted by half."""
        levels = self._along(self.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset

    def _half(self) -> Tensor:
        return self._along(self.levels) // 2

    @staticmethod
    def _along(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)
