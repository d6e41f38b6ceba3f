"""Vector quantisation: the nearest code, the straight-through gradient, and how a codebook learns and stays alive."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_core.config import VQVAEConfig
from vqvae_core.distributed import gather_rows, rank, sum_over_workers, world_size

# Vectors and codes that are compared at once: with their scores and their centred copies, a core's cache is full; a GPU
# wants more.
TILE = {"cpu": (512, 512), "cuda": (1 << 15, 1 << 9)}


@torch.no_grad()
def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the nearest code for each vector: (N, D), (K, D) -> (N,) int64; the lowest index among equals.

    argmin |x - e|^2 = argmin (|e|^2 / 2 - x.e), in float32, in tiles so that neither an N x K matrix exists nor a copy
    of either side. Both are centred on the codebook's mean: the distances stay what they are, and a common offset no
    longer eats their digits.
    """
    rows, columns = TILE.get(vectors.device.type, TILE["cuda"])
    centre = codes.mean(0, dtype=torch.float32)
    least = torch.full((len(vectors),), math.inf, device=vectors.device)
    found = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
    for number, some in enumerate(codes.split(columns)):
        tile = some.float() - centre
        half_norms = tile.pow(2).sum(1) / 2
        for piece, best, where in zip(vectors.split(rows), least.split(rows), found.split(rows), strict=True):
            # Of equals the first; and no name for the scores, which would keep them while the next are computed.
            score, own = torch.addmm(half_norms, piece.float() - centre, tile.T, alpha=-1).min(1)
            nearer = score < best  # not among equals: earlier codes have lower indices
            best.copy_(torch.where(nearer, score, best))
            where.copy_(torch.where(nearer, own + number * columns, where))
    return found


@dataclass(frozen=True)
class Quantized:
    """What a quantiser answers for encoder outputs (B, G * D, H, W)."""

    vectors: Tensor  # (B, G * D, H, W): the codes, with the gradient passed straight through
    indices: Tensor  # (B, G, H, W) int64
    codebook_loss: Tensor  # (B,): mean of |sg[z_e] - e|^2 per image, second term of Equation 6
    commitment_loss: Tensor  # (B,): mean of |z_e - sg[e]|^2 per image, third term without its beta


class Quantizer(nn.Module, ABC):
    """From encoder outputs to codes and back.

    ``forward`` changes nothing but what it notes for ``update``, which the training loop calls after each optimiser
    step.
    """

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the first codes are where they should be; else ``start`` puts them there."""

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Quantise encoder outputs, in float32 whatever autocast says."""

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """The vectors of codes (B, G, H, W): the same values as in ``forward``'s answer."""

    @abstractmethod
    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Put the first codes among all workers' encoder outputs, where the configuration says so."""

    @abstractmethod
    def update(self, generator: torch.Generator) -> int:
        """After an optimiser step; the same ``generator`` state on every worker; gives the codes restarted."""


class VectorQuantizer(Quantizer):
    """Nearest-code quantisation of G groups of channels, each with its own codebook (Equation 1).

    ``codebook`` is (G, K, D): a parameter where the loss moves it, a buffer where moving averages do or nothing does.
    With ``normalize``, vectors and codes are compared and passed on with length 1.
    """

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        groups, num_codes, dim = config.codes_per_position, config.num_codes, config.code_dim
        codebook = torch.empty(groups, num_codes, dim)
        if config.codebook_init == "normal":
            nn.init.normal_(codebook)
        else:
            nn.init.uniform_(codebook, -1 / num_codes, 1 / num_codes)
        self.codebook: Tensor
        if config.quantizer == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        # Moving averages per step: how often each code was nearest, and the sum of the vectors that it was nearest to.
        self.usage: Tensor
        self.vector_sums: Tensor
        self.started: Tensor
        self.register_buffer("usage", torch.zeros(groups, num_codes))
        self.register_buffer("vector_sums", torch.zeros(groups, num_codes, dim) if config.quantizer == "ema" else None)
        self.register_buffer("started", torch.tensor(config.codebook_init in ("uniform", "normal")))
        self.watches = config.quantizer == "ema" or config.restart_below > 0  # whether ``update`` has anything to do
        # Per part of this step: vectors (G, B, H * W, D) and indices (G, B, H * W).
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, z: Tensor) -> Quantized:
        """Quantise encoder outputs (B, G * D, H, W), in float32 whatever autocast says."""
        with torch.autocast(z.device.type, enabled=False):
            batch, _, height, width = z.shape
            groups, _, dim = self.codebook.shape
            z = z.float()
            if self.config.normalize:
                z = F.normalize(z.unflatten(1, (groups, dim)), dim=2).flatten(1, 2)
            codebook = self.codes()
            vectors = z.view(batch, groups, dim, height, width).permute(1, 0, 3, 4, 2).reshape(groups, -1, dim)  # G N D
            indices = torch.stack([nearest(v, c) for v, c in zip(vectors.detach(), codebook.detach(), strict=True)])
            if self.training and self.watches:
                self._seen.append((vectors.detach().view(groups, batch, -1, dim), indices.view(groups, batch, -1)))
            codes = torch.stack([c.index_select(0, i) for c, i in zip(codebook, indices, strict=True)])  # G N D
            codes = codes.view(groups, batch, height, width, dim).permute(1, 0, 4, 2, 3).reshape(z.shape)
            trained = self.config.quantizer == "gradient"
            codebook_loss = (z.detach() - codes).pow(2).flatten(1).mean(1) if trained else z.new_zeros(batch)
            commitment_loss = (z - codes.detach()).pow(2).flatten(1).mean(1)
            # Exactly the code in value, exactly z in gradient (Section 3.2 of van den Oord et al. 2017).
            straight_through = codes.detach() + (z - z.detach())
            indices = indices.view(groups, batch, height, width).transpose(0, 1)
            return Quantized(straight_through, indices, codebook_loss, commitment_loss)

    @property
    def ready(self) -> bool:
        return bool(self.started)

    def codes(self) -> Tensor:
        """The vectors that stand for the codes, (G, K, D)."""
        return F.normalize(self.codebook, dim=2) if self.config.normalize else self.codebook

    def forget(self) -> None:
        """Drop what ``forward`` noted for ``update``."""
        self._seen.clear()

    def decode(self, indices: Tensor) -> Tensor:
        """The vectors (B, G * D, H, W) of codes (B, G, H, W)."""
        batch, _, height, width = indices.shape
        codes = torch.stack([c[i] for c, i in zip(self.codes(), indices.transpose(0, 1), strict=True)])  # G B H W D
        return codes.permute(1, 0, 4, 2, 3).reshape(batch, -1, height, width)

    @torch.no_grad()
    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Put the first codes among all workers' encoder outputs (B, G * D, H, W), where the configuration says so."""
        if bool(self.started):
            return
        groups, num_codes, dim = self.codebook.shape
        vectors = z.float().view(len(z), groups, dim, -1).permute(1, 0, 3, 2).reshape(groups, -1, dim)
        if self.config.normalize:
            vectors = F.normalize(vectors, dim=2)
        for group, own in enumerate(vectors):
            points = gather_rows(own)
            first = points[_draw(len(points), num_codes, generator).to(points.device)]
            if self.config.codebook_init == "kmeans":
                first = _kmeans(points, first)
            # Where there are fewer points than codes, some are drawn twice: apart by a little, each can find its own.
            noise = torch.randn(first.shape, generator=generator).to(first.device)
            self.codebook[group] = first + 1e-3 * points.std() * noise
        self.started.fill_(True)

    @torch.no_grad()
    def update(self, generator: torch.Generator) -> int:
        """After an optimiser step: moving averages and the restart of dead codes; gives the number restarted.

        One update for the whole step, summed over its parts and over all workers, so that neither changes the codebook.
        Of A parts, part i has every A-th image from the i-th on. The same ``generator`` state on every worker gives the
        same restarts.
        """
        if not self._seen:
            return 0
        groups, num_codes, dim = self.codebook.shape
        parts, self._seen = self._seen, []
        # In the images' own order, on which it depends which vectors a restart draws.
        vectors = torch.stack([v for v, _ in parts], 2).flatten(1, 3)  # G N D
        indices = torch.stack([i for _, i in parts], 2).flatten(1, 3)  # G N
        tokens = indices.shape[1] * world_size()
        even = tokens / num_codes
        if not self.usage.any():
            self.usage.fill_(even)  # the past that there is not: every code used evenly
            if self.vector_sums is not None:
                self.vector_sums.copy_(self.codes() * even)
        decay = self.config.ema_decay
        counts = torch.zeros_like(self.usage).scatter_add_(1, indices, torch.ones_like(indices, dtype=torch.float32))
        self.usage.lerp_(sum_over_workers(counts), 1 - decay)
        if self.vector_sums is not None:
            # Equations 6 to 8 of van den Oord et al. 2017, appendix A.1.
            sums = torch.zeros_like(self.vector_sums).scatter_add_(1, indices[..., None].expand(-1, -1, dim), vectors)
            self.vector_sums.lerp_(sum_over_workers(sums), 1 - decay)
            alive = self.usage[..., None] > 1e-8  # an average of nothing: such a code stays where it is
            self.codebook.copy_(torch.where(alive, self.vector_sums / self.usage[..., None], self.codebook))
        restarted = 0
        if self.config.restart_below:
            for group in range(groups):
                dead = (self.usage[group] < self.config.restart_below * even).nonzero().flatten()
                if not len(dead):
                    continue
                self.codebook[group, dead] = _rows_of_all(vectors[group], _draw(tokens, len(dead), generator))
                # A restarted code counts as evenly used, or the next step would take it for dead again.
                self.usage[group, dead] = even
                if self.vector_sums is not None:
                    self.vector_sums[group, dead] = self.codebook[group, dead] * even
                restarted += len(dead)
        return restarted


def _draw(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """``wanted`` indices below ``count``, none twice as long as there are enough."""
    rounds = -(-wanted // count)
    return torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])[:wanted]


def _rows_of_all(own: Tensor, wanted: Tensor) -> Tensor:
    """Rows of the workers' stacked matrices by global index, without gathering the matrices."""
    wanted = wanted.to(own.device) - rank() * len(own)
    mine = (wanted >= 0) & (wanted < len(own))
    rows = torch.zeros(len(wanted), own.shape[1], dtype=own.dtype, device=own.device)
    rows[mine] = own[wanted[mine]]
    return sum_over_workers(rows)


def _kmeans(points: Tensor, centres: Tensor, iterations: int = 10) -> Tensor:
    """Lloyd's algorithm from given centres (K, D); a centre without points stays."""
    for _ in range(iterations):
        owner = nearest(points, centres)
        counts = torch.zeros(len(centres), device=points.device).index_add_(
            0, owner, torch.ones(len(points), device=points.device)
        )
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres
