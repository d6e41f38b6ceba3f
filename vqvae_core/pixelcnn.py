"""Gated PixelCNN over code maps: the learned prior, and the decoder of a VQ-VAE whose data are codes.

van den Oord, Kalchbrenner, Espeholt, Vinyals, Graves, Kavukcuoglu, "Conditional image generation with PixelCNN
decoders", 2016 (arXiv 1606.05328); Figure 2 is ``GatedLayer``, Equations 2 and 4 are ``gate``.

Letters: B maps, G codes per position, H x W positions, K values of a code, C channels, L layers. The order of the
codes is row by row, within a row from left to right, within a position from the first of the G codes to the last.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_core.config import PixelCNNConfig


class Gate(torch.autograd.Function):
    """y = tanh(a) * sigmoid(b), where a and b are the two halves of the channels, axis 1 (Equation 2).

    Left to autograd this is a tenth of a training step on a CPU: tanh costs as much as six sigmoids, hence
    tanh(a) = 2 sigmoid(2a) - 1, and both gradients need no more than the three tensors kept here.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        a, b = features.chunk(2, 1)
        filtered, opened = (2 * a).sigmoid_().mul_(2).sub_(1), b.sigmoid()
        gated = filtered * opened
        ctx.save_for_backward(filtered, opened, gated)
        return gated

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        filtered, opened, gated = ctx.saved_tensors
        slope_a = torch.addcmul(opened, filtered, gated, value=-1)  # (1 - tanh^2) * sigmoid
        slope_b = torch.addcmul(gated, gated, opened, value=-1)  # tanh * sigmoid * (1 - sigmoid)
        return torch.cat((gradient * slope_a, gradient * slope_b), dim=1)


class GatedLayer(nn.Module):
    """Figure 2: a vertical stack, which sees the rows above, feeds a horizontal stack, which sees what is on the left.

    The kernels hold only taps that may be seen. The map is shifted by padding at the top and at the left, so no weight
    is ever masked: none gets a gradient, a norm or a step of Adam that it should not have. In the first layer both
    stacks leave out the current row or position itself; there the horizontal stack has no residual connection, because
    that would carry the code to be predicted past the gate.
    """

    def __init__(self, channels: int, kernel: int, first: bool) -> None:
        super().__init__()
        self.pad, self.first = kernel // 2, first
        taps = self.pad if first else self.pad + 1
        self.vertical = nn.Conv2d(channels, 2 * channels, (taps, kernel), bias=False)
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, taps), bias=False)
        self.across = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, above: Tensor, left: Tensor, bias: Tensor, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) twice and a bias for the two stacks -> the next layer's (B, C, H, W) twice.

        The bias is (2, B, 2C, 1, 1), or (2, B, 2C, H, W) where each position has its own.

        ``above`` at row i holds nothing of row i or below; ``left`` at (i, j) nothing of (i, j) or after.
        """
        pad, drop = self.pad, int(self.first)
        vertical = self.vertical(F.pad(above, (pad, pad, pad, -drop)))
        bias = bias.to(vertical.dtype)  # bfloat16 under autocast, where adding float32 would cost a copy of everything
        vertical = vertical.add_(bias[0])
        horizontal = self.horizontal(F.pad(left, (pad, -drop))).add_(self.across(vertical)).add_(bias[1])
        above = F.dropout(Gate.apply(vertical), dropout)
        out = self.out(F.dropout(Gate.apply(horizontal), dropout))
        return above, out if self.first else left + out


class PixelCNN(nn.Module):
    """p(codes | class, condition) as a product over codes, each conditioned on all codes before it (Equation 1).

    A position's codes share one stack of layers: it predicts the first of them, and a small network per further code
    adds what the codes before it at the same position say.

    ``num_classes`` 0 means that there are no classes. Either way a learned null class stands for "no class given", and
    ``null_rate`` of the labelled training examples train it. ``mark_seen`` tells the model which classes its training
    uses; in eval mode it refuses any other, because what it holds for them was never learned.

    Args:
        config: sizes of the network.
        num_codes: K.
        codes_per_position: G.
        num_classes: classes are the integers 0 .. num_classes - 1.
        condition_dim: channels of what conditions every layer, a vector for all positions (Equation 4) or a map with a
            vector for each (the equation after it); 0 = none.
    """

    seen_classes: Tensor

    def __init__(
        self,
        config: PixelCNNConfig,
        num_codes: int,
        codes_per_position: int = 1,
        num_classes: int = 0,
        condition_dim: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_codes", num_codes, 2),
            ("codes_per_position", codes_per_position, 1),
            ("num_classes", num_classes, 0),
            ("condition_dim", condition_dim, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; allowed is an integer >= {least}")
        self.config = config
        self.num_codes, self.codes_per_position = num_codes, codes_per_position
        self.num_classes, self.condition_dim = num_classes, condition_dim
        C, L, G = config.hidden, config.layers, codes_per_position

        self.embeddings = nn.ModuleList(nn.Embedding(num_codes, C) for _ in range(G))
        self.layers = nn.ModuleList(
            GatedLayer(C, config.kernel if i else config.first_kernel, first=i == 0) for i in range(L)
        )
        # What conditions a layer is a bias of its two stacks: one for all, one per class, one from the condition.
        self.bias = nn.Parameter(torch.zeros(L * 2 * 2 * C))
        self.classes = nn.Embedding(num_classes + 1, L * 2 * 2 * C)  # the last row is the null class
        nn.init.zeros_(self.classes.weight)
        self.condition = nn.Linear(condition_dim, L * 2 * 2 * C, bias=False) if condition_dim else None
        self.head = nn.ModuleList(nn.Conv2d(C, config.head, 1) for _ in range(G))
        self.within = nn.ModuleList(nn.Conv2d(g * C, config.head, 1, bias=False) for g in range(1, G))
        self.logits = nn.ModuleList(nn.Conv2d(config.head, num_codes, 1) for _ in range(G))
        self.register_buffer("seen_classes", torch.zeros(num_classes + 1, dtype=torch.bool))

    @property
    def reach(self) -> int:
        """How many rows up, and columns to either side, a position sees; a map larger than that is seen in part."""
        return self.config.first_kernel // 2 + (self.config.layers - 1) * (self.config.kernel // 2)

    def mark_seen(self, labels: Tensor | None) -> None:
        """Say that training uses these classes (a tensor of any shape), or with None that it uses no class.

        Raises ``ValueError`` for a label that is not a class of this model. Calls add up.
        """
        if labels is None:
            self.seen_classes[-1] = True
            return
        self._check_range(labels)
        if self.config.null_rate < 1:
            self.seen_classes[labels.unique().to(self.seen_classes.device)] = True
        if self.config.null_rate > 0:
            self.seen_classes[-1] = True

    def check(self, batch: int, labels: Tensor | None = None, condition: Tensor | None = None) -> None:
        """Raise ``ValueError`` for what cannot condition ``batch`` maps: a wrong shape, a class that was never seen."""
        self._check_shapes(batch, labels, condition)
        seen = self.seen_classes.tolist()
        if labels is None:
            unseen = [] if seen[-1] else ["none"]
        else:
            self._check_range(labels)
            unseen = [str(c) for c in labels.unique().tolist() if not seen[c]]
        if unseen:
            known = [str(c) for c in range(self.num_classes) if seen[c]] + ["none"] * seen[-1]
            in_words = ", ".join(known) or "nothing yet (mark_seen)"
            raise ValueError(f"class {', '.join(unseen)} was not seen in training; seen: {in_words}")

    def _check_shapes(self, batch: int, labels: Tensor | None, condition: Tensor | None) -> None:
        if labels is not None and (labels.shape != (batch,) or not self.num_classes):
            allowed = f"None or ({batch},)" if self.num_classes else "None: this model has no classes"
            raise ValueError(f"labels have shape {tuple(labels.shape)}; allowed is {allowed}")
        given = None if condition is None else tuple(condition.shape)
        wanted = (batch, self.condition_dim) if self.condition_dim else None
        if (given and given[:2]) != wanted or (given and len(given) not in (2, 4)):
            maps = f" or ({batch}, {self.condition_dim}, H, W)" if wanted else ""
            raise ValueError(f"condition has shape {given}; allowed is {wanted}{maps}")

    def _check_range(self, labels: Tensor) -> None:
        if not self.num_classes:
            raise ValueError("labels are given, but this model has no classes; allowed is None")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(
                f"labels lie in {int(labels.min())} .. {int(labels.max())}; allowed is 0 .. {self.num_classes - 1}"
            )

    def biases(self, batch: int, labels: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """What conditions the layers: (L, 2, B, 2C, 1, 1), for each layer's two stacks (Equation 4's V^T h).

        Where the condition is a map, each position has its own: (L, 2, B, 2C, H, W).

        Raises ``ValueError`` as ``check`` does, in training for shapes only: a step should not wait for the device, and
        ``mark_seen`` has checked its classes.
        """
        if self.training:
            self._check_shapes(batch, labels, condition)
        else:
            self.check(batch, labels, condition)
        null = torch.full((batch,), self.num_classes, device=self.bias.device)
        if labels is None:
            labels = null
        elif self.training and self.config.null_rate:
            labels = torch.where(torch.rand(batch, device=null.device) < self.config.null_rate, null, labels)
        bias = (self.bias + self.classes(labels))[..., None, None]
        if self.condition is not None and condition is not None:
            condition = condition if condition.ndim == 4 else condition[..., None, None]
            bias = bias + F.conv2d(condition, self.condition.weight[..., None, None])
        return bias.view(batch, self.config.layers, 2, -1, *bias.shape[2:]).transpose(0, 1).transpose(1, 2)

    def forward(self, indices: Tensor, labels: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Logits of every code given the codes before it.

        Args:
            indices: codes, integers (B, G, H, W) in 0 .. K - 1.
            labels: class of each map, integers (B,), or None for the null class.
            condition: (B, condition_dim) or (B, condition_dim, H, W) for a model that has one.

        Returns:
            (B, G, H, W, K). Row g, i, j depends on the codes before (i, j), and on those before g at (i, j).

        Raises:
            ValueError: for a shape that does not fit and, in eval mode, for a class that training never saw.
        """
        if indices.ndim != 4 or indices.shape[1] != self.codes_per_position:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}; allowed is (B, {self.codes_per_position}, H, W)"
            )
        biases = self.biases(len(indices), labels, condition)
        # (B, C, H, W) with the channels last in memory, from here to the logits: convolutions are fastest so.
        embedded = [table(indices[:, g]).permute(0, 3, 1, 2) for g, table in enumerate(self.embeddings)]
        above = left = sum(embedded[1:], embedded[0])
        dropout = self.config.dropout if self.training else 0.0
        for layer, bias in zip(self.layers, biases, strict=True):
            above, left = layer(above, left, bias, dropout)
        logits = []
        for g, (head, to_logits) in enumerate(zip(self.head, self.logits, strict=True)):
            hidden = head(left)
            if g:  # the position's codes before this one
                hidden = hidden + self.within[g - 1](torch.cat(embedded[:g], dim=1))
            logits.append(to_logits(hidden.relu_()).permute(0, 2, 3, 1))
        return logits[0][:, None] if len(logits) == 1 else torch.stack(logits, dim=1)

    def nll(self, indices: Tensor, labels: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each map in nats, (B,), summed over its codes; arguments as in ``forward``.

        In eval mode this is the rate of a code map under the learned prior.
        """
        logits = self(indices, labels, condition)
        nats = F.cross_entropy(logits.flatten(0, 3), indices.flatten(), reduction="none")
        return nats.view(len(indices), -1).sum(1)
