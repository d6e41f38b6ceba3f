"""``make bench``: every benchmark of this folder in turn; ``record_table`` is none, but what one of them searches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem != "record_table")
    failed = [
        name for name in names if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]).returncode
    ]
    if failed:
        raise SystemExit(f"error: these benchmarks failed: {', '.join(failed)}")
