"""Make ``.venv`` and install the project into it: ``python3 bootstrap.py [EXTRAS]``; needs nothing but Python.

The exact versions of ``constraints.txt`` are taken. Without an NVIDIA GPU, torch comes as its CPU build: the default
build for Linux brings several gigabytes of CUDA along.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"


def pip(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the environment's pip with the project's constraints."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=ROOT, check=not capture, capture_output=capture, text=True)


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is at work here."""
    program = shutil.which("nvidia-smi")
    return bool(program) and subprocess.run([program, "-L"], capture_output=True).returncode == 0


def would_bring_cuda() -> bool:
    """Whether pip's own choice of torch depends on CUDA packages; only metadata are read."""
    answer = pip(
        "install", "--dry-run", "--no-deps", "--quiet", "--report", "-", "-c", "constraints.txt", "torch", capture=True
    )
    try:
        needed = json.loads(answer.stdout)["install"][0]["metadata"].get("requires_dist", [])
    except (ValueError, LookupError):
        return sys.platform == "linux"  # an old pip that cannot tell
    return any(name.startswith(("nvidia-", "cuda-", "triton")) for name in needed)


def install(extras: str) -> None:
    """Make the environment, or complete one that an interrupted call left."""
    if not (VENV / "bin" / "python").exists():
        print(f"making {VENV.name}", flush=True)
        try:
            venv.create(VENV, with_pip=True)
        except (subprocess.CalledProcessError, OSError):
            shutil.rmtree(VENV, ignore_errors=True)
            raise SystemExit("error: Python's venv cannot make an environment here; install python3-venv") from None
    quiet = () if sys.stdout.isatty() else ("--quiet",)
    lean = ("--no-compile", "--progress-bar", "on" if not quiet else "off", *quiet)
    if pip("show", "torch", capture=True).returncode:
        print("installing torch" + ("" if has_gpu() else " for CPU"), flush=True)
        where = () if has_gpu() or not would_bring_cuda() else ("--index-url", CPU_BUILDS)
        pip("install", *lean, "-c", "constraints.txt", *where, "torch")
    print(f"installing vqsweep[{extras}]", flush=True)
    pip("install", *lean, "-c", "constraints.txt", "-e", f".[{extras}]")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have any Python
        raise SystemExit(
            f"error: Python is {sys.version.split()[0]}; allowed is 3.11 or newer (make PYTHON=python3.12)"
        )
    try:
        install(sys.argv[1] if len(sys.argv) > 1 else "all")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"error: `{' '.join(error.cmd[1:])}` failed; the lines above say why") from None
