"""A second VQ-VAE on the code maps of the first (2.4): a few codes for a whole image, and a PixelCNN decoder.

Letters: B maps of G codes at h x w positions, of K1 values each (the first stage's); M codes, of K values and D
dimensions each, that a map is compressed to, or each of h' x w' cells of it; h' and w' are 1 where there are none.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_core.config import HierarchyConfig, VQVAEConfig
from vqvae_core.convolutions import Residual
from vqvae_core.first_stage import FirstStage
from vqvae_core.pixelcnn import PixelCNN
from vqvae_core.quantize import VectorQuantizer
from vqvae_core.trainable import Batch, Loss, Trainable

MAP_CHANNELS = 32  # of the map that conditions the decoder, where it is a map


class Hierarchy(Trainable):
    """Code maps -> M codes -> a distribution over code maps.

    The encoder reads learned embeddings of the first stage's codes: their numbers have no order. The decoder predicts
    each code from the codes before it and the M codes; what it is to predict reaches it by no other way.

    The first stage is at hand for the images that maps stand for; its weights are not this model's.
    """

    code_weights: Tensor

    def __init__(self, config: HierarchyConfig, first: FirstStage) -> None:
        super().__init__()
        self.config = config
        self.__dict__["first"] = first  # past torch, which would make its weights ours
        groups, height, width = first.latent_shape
        network = VQVAEConfig(hidden=config.hidden, residual_blocks=config.residual_blocks)  # of the first one's kind
        halvings = min(config.halvings, min(height, width).bit_length() - 1)
        self.embeddings = nn.ModuleList(nn.Embedding(first.num_codes, config.hidden) for _ in range(groups))
        self.encoder = nn.Sequential(
            *(
                layer
                for _ in range(halvings)
                for layer in (nn.Conv2d(config.hidden, config.hidden, 4, stride=2, padding=1), nn.ReLU())
            ),
            *(Residual(network) for _ in range(config.residual_blocks)),
        )
        channels = config.codes * config.code_dim
        # One filter of D channels for each of the M codes.
        filters = nn.Conv2d(config.hidden, channels, 3, padding=1)
        self.padding, cells = (0, 0, 0, 0), (1, 1)
        match config.pooling:
            case "average":
                self.to_codes = nn.Sequential(filters, nn.AdaptiveAvgPool2d(1))
            case "positions":
                self.to_codes = nn.Sequential(
                    nn.Conv2d(config.hidden, channels, (height >> halvings, width >> halvings))
                )
            case "none":
                # Padded at the right and below to whole cells: no position of the map is without a code of its own.
                self.to_codes = nn.Sequential(filters)
                self.padding = (0, -width % 2**halvings, 0, -height % 2**halvings)
                cells = (-(-height >> halvings), -(-width >> halvings))
        self.code_shape = (config.codes, *cells)
        self.quantizer = VectorQuantizer(config.quantization)
        self.expand = (
            _Expand(channels, config.hidden, (height, width), halvings, config.pooling == "none")
            if config.condition == "map"
            else None
        )
        condition_dim = MAP_CHANNELS if self.expand else config.code_dim * math.prod(self.code_shape)
        self.pixelcnn = PixelCNN(config.decoder, first.num_codes, groups, condition_dim=condition_dim)
        self.pixelcnn.mark_seen(None)
        # The weight of each first-stage code in the loss, set from the training codes' histogram.
        self.register_buffer("code_weights", torch.ones(groups, first.num_codes))

    @property
    def first(self) -> FirstStage:
        """The VQ-VAE whose codes these are."""
        found: FirstStage = self.__dict__["first"]
        return found

    def weigh(self, counts: Tensor) -> None:
        """Weigh first-stage codes (G, K1) by how often training has them: to the power of -``rare_weight``, mean 1."""
        share = (counts.double() + 1) / (counts.double() + 1).sum(1, keepdim=True)
        weights = share.pow(-self.config.rare_weight)
        self.code_weights.copy_(weights / (share * weights).sum(1, keepdim=True))

    def vectors(self, indices: Tensor) -> Tensor:
        """The encoder's vectors, (B, M * D, h', w'), of code maps (B, G, h, w)."""
        embedded = torch.stack([table(indices[:, g]) for g, table in enumerate(self.embeddings)]).sum(0)
        out: Tensor = self.to_codes(self.encoder(F.pad(embedded.permute(0, 3, 1, 2), self.padding)))
        return out

    def condition(self, quantized: Tensor) -> Tensor:
        """What conditions the decoder, for quantised vectors (B, M * D, h', w')."""
        out: Tensor = self.expand(quantized) if self.expand is not None else quantized.flatten(1)
        return out

    def forward(self, indices: Tensor) -> Loss:
        """Equation 6 with the PixelCNN's nats per code as its first term, for code maps (B, G, h, w)."""
        quantized = self.quantizer(self.vectors(indices))
        nats = self._nats(indices, self.condition(quantized.vectors))
        groups = torch.arange(indices.shape[1], device=indices.device).view(1, -1, 1, 1)
        weighted = (nats * self.code_weights[groups, indices]).flatten(1).mean(1)
        loss = weighted + quantized.codebook_loss + self.config.beta * quantized.commitment_loss
        parts = {
            "nats_per_code": nats.flatten(1).mean(1),
            "codebook": quantized.codebook_loss,
            "commitment": quantized.commitment_loss,
        }
        return Loss(loss, parts)

    @torch.no_grad()
    def encode(self, indices: Tensor) -> Tensor:
        """The codes (B, M, h', w') of code maps (B, G, h, w)."""
        codes: Tensor = self.quantizer(self.vectors(indices)).indices
        return codes

    @torch.no_grad()
    def condition_of(self, codes: Tensor) -> Tensor:
        """What conditions the decoder, for codes (B, M, h', w')."""
        return self.condition(self.quantizer.decode(codes))

    @torch.no_grad()
    def nll(self, indices: Tensor, codes: Tensor) -> Tensor:
        """Nats (B,) of code maps (B, G, h, w) given codes (B, M, h', w'), which need not be theirs."""
        return self._nats(indices, self.condition_of(codes)).flatten(1).sum(1, dtype=torch.float64)

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Before the first step: codebooks among the first batch's vectors, if the configuration says so."""
        if not bool(self.quantizer.started):
            with torch.no_grad():
                self.quantizer.start(self.vectors(batch[0]), generator)

    def after_step(self, generator: torch.Generator) -> None:
        """After each optimiser step: moving averages and dead codes."""
        self.quantizer.update(generator)

    def _nats(self, indices: Tensor, condition: Tensor) -> Tensor:
        """(B, G, h, w): what each code costs given those before it."""
        logits = self.pixelcnn(indices, None, condition)
        return F.cross_entropy(logits.flatten(0, 3), indices.flatten(), reduction="none").view(indices.shape)


class _Expand(nn.Module):
    """Vectors (B, C, 1, 1), or one for each cell of a map, -> (B, MAP_CHANNELS, h, w), by the encoder's way back."""

    def __init__(self, channels: int, hidden: int, size: tuple[int, int], doublings: int, cells: bool) -> None:
        super().__init__()
        self.size = size
        start = (hidden, *(-(-side >> doublings) for side in size))
        self.spread = (
            nn.Conv2d(channels, hidden, 3, padding=1)
            if cells
            else nn.Sequential(nn.Flatten(), nn.Linear(channels, math.prod(start)), nn.Unflatten(1, start))
        )
        self.grow = nn.Sequential(
            *(
                layer
                for _ in range(doublings)
                for layer in (nn.ReLU(), nn.ConvTranspose2d(hidden, hidden, 4, stride=2, padding=1))
            ),
            nn.ReLU(),
            nn.Conv2d(hidden, MAP_CHANNELS, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.grow(self.spread(x))
        return out[..., : self.size[0], : self.size[1]]
