"""Sampling from a gated PixelCNN: the incremental sampler against the whole network once per position.

Run:     python -m benchmarks.sampling --json
Cost:    about two minutes on two cores

Same weights, 16 maps, 512 codes, 64 channels. One thread is measured in process CPU time, two threads in wall time,
which wants a machine with nothing else to do. The plain sampler runs in full at 8x8; for larger maps its time is that
of a single forward pass times the positions, and the row says so. "masked" is the plain network of
``_plain_pixelcnn``, the goals' baseline; "same network" puts our own ``forward`` in its place, which shows what the
caches alone are worth. In float64 the logits of both ways are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks._harness import Row, faster, interleaved, parser, show
from benchmarks._plain_pixelcnn import PlainPixelCNN
from vqvae_core.pixelcnn import PixelCNN, PixelCNNConfig
from vqvae_core.sampling import incremental_logits, sample

MAPS = 16
FULL_UP_TO = 8  # height and width up to which the plain sampler is run in full
# height and width, layers, the ratio to reach with one thread and with two
CASES = ((8, 12, {1: 25, 2: 15}), (21, 15, {1: 200, 2: 100}), (32, 15, {1: 450, 2: 400}))


def main() -> None:
    """Measure every case at one thread and at two."""
    arguments = parser(__doc__)
    arguments.add_argument("--threads", type=int, nargs="*", default=[1, 2], choices=[1, 2], help="1, 2 or both (both)")
    options = arguments.parse_args()
    rows: list[Row] = []
    for threads in options.threads:
        clock = time.process_time if threads == 1 else time.perf_counter
        torch.set_num_threads(threads)
        for size, layers, goals in CASES:
            case = f"{size}x{size} {layers}x64, {threads} thread{'s' * (threads > 1)}"
            rows += measure(case, size, layers, goals[threads], clock, options.repeats)
    show("sampling", rows, options.json)


@torch.no_grad()
def measure(case: str, size: int, layers: int, goal: float, clock: Callable[[], float], repeats: int) -> list[Row]:
    """Two rows: against the masked network, and against our own network run whole."""
    torch.manual_seed(0)
    ours = PixelCNN(PixelCNNConfig(layers=layers, hidden=64), num_codes=512, num_classes=10).eval()
    labels = torch.arange(MAPS) % 10
    ours.mark_seen(labels)
    masked = PlainPixelCNN(ours)

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def incremental() -> Tensor:
        return sample(ours, size, size, labels=labels, generator=seed())

    codes = incremental()
    ways: dict[str, Callable[[], Tensor]] = {"incremental": incremental}
    if size <= FULL_UP_TO:
        positions, note = 1, "in full"
        ways["masked"] = lambda: masked.generate(labels, size, size, seed())
        ways["same network"] = lambda: sample(ours, size, size, labels=labels, generator=seed(), incremental=False)
        equal = (ways["same network"]() == codes).double().mean().item()
        exact = f"{equal:.2%} of the codes equal, "
    else:
        positions, note, exact = size * size, "extrapolated from single forward passes", ""
        ways["masked"] = lambda: masked(codes[:, 0], labels)
        ways["same network"] = lambda: ours(codes, labels)
    exact += f"float64 logits differ by {_difference(ours, codes[:2], labels[:2]):.1e}"

    seconds = interleaved(ways, repeats, clock)
    return [
        faster(
            f"{case}, against {way}", seconds["incremental"], seconds[way] * positions, "s", target, f"{note}; {exact}"
        )
        for way, target in (("masked", goal), ("same network", None))
    ]


def _difference(model: PixelCNN, codes: Tensor, labels: Tensor) -> float:
    """Largest difference between the two ways' logits, in float64."""
    model.double()
    difference = (incremental_logits(model, codes, labels) - model(codes, labels)).abs().max().item()
    model.float()
    return difference


if __name__ == "__main__":
    main()
