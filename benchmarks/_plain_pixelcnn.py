"""The plain way to train and sample a prior: what the benchmarks compare with, and nothing else uses.

Our own writing of what is common in public code of this kind: symmetric padding, masks written into the weights at
every forward pass, outputs cropped; the whole network once per sampled position; every batch of images encoded anew.
It is the same function as ``vqvae_core.pixelcnn.PixelCNN`` with one code per position, and can take its weights.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_core.pixelcnn import GatedLayer, PixelCNN


class PlainLayer(nn.Module):
    """A gated layer with full kernels, of which mask A or B is zeroed before use."""

    def __init__(self, channels: int, kernel: int, first: bool, classes: int) -> None:
        super().__init__()
        self.first, half = first, kernel // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (half + 1, kernel), padding=(half, half))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, half + 1), padding=(0, half))
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.label_vertical = nn.Embedding(classes + 1, 2 * channels)
        self.label_horizontal = nn.Embedding(classes + 1, 2 * channels)

    def forward(self, v: Tensor, h: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # mask A: not the current row, not the current position
            self.vertical.weight.data[:, :, -1].zero_()
            self.horizontal.weight.data[:, :, :, -1].zero_()
        rows, columns = v.shape[2:]
        vertical = self.vertical(v)[:, :, :rows]
        horizontal = self.horizontal(h)[:, :, :, :columns] + self.across(vertical)
        v = self._gate(vertical + self.label_vertical(labels)[:, :, None, None])
        out = self.out(self._gate(horizontal + self.label_horizontal(labels)[:, :, None, None]))
        return v, out if self.first else out + h

    @staticmethod
    def _gate(x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)

    def copy_from(self, ours: GatedLayer, bias: Tensor, classes: Tensor) -> None:
        """Take our layer's weights, zeros where it has no tap, and its biases, (2, 2C) and per class (N, 2, 2C)."""
        for mine, theirs in ((self.vertical, ours.vertical), (self.horizontal, ours.horizontal)):
            mine.weight.zero_()
            mine.weight[:, :, : theirs.weight.shape[2], : theirs.weight.shape[3]] = theirs.weight
        self.across.weight.copy_(ours.across.weight)
        self.out.weight.copy_(ours.out.weight)
        for zero in (self.vertical.bias, self.across.bias, self.horizontal.bias, self.out.bias):
            zero.zero_()  # type: ignore[union-attr]
        # The vertical bias must reach the horizontal stack too, so the label's does here as well as in its own gate.
        through = (bias[0] + classes[:, 0]) @ ours.across.weight[:, :, 0, 0].T
        self.label_vertical.weight.copy_(bias[0] + classes[:, 0])
        self.label_horizontal.weight.copy_(bias[1] + classes[:, 1] + through)


class PlainPixelCNN(nn.Module):
    """The same network as ``ours``, with its weights, in the plain style; one code per position."""

    def __init__(self, ours: PixelCNN) -> None:
        super().__init__()
        config, C = ours.config, ours.config.hidden
        self.embedding = nn.Embedding(ours.num_codes, C)
        self.layers = nn.ModuleList(
            PlainLayer(C, config.kernel if i else config.first_kernel, i == 0, ours.num_classes)
            for i in range(config.layers)
        )
        self.output = nn.Sequential(
            nn.Conv2d(C, config.head, 1), nn.ReLU(True), nn.Conv2d(config.head, ours.num_codes, 1)
        )
        bias = ours.bias.view(config.layers, 2, 2 * C)
        classes = ours.classes.weight.view(-1, config.layers, 2, 2 * C)
        heads = ((self.output[0], ours.head[0]), (self.output[2], ours.logits[0]))
        with torch.no_grad():
            self.embedding.load_state_dict(ours.embeddings[0].state_dict())
            for i, (mine, theirs) in enumerate(zip(self.layers, ours.layers, strict=True)):
                cast(PlainLayer, mine).copy_from(cast(GatedLayer, theirs), bias[i], classes[:, i])
            for mine, theirs in heads:
                mine.load_state_dict(theirs.state_dict())

    def forward(self, indices: Tensor, labels: Tensor) -> Tensor:
        """Codes (B, H, W) and labels (B,) -> logits (B, K, H, W)."""
        v = h = self.embedding(indices).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            v, h = layer(v, h, labels)
        return self.output(h)

    @torch.no_grad()
    def generate(self, labels: Tensor, rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """Codes (B, H, W): the whole network once per position."""
        codes = torch.zeros(len(labels), rows, columns, dtype=torch.long)
        for i in range(rows):
            for j in range(columns):
                logits = self(codes, labels)
                probabilities = F.softmax(logits[:, :, i, j], dim=-1)
                codes[:, i, j] = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        return codes


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class PlainEncoder(nn.Module):
    """The report's encoder (its Section 2) and codebook: two 4x4 convolutions of stride 2, two residual blocks."""

    def __init__(self, image_channels: int = 3, channels: int = 256, num_codes: int = 512) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(image_channels, channels, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 4, 2, 1),
            _Residual(channels),
            _Residual(channels),
        )
        self.codebook = nn.Embedding(num_codes, channels)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, 4H, 4W) -> indices (B, H, W) of the nearest codes."""
        z = self.trunk(images).permute(0, 2, 3, 1)
        flat, codes = z.flatten(0, 2), self.codebook.weight
        distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codes.T + codes.pow(2).sum(1)
        return distances.argmin(1).view(z.shape[:3])
