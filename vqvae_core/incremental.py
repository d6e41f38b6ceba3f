"""A PixelCNN computed position by position, every feature once.

Ramachandran et al., "Fast generation for convolutional autoregressive models", 2017 (arXiv 1704.06001): the vertical
stack is computed once per row, the horizontal stack once per position, both from caches of the features that later rows
and positions need again. What took H W passes over H W positions takes the work of one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from vqvae_core.pixelcnn import GatedLayer, PixelCNN

# (logits (B, K), one number per map (B,)) -> codes (B,)
Choose = Callable[[Tensor, Tensor], Tensor]


class Incremental:
    """A PixelCNN unrolled over the positions of a row, for B maps of W columns; use it without gradients.

    A row of the vertical stack is laid out positions first, (W, B, C): what one column of a kernel sees of it is then a
    contiguous slice, and a convolution is one matrix product per column. All of it is allocated once and no value
    travels to the host within a row, so that a GPU can replay the row as one CUDA graph; there the loop would otherwise
    wait for the launches of some eight kernels per layer and position.

    Args:
        model: its weights are read now, so build a new object when they have changed.
        batch: B.
        columns: W.
        choose: the code for each map, from its logits and the caller's number.
        capture: False runs on a GPU without a graph.
    """

    def __init__(self, model: PixelCNN, batch: int, columns: int, choose: Choose, capture: bool = True) -> None:
        B, W, C, G = batch, columns, model.config.hidden, model.codes_per_position
        self.batch, self.columns, self.choose = batch, columns, choose
        new = model.bias.detach().new_zeros
        row, position = _Gate(new(W * B, 2 * C)), _Gate(new(B, 2 * C))
        self.layers = [_Layer(layer, row, position, W) for layer in cast("list[GatedLayer]", list(model.layers))]
        # A layer's output is the next one's input, at the same column; the last one's is the head's.
        self.last = new(B, W, C)
        self.outputs = [
            row.unbind(1) for row in (*(layer.left[:, layer.pad :] for layer in self.layers[1:]), self.last)
        ]

        self.embeddings = [table.weight.detach() for table in cast("list[nn.Embedding]", model.embeddings)]
        heads = cast("list[nn.Conv2d]", list(model.head))
        self.head = torch.cat([_columns(head.weight)[0] for head in heads], dim=1)
        self.head_bias = torch.cat([_bias(head) for head in heads])
        self.within = [_columns(within.weight)[0] for within in cast("list[nn.Conv2d]", model.within)]
        self.logits = [(_bias(last), _columns(last.weight)[0]) for last in cast("list[nn.Conv2d]", model.logits)]

        # The row in hand.
        self.embedded = self.layers[0].left[:, self.layers[0].pad :].transpose(0, 1)
        self.numbers = new(W, G, B, dtype=torch.float64)
        self.given, self.codes = new(W, G, B, dtype=torch.long), new(W, G, B, dtype=torch.long)
        self.keep = new(W, G, B, dtype=torch.bool)
        self.graph = self._capture() if capture and model.bias.is_cuda else None

    def rows(self, biases: Tensor, numbers: Tensor, given: Tensor, keep: Tensor) -> Iterator[Tensor]:
        """Draw B maps, yielding each row's codes (B, G, W).

        Args:
            biases: ``PixelCNN.biases``.
            numbers: what ``choose`` is given, float64 (B, G, H, W).
            given: codes, integers (B, G, H, W), taken where ``keep``, booleans of that shape, is true.
        """
        for layer, bias in zip(self.layers, biases, strict=True):
            layer.start(bias)
        whole_row_kept = keep.permute(2, 0, 1, 3).flatten(1).all(dim=1).tolist()
        for i, kept in enumerate(whole_row_kept):
            for row, source in ((self.numbers, numbers), (self.given, given), (self.keep, keep)):
                row.copy_(source[:, :, i].permute(2, 1, 0))
            for layer in self.layers:
                layer.start_row(i)
            if kept:
                self._take_row()
            elif self.graph is not None:
                self.graph.replay()
            else:
                self._draw_row()
            yield self.codes.permute(2, 1, 0).clone()

    def _vertical(self) -> None:
        for layer, after in zip(self.layers, [*self.layers[1:], None], strict=True):
            layer.vertical_stack()
            if after is not None:
                layer.row.gated(out=after.next_row().flatten(0, 1))

    def _take_row(self) -> None:
        """A row that is kept whole needs no horizontal stack: later rows see it through the vertical one."""
        self._vertical()
        self.codes.copy_(self.given)
        embedded = [table[self.codes[:, g]] for g, table in enumerate(self.embeddings)]
        self.layers[0].next_row().copy_(torch.stack(embedded).sum(0))

    def _draw_row(self) -> None:
        self._vertical()
        for j in range(self.columns):
            for layer, output in zip(self.layers, self.outputs, strict=True):
                layer.horizontal_stack(j, output[j])
            self._draw_position(j)
        self.layers[0].next_row().copy_(self.embedded)

    def _draw_position(self, j: int) -> None:
        hidden = torch.addmm(self.head_bias, self.last[:, j], self.head).chunk(len(self.logits), dim=1)
        before: list[Tensor] = []
        for g, (bias, matrix) in enumerate(self.logits):
            features = hidden[g] if not g else torch.addmm(hidden[g], torch.cat(before, dim=1), self.within[g - 1])
            drawn = self.choose(torch.addmm(bias, features.relu(), matrix), self.numbers[j, g])
            code = torch.where(self.keep[j, g], self.given[j, g], drawn, out=self.codes[j, g])
            before.append(self.embeddings[g][code])
        self.embedded[j] = torch.stack(before).sum(0) if len(before) > 1 else before[0]

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """The row as a CUDA graph, or None, with a warning, where it cannot be captured.

        What the trial runs leave in the caches does no harm: ``start`` clears them before a map begins.
        """
        with torch.cuda.device(self.codes.device):
            try:
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):  # library handles and workspaces must exist before the capture
                    for _ in range(3):
                        self._draw_row()
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self._draw_row()
            except RuntimeError as error:
                warnings.warn(f"sampling without a CUDA graph: {error}", RuntimeWarning, stacklevel=3)
                return None
        return graph


class _Gate:
    """N vectors of 2C features, and tanh(a) sigmoid(b) of their halves, (N, C), where a comes as -2a.

    tanh(a) is 1 - 2 sigmoid(-2a), so one sigmoid serves both halves.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.a, self.b = features.chunk(2, 1)

    def gated(self, out: Tensor) -> Tensor:
        """Into ``out``; overwrites the features."""
        self.features.sigmoid_()
        return torch.addcmul(self.b, self.a, self.b, value=-2, out=out)


class _Layer:
    """A gated layer's weights as matrices, and what it has to remember: rows of its inputs, with their padding.

    ``above`` (padding + W + padding, B, rows * C) holds the rows that the vertical kernel sees, side by side as
    channels, the newest last; ``left`` (B, padding + W, C) the current row of the horizontal stack, of which a kernel
    sees a contiguous piece.

    ``row`` and ``position`` are where the two stacks' features go; the weights hold the -2 that their gates want.
    """

    def __init__(self, layer: GatedLayer, row: _Gate, position: _Gate, columns: int) -> None:
        self.row, self.position = row, position
        B, W, C, pad = len(position.features), columns, layer.out.in_channels, layer.pad
        rows, width = layer.vertical.kernel_size
        self.first, self.pad, self.columns = layer.first, pad, columns
        (across,), (self.out,) = _columns(layer.across.weight), _columns(layer.out.weight)
        new = self.out.new_zeros
        self.scale = torch.cat((new(C) - 2, new(C) + 1))
        self.vertical = [column * self.scale for column in _columns(layer.vertical.weight)]
        self.horizontal = torch.cat(_columns(layer.horizontal.weight)) * self.scale
        self.across = across / self.scale[:, None] * self.scale

        self.above, self.left = new(W + 2 * pad, B, rows * C), new(B, pad + W, C)
        self.above_seen = [self.above[k : k + W].flatten(0, 1) for k in range(width)]  # by each column of the kernel
        taps = len(self.horizontal) // C
        # The last tap is the column itself, but for the first layer: the one before.
        self.left_seen = [self.left[:, j : j + taps].flatten(1) for j in range(W)]
        self.left_last = [self.left[:, j + taps - 1] for j in range(W)]
        self.gated = new(B, C)
        self.bias = new(2, W * B, 2 * C)
        self.biases = self.bias  # of all rows
        self.base = new(W * B, 2 * C)  # what the horizontal stack gets from the vertical one
        self.base_at = self.base.view(W, B, 2 * C).unbind()

    def start(self, biases: Tensor) -> None:
        """Begin new maps, whose stacks have this bias (2, B, 2C, 1, 1), or (2, B, 2C, H, W) with one a position."""
        self.above.zero_()
        self.biases = biases * self.scale[:, None, None]

    def start_row(self, i: int) -> None:
        """Begin row i of the maps, with its own bias where there is one."""
        if i == 0 or self.biases.shape[-2] > 1:
            row = self.biases[..., i, :].permute(0, 3, 1, 2)  # 2, 1 or W, B, 2C
            self.bias.view(2, self.columns, *row.shape[2:]).copy_(row)

    def next_row(self) -> Tensor:
        """Where the next row (W, B, C) of the vertical stack's input goes; the oldest one is dropped."""
        rows = self.above[self.pad : self.pad + self.columns].split(len(self.out), dim=2)
        for older, newer in pairwise(rows):
            older.copy_(newer)
        return rows[-1]

    def vertical_stack(self) -> None:
        """The vertical stack for the row in hand up to its gate, and what the horizontal stack gets of it."""
        features = torch.addmm(self.bias[0], self.above_seen[0], self.vertical[0], out=self.row.features)
        for seen, matrix in zip(self.above_seen[1:], self.vertical[1:], strict=True):
            features.addmm_(seen, matrix)
        torch.addmm(self.bias[1], features, self.across, out=self.base)

    def horizontal_stack(self, j: int, output: Tensor) -> None:
        """The horizontal stack at column j, (B, C), into ``output``."""
        torch.addmm(self.base_at[j], self.left_seen[j], self.horizontal, out=self.position.features)
        gated = self.position.gated(out=self.gated)
        if self.first:
            torch.mm(gated, self.out, out=output)
        else:
            torch.addmm(self.left_last[j], gated, self.out, out=output)


def _columns(weight: Tensor) -> list[Tensor]:
    """A kernel (out, in, rows, columns) as one matrix (rows * in, out) per column."""
    return [column.permute(2, 1, 0).reshape(-1, len(column)).contiguous() for column in weight.detach().unbind(3)]


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach()
