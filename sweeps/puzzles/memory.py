"""Puzzle 6: where does the memory go at a batch of 32 frames of 84 x 84?

Run:     python sweeps/puzzles/memory.py
Asked:   "we had severe memory issues in training the Atari frames and could only fit a batch of 4 frames" (2.3.1), laid
         to the search, with "a space complexity of O(K^2)" (3.4)
Guess:   the Atari code holds the difference of every vector to every code, dimension by dimension: N K D numbers
Scale:   the real sizes: 21 x 21 positions, K 512, D 256; the report's way at a batch of 4 and no more, because the
         14 GB of 32 are the point; it is linear in the batch
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # started as a file: ours are two folders up

from sweeps.puzzles._record import Case, record
from vqvae_core.overrides import OneLineParser

QUESTION = "Where does the memory go at a batch of 32 frames of 84 x 84?"
POSITIONS, CODES, DIMS = 21 * 21, 512, 256

# Each way in a process of its own, which says how far its memory grew (Linux). Indices are compared by their sum.
WAYS = {
    "difference": "((x[:, None, :] - e[None]) ** 2).sum(2).argmin(1)",  # N K D, as in the branch evan/video
    "matrix": "((x**2).sum(1, keepdim=True) + (e**2).sum(1) - 2 * x @ e.T).argmin(1)",  # N K, as in the master branch
    "ours": "nearest(x, e)",  # in pieces
}
PROGRAM = """
import sys, torch
from pathlib import Path
from vqvae_core.quantize import nearest
torch.set_num_threads(1)
torch.manual_seed(0)
x, e = torch.randn(int(sys.argv[1]), int(sys.argv[3])), torch.randn(int(sys.argv[2]), int(sys.argv[3]))
nearest(x[:8], e)
def resident(line):
    return next(int(words.split()[1]) for words in Path("/proc/self/status").open() if words.startswith(line))
Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
before = resident("VmRSS")
found = eval(sys.argv[4])
print(resident("VmHWM") - before, int(found.sum()))
"""


def grown(way: str, batch: int) -> tuple[float, int]:
    """Peak memory in MB that a search needs beyond vectors and codes, and the sum of what it found."""
    sizes = map(str, (batch * POSITIONS, CODES, DIMS))
    command = [sys.executable, "-c", PROGRAM, *sizes, WAYS[way]]
    project = Path(__file__).resolve().parents[2]
    # glibc keeps freed blocks, more or fewer of them from run to run; those of this size and more it then gives back.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project, env=environment)
    kilobytes, found = map(int, done.stdout.split())
    return kilobytes / 1024, found


def main() -> None:
    OneLineParser("sweeps/puzzles/memory.py", description=__doc__, allow_abbrev=False).parse_args()
    cases, found = [], {}
    for way, batches in {"difference": (1, 2, 4), "matrix": (4, 32), "ours": (4, 32)}.items():
        for batch in batches:
            megabytes, found[way, batch] = grown(way, batch)
            size = {"batch": batch, "positions": POSITIONS, "model.num_codes": CODES, "model.code_dim": DIMS}
            terms = batch * POSITIONS * CODES * (DIMS if way == "difference" else 1) * 4 / 2**20
            metrics = {"memory/peak_mb": megabytes, "memory/one_tensor_mb": terms}
            cases.append(Case(f"{way}-batch-{batch}", {"arm": way, **size}, metrics))
    assert found["difference", 4] == found["matrix", 4] == found["ours", 4], found
    record("puzzle_memory", QUESTION, "made_up_vectors", cases)


if __name__ == "__main__":
    main()
