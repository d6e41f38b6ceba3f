"""The nearest code: ours against a naive matrix of distances, in time, memory and exactness.

Run:     python benchmarks/quantize.py
         python -m benchmarks.quantize --json
Cost:    half a minute on one core

16384 vectors, one thread, process CPU time, interleaved repeats. The naive way is |x|^2 - 2 x.e + |e|^2 over all N x K
pairs and its argmin, as in the report's code. Memory is what is allocated besides the inputs at the worst moment, as
torch's profiler counts it. The indices are compared with float64's: where they differ, the row says by how much the
chosen code is farther away than the nearest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for modules in benchmarks/, where ours are not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks._harness import Row, faster, interleaved, parser, show
from vqvae_core.quantize import nearest

VECTORS = 16384  # 16 x 32 x 32
# K, D, the ratio of times to reach, the ratio of peaks to reach
CASES = ((512, 64, 1.9, 20), (512, 256, None, 20), (8192, 64, 1.9, 200), (8192, 256, None, 200))


def main() -> None:
    """Measure every case."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for num_codes, dim, time_goal, memory_goal in CASES:
        rows += measure(num_codes, dim, time_goal, memory_goal, options.repeats)
    show("quantize", rows, options.json)


@torch.no_grad()
def measure(num_codes: int, dim: int, time_goal: float | None, memory_goal: float, repeats: int) -> list[Row]:
    """Two rows: seconds, and megabytes besides the inputs."""
    generator = torch.Generator().manual_seed(0)
    vectors, codes = (torch.randn(count, dim, generator=generator) for count in (VECTORS, num_codes))
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: nearest(vectors, codes),
        "naive": lambda: naive(vectors, codes),
    }
    seconds = interleaved(ways, repeats, time.process_time)
    megabytes = {name: peak_bytes(way) / 1e6 for name, way in ways.items()}
    case = f"K {num_codes}, D {dim}"
    note = exactness(vectors, codes, nearest(vectors, codes))
    return [
        faster(f"{case}, time", seconds["ours"], seconds["naive"], "s", time_goal, note),
        faster(f"{case}, memory", megabytes["ours"], megabytes["naive"], "MB", memory_goal),
    ]


def naive(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the nearest code by the whole matrix of squared distances, (N, K)."""
    squares = vectors.pow(2).sum(1, keepdim=True) + codes.pow(2).sum(1)
    return torch.addmm(squares, vectors, codes.T, alpha=-2).argmin(1)


def peak_bytes(way: Callable[[], Tensor]) -> int:
    """The most bytes that a call holds at once besides what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        result = way()
    held = peak = 0
    changes = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert peak >= result.nbytes, "the profiler saw no allocation"
    return peak


def exactness(vectors: Tensor, codes: Tensor, found: Tensor) -> str:
    """How often indices (N,) are not float64's, and how much farther their codes then are.

    float64's are found by products, too: their rounding is a billionth of float32's, and the differences of all N x K
    pairs would take minutes. How much farther a code is comes from the differences themselves.
    """
    exact = codes.double()
    half_norms = exact.pow(2).sum(1) / 2
    differ, excess = 0, 0.0
    for piece, own in zip(vectors.split(1024), found.split(1024), strict=True):
        points = piece.double()
        where = torch.addmm(half_norms, points, exact.T, alpha=-1).argmin(1)
        other = own != where
        if bool(other.any()):
            ours, best = ((points[other] - exact[indices[other]]).pow(2).sum(1) for indices in (own, where))
            differ += int(other.sum())
            excess = max(excess, float((ours / best - 1).max()))
    if not differ:
        return "indices are float64's"
    return f"{differ} of {len(found)} indices are not float64's: ties within {excess:.0e} of the distance"


if __name__ == "__main__":
    main()
