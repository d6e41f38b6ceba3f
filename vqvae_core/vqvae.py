"""The report's VQ-VAE (Section 2): strided encoder, quantiser, mirrored decoder, and the loss of Equation 6."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvae_core.config import VQVAEConfig
from vqvae_core.distributed import GlobalBatchNorm2d
from vqvae_core.quantize import VectorQuantizer
from vqvae_core.trainable import Batch, Loss, Trainable

SHRINK = 4  # the encoder's two strides of 2


# A convolution has no bias where batch normalisation follows, which would subtract it again: its gradient would be
# nothing but rounding errors, which Adam makes steps of lr of.


def norm(config: VQVAEConfig) -> nn.Module:
    return GlobalBatchNorm2d(config.hidden) if config.batch_norm else nn.Identity()


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))).

    No ReLU here works in place: the report's code rewrote x, and with it the skip path and the codes that it stood for.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(config.hidden, config.hidden, 3, padding=1, bias=not config.batch_norm),
            norm(config),
            nn.ReLU(),
            nn.Conv2d(config.hidden, config.hidden, 1, bias=not config.batch_norm),
            norm(config),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.block(x)
        return out


def encoder(config: VQVAEConfig, channels: int, latent_channels: int) -> nn.Sequential:
    """Images (B, C, H, W) in [-1, 1] -> (B, latent_channels, H / 4, W / 4)."""
    layers = [
        nn.Conv2d(channels, config.hidden, 4, stride=2, padding=1, bias=not config.batch_norm),
        norm(config),
        nn.ReLU(),
        nn.Conv2d(config.hidden, config.hidden, 4, stride=2, padding=1, bias=not config.batch_norm),
        norm(config),
        nn.ReLU(),
        *(Residual(config) for _ in range(config.residual_blocks)),
    ]
    if latent_channels != config.hidden:
        layers.append(nn.Conv2d(config.hidden, latent_channels, 1))
    return nn.Sequential(*layers)


def decoder(config: VQVAEConfig, channels: int, latent_channels: int) -> nn.Sequential:
    """Codes' vectors (B, latent_channels, h, w) -> images (B, C, 4 h, 4 w) in [-1, 1]."""
    layers: list[nn.Module] = []
    if latent_channels != config.hidden:
        layers.append(nn.Conv2d(latent_channels, config.hidden, 1))
    layers += [
        *(Residual(config) for _ in range(config.residual_blocks)),
        nn.ReLU(),
        nn.ConvTranspose2d(config.hidden, config.hidden, 4, stride=2, padding=1, bias=not config.batch_norm),
        norm(config),
        nn.ReLU(),
        nn.ConvTranspose2d(config.hidden, channels, 4, stride=2, padding=1),
    ]
    if config.output == "tanh":
        layers.append(nn.Tanh())
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class Output(Loss):
    """What the model answers for a batch of images."""

    mean: Tensor  # (B, C, H, W) float32: the reconstruction, in [-1, 1]
    squared_error: Tensor  # (B,): mean squared error per dimension, on images in [-1, 1]
    indices: Tensor  # (B, G, h, w) int64
    latents: Tensor  # (B, G * D, h, w): the encoder's outputs, without a gradient
    codes: Tensor  # (B, G * D, h, w): what stands for them, without a gradient


class VQVAE(Trainable):
    """Encoder, quantiser and decoder for images of a shape (H, W, C); H and W are multiples of 4."""

    def __init__(self, config: VQVAEConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, channels = shape
        if height % SHRINK or width % SHRINK:
            raise ValueError(
                f"images are {width} x {height} pixels; allowed are multiples of {SHRINK}, "
                f"the factor by which the encoder shrinks them"
            )
        self.config, self.shape = config, shape
        self.latent_shape = (config.codes_per_position, height // SHRINK, width // SHRINK)
        latent_channels = config.codes_per_position * config.code_dim
        self.encoder = encoder(config, channels, latent_channels)
        self.quantizer = VectorQuantizer(config)
        self.decoder = decoder(config, channels, latent_channels)

    @property
    def num_latents(self) -> int:
        """M of Equation 7: codes of one image."""
        groups, height, width = self.latent_shape
        return groups * height * width

    def forward(self, images: Tensor) -> Output:
        """Equation 6 for images (B, C, H, W) in [-1, 1].

        Each of its three terms is a mean over its own dimensions, as in the report's code, so that beta weighs the
        same whatever the image's size.
        """
        latents = self.encoder(images)
        quantized = self.quantizer(latents)
        mean = self.decoder(quantized.vectors).float()
        squared_error = (mean - images).pow(2).flatten(1).mean(1)
        loss = squared_error + quantized.codebook_loss + self.config.beta * quantized.commitment_loss
        parts = {"mse": squared_error, "codebook": quantized.codebook_loss, "commitment": quantized.commitment_loss}
        return Output(
            loss,
            parts,
            mean=mean,
            squared_error=squared_error,
            indices=quantized.indices,
            latents=latents.detach(),
            codes=quantized.vectors.detach(),
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes (B, G, h, w) of images (B, C, H, W) in [-1, 1]."""
        indices: Tensor = self.quantizer(self.encoder(images)).indices
        return indices

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Reconstructions (B, C, H, W) in [-1, 1] of codes (B, G, h, w)."""
        mean: Tensor = self.decoder(self.quantizer.decode(indices))
        return mean.float().clamp(-1, 1)

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Before the first step: a codebook among the first batch's encoder outputs, if the configuration says so."""
        if not bool(self.quantizer.started):
            with torch.no_grad():
                self.quantizer.start(self.encoder(batch[0]), generator)

    def after_step(self, generator: torch.Generator) -> None:
        """After each optimiser step: moving averages and dead codes."""
        self.quantizer.update(generator)
