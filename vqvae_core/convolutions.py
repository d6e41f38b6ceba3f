"""The report's encoder and decoder (Section 2), which every model of images here has in common."""

from __future__ import annotations

from torch import Tensor, nn

from vqvae_core.config import ImageModelConfig
from vqvae_core.distributed import GlobalBatchNorm2d

SHRINK = 4  # the encoder's two strides of 2


# A convolution has no bias where batch normalisation follows, which would subtract it again: its gradient would be
# nothing but rounding errors, which Adam makes steps of lr of.


def norm(config: ImageModelConfig) -> nn.Module:
    return GlobalBatchNorm2d(config.hidden) if config.batch_norm else nn.Identity()


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))).

    No ReLU here works in place: the report's code rewrote x, and with it the skip path and the codes that it stood for.
    """

    def __init__(self, config: ImageModelConfig) -> None:
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


def encoder(config: ImageModelConfig, channels: int, latent_channels: int) -> nn.Sequential:
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


def decoder(config: ImageModelConfig, channels: int, latent_channels: int, activation: nn.Module) -> nn.Sequential:
    """Latents (B, latent_channels, h, w) -> what the likelihood's head reads, (B, channels, 4 h, 4 w)."""
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
    if not isinstance(activation, nn.Identity):
        layers.append(activation)
    return nn.Sequential(*layers)
