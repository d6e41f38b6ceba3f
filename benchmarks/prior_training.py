"""Training a PixelCNN prior: our step on cached codes against a loop that encodes every batch again.

Run:     python -m benchmarks.prior_training --json
Cost:    about three minutes on one core

One thread, process CPU time, 32 images to a step, 512 codes, Adam. The baseline is ``_plain_pixelcnn``: the report's
encoder (256 channels) and a nearest-code search for every batch, masks written into the weights, in float32. Ours reads
codes that were encoded once; it is the same function from the same weights, which the first losses show.

In float32 the goal of 2.5 is out of this CPU's reach: four fifths of our step are convolutions, and they already run
near the rate of one large product, which the note gives. bfloat16 is what training takes by default where the CPU gains
by it, and is measured there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F

from benchmarks._harness import Row, faster, interleaved, parser, show
from benchmarks._plain_pixelcnn import PlainEncoder, PlainPixelCNN
from vqvae_core.hardware import cpu_gains_by_bfloat16
from vqvae_core.pixelcnn import PixelCNN, PixelCNNConfig

IMAGES = 32
GOAL = 2.5
CASES = ((8, 12), (21, 15))  # height and width of the code map, layers


def main() -> None:
    """Measure both map sizes."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    peak = _peak(options.repeats)
    rows = [row for size, layers in CASES for row in measure(size, layers, peak, options.repeats)]
    show("prior_training", rows, options.json)


def measure(size: int, layers: int, peak: float, repeats: int) -> list[Row]:
    """The rows of one map size; ``peak`` is in GFLOP/s."""
    torch.manual_seed(0)
    images, labels = torch.rand(IMAGES, 3, 4 * size, 4 * size) * 2 - 1, torch.randint(10, (IMAGES,))
    encoder = PlainEncoder().eval()
    codes = encoder(images)
    config = PixelCNNConfig(layers=layers, hidden=64, null_rate=0.0)
    first = PixelCNN(config, num_codes=512, num_classes=10)

    def ours(dtype: torch.dtype | None) -> Callable[[], float]:
        model = PixelCNN(config, num_codes=512, num_classes=10)
        model.load_state_dict(first.state_dict())
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
        cached = codes[:, None]

        def step() -> float:
            with torch.autocast("cpu", dtype) if dtype else nullcontext():
                loss = model.nll(cached, labels).mean() / size**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    def plain(encode: bool) -> Callable[[], float]:
        model = PlainPixelCNN(first)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)

        def step() -> float:
            target = encoder(images) if encode else codes
            logits = model(target, labels).permute(0, 2, 3, 1).contiguous()
            loss = F.cross_entropy(logits.view(-1, 512), target.view(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    steps = {"plain": plain(encode=True), "given codes": plain(encode=False), "float32": ours(None)}
    if cpu_gains_by_bfloat16():
        steps["bfloat16"] = ours(torch.bfloat16)
    losses = {name: step() for name, step in steps.items()}
    seconds = interleaved(steps, repeats, time.process_time)

    rate = _operations(first, size) / seconds["float32"] / 1e9
    case = f"{size}x{size} {layers}x64"
    notes = {"float32": f"; {rate:.0f} GFLOP/s in all, {peak:.0f} in one large product", "bfloat16": ""}
    rows = [
        faster(
            f"{case} {dtype}",
            seconds[dtype],
            seconds["plain"],
            "s/step",
            GOAL,
            f"first loss {losses[dtype]:.5f}, plain {losses['plain']:.5f}{note}",
        )
        for dtype, note in notes.items()
        if dtype in seconds
    ]
    alone = faster(f"{case} float32, codes given to both", seconds["float32"], seconds["given codes"], "s/step")
    return [*rows, alone]


def _operations(model: PixelCNN, size: int) -> int:
    """Floating-point operations of a step's convolutions: two per weight and position, and twice that backwards."""
    kernels = [weight for weight in model.parameters() if weight.ndim == 4]
    return 3 * 2 * sum(weight.numel() for weight in kernels) * size**2 * IMAGES


def _peak(repeats: int) -> float:
    """GFLOP/s of a large float32 convolution with 1x1 kernels, one thread: what this core can do at best."""
    x = torch.randn(8, 512, 32, 32).to(memory_format=torch.channels_last)
    weight = torch.randn(512, 512, 1, 1)
    with torch.no_grad():
        seconds = interleaved({"product": lambda: F.conv2d(x, weight)}, 3 * repeats, time.process_time)
    return 2 * x.numel() * 512 / seconds["product"] / 1e9


if __name__ == "__main__":
    main()
