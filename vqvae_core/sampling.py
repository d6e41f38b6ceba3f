"""Drawing code maps from a PixelCNN: the whole network once per code, or the same samples for a fraction of the work.

The second is ``vqvae_core.incremental``. Here is what both share: the arguments, and how a number becomes a code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vqvae_core.incremental import Choose, Incremental
from vqvae_core.pixelcnn import PixelCNN

Progress = Callable[[int, int], object]


@torch.no_grad()
def sample(
    model: PixelCNN,
    rows: int,
    columns: int,
    *,
    count: int | None = None,
    labels: Tensor | None = None,
    condition: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    given: Tensor | None = None,
    keep: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
    incremental: bool = True,
    progress: Progress | None = None,
) -> Tensor:
    """Draw N code maps, integers (N, G, rows, columns) on the model's device.

    One uniform number per code decides it, and all are drawn first; so a seed gives the same maps whatever
    ``batch_size`` and device are, and with or without ``incremental``, up to rounding: where a number falls within the
    rounding error of a boundary between two codes, which in float32 is about once in 10^6 codes.

    Args:
        count: N, where neither ``labels``, ``condition`` nor ``given`` tells it.
        labels: class of each map, integers (N,), or None for the null class.
        condition: (N, condition_dim), or (N, condition_dim, rows, columns), for a model that has one.
        temperature: logits are divided by it; below 1 is more certain than the model.
        top_k: draw from the k most likely codes only; None = from all.
        given: codes (N, G, rows, columns), of which those in ``keep`` are kept: completion of a map.
        keep: booleans that broadcast to (N, G, rows, columns).
        generator: source of the uniform numbers; None = torch's own.
        batch_size: maps drawn at a time. On a CPU small batches of a narrow model run on one thread; to use more cores,
            give each process its own maps.
        incremental: False runs the whole network for every code, which is slow and here to be compared with.
        progress: called after every row of a batch with the codes drawn so far and the codes in all.

    Raises:
        ValueError: for an argument that does not fit the model or another argument, and for a class that training never
            saw.
    """
    device, G = model.bias.device, model.codes_per_position
    many = {"labels": labels, "condition": condition, "given": given}
    sizes = {name: len(values) for name, values in many.items() if values is not None}
    if count is not None:
        sizes["count"] = count
    if len(set(sizes.values())) != 1:
        raise ValueError(f"number of maps is {sizes or 'not given'}; allowed is one number: count, or as many labels")
    shape = (next(iter(sizes.values())), G, rows, columns)
    if min(shape) < 1 or batch_size < 1:
        raise ValueError(f"maps of shape {shape} in batches of {batch_size}; allowed are integers >= 1")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; allowed is a number > 0 (top_k=1 draws the likeliest code)")
    if top_k is not None and not 1 <= top_k <= model.num_codes:
        raise ValueError(f"top_k is {top_k}; allowed is an integer from 1 to {model.num_codes}, or None")
    model.check(shape[0], labels, condition)
    if condition is not None and condition.ndim == 4 and condition.shape[2:] != shape[2:]:
        raise ValueError(f"condition has maps of {tuple(condition.shape[2:])}; allowed is {shape[2:]}")
    given, keep = _kept(given, keep, shape, model.num_codes, device)
    source = generator.device if generator is not None else "cpu"
    uniforms = torch.rand(shape, generator=generator, dtype=torch.float64, device=source).to(device)

    def choose(logits: Tensor, numbers: Tensor) -> Tensor:
        return draw(logits, numbers, temperature, top_k)

    batches, done, total = [], 0, given.numel()
    engine: Incremental | None = None
    with _evaluating(model), _threads_for(model, min(batch_size, len(given)), incremental):
        for start in range(0, len(given), batch_size):
            part = slice(start, start + batch_size)
            context = [None if t is None else t[part].to(device) for t in (labels, condition)]
            size = len(given[part])
            if not incremental:
                steps = _whole_network(model, context, choose, uniforms[part], given[part], keep[part])
            else:
                if engine is None or engine.batch != size:
                    engine = Incremental(model, size, columns, choose)
                steps = engine.rows(model.biases(size, *context), uniforms[part], given[part], keep[part])
            codes = []
            for row in steps:
                codes.append(row)
                done += row.numel()
                if progress is not None:
                    if device.type == "cuda":
                        torch.cuda.current_stream(device).synchronize()  # a row that is queued is not yet drawn
                    progress(done, total)
            batches.append(torch.stack(codes, dim=2))
    return torch.cat(batches)


@torch.no_grad()
def incremental_logits(
    model: PixelCNN, indices: Tensor, labels: Tensor | None = None, condition: Tensor | None = None
) -> Tensor:
    """``model(indices, labels, condition)`` in eval mode, (B, G, H, W, K), computed the way the sampler does.

    The two differ by rounding alone; ``ValueError`` as there.
    """
    B, G, H, W = indices.shape
    codes = iter(indices.permute(2, 3, 1, 0).reshape(-1, B))
    logits = []

    def record(values: Tensor, _: Tensor) -> Tensor:
        logits.append(values)
        return next(codes)

    with _evaluating(model):
        biases = model.biases(B, labels, condition)
    keep = torch.zeros_like(indices, dtype=torch.bool)
    for _ in Incremental(model, B, W, record, capture=False).rows(biases, keep.double(), indices, keep):
        pass
    return torch.stack(logits).view(H, W, G, B, -1).permute(3, 2, 0, 1, 4)


def draw(logits: Tensor, uniforms: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """The code at which the cumulative probability passes a uniform number: (B, K) and (B,) -> (B,).

    In float64 whatever the model computes in, so that a sum over K probabilities does not blur the boundaries.
    """
    logits = logits.double()
    # The likeliest code's is 0 before the division: no temperature, however small, makes it infinite.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_k is not None:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    cumulative = logits.exp_().cumsum(-1)
    total = cumulative[:, -1:]
    # Below the total even where the product rounds up to it: past it lie only codes of probability 0, and the end.
    at = torch.minimum(uniforms[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, at, right=True)[:, 0]


def _kept(
    given: Tensor | None, keep: Tensor | None, shape: tuple[int, ...], num_codes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """``given`` and ``keep``, checked, as integers and booleans of the full shape."""
    if (given is None) != (keep is None):
        raise ValueError("one of given and keep is None; allowed is both or neither")
    if given is None or keep is None:
        return torch.zeros(shape, dtype=torch.long, device=device), torch.zeros(shape, dtype=torch.bool, device=device)
    if given.shape != shape:
        raise ValueError(f"given has shape {tuple(given.shape)}; allowed is {shape}")
    if keep.dtype != torch.bool:
        raise ValueError(f"keep holds {keep.dtype}; allowed is torch.bool")
    given = given.to(device)
    try:
        keep = keep.to(device).expand(shape)
    except RuntimeError:
        raise ValueError(f"keep has shape {tuple(keep.shape)}; allowed is what broadcasts to {shape}") from None
    given = given.where(keep, 0)  # what is not kept may be anything
    if int(given.min()) < 0 or int(given.max()) >= num_codes:
        raise ValueError(
            f"given has codes in {int(given.min())} .. {int(given.max())}; allowed is 0 .. {num_codes - 1}"
        )
    return given, keep


@contextmanager
def _evaluating(model: PixelCNN) -> Iterator[None]:
    """Eval mode, and afterwards the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _threads_for(model: PixelCNN, batch: int, incremental: bool) -> Iterator[None]:
    """One thread where a position's products are so small that several would only wait for each other.

    On two idle cores the second thread then gains nothing; on two busy ones it made sampling 27 times slower.
    """
    threads = torch.get_num_threads()
    # A product (B, C) @ (C, 2C) at this size takes one thread about 25 microseconds.
    small = incremental and not model.bias.is_cuda and batch * model.config.hidden**2 < 2**19
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(threads)


def _whole_network(
    model: PixelCNN, context: list[Tensor | None], choose: Choose, uniforms: Tensor, given: Tensor, keep: Tensor
) -> Iterator[Tensor]:
    """Rows of codes (B, G, W), the whole network once per code."""
    codes = given.clone()
    _, G, H, W = codes.shape
    for i in range(H):
        for j in range(W):
            for g in range(G):
                drawn = choose(model(codes, *context)[:, g, i, j], uniforms[:, g, i, j])
                codes[:, g, i, j] = torch.where(keep[:, g, i, j], given[:, g, i, j], drawn)
        yield codes[:, :, i].clone()
