"""``python -m sweeps doctor``: what a sweep needs, whether it is here, and what to do where it is not.

Starts nothing, leaves nothing behind. Exit status 1 when a sweep could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from atari_collect import ray_token
from sweeps._cluster import answers, started_here
from sweeps._doctor_stores import check_storage, check_tracker
from sweeps._past import runs_folder, storage_url
from sweeps._plan import absolute_sqlite
from sweeps._settings import DEFAULT_TRACKER

OK, WARNING, PROBLEM = "ok", "warning", "problem"
GIB = 1 << 30
PORTS = {6379: "ray start --head", 8265: "Ray's dashboard and jobs", 5000: "mlflow server"}
LONGEST_TEMP = 60  # characters of Ray's folder: with what Ray adds, a socket's path ends at 107


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    about: str
    level: str  # ok, warning, problem
    text: str
    advice: str = ""


def main(chosen: argparse.Namespace) -> int:
    """Print what was found; the exit status: 1 when there is a problem."""
    findings = list(examine(chosen))
    problems = sum(finding.level == PROBLEM for finding in findings)
    warnings = sum(finding.level == WARNING for finding in findings)
    if chosen.json:
        print(json.dumps({"problems": problems, "warnings": warnings, "findings": [asdict(f) for f in findings]}))
    else:
        for finding in findings:
            print(f"{finding.level:8} {finding.about:9} {finding.text}", flush=True)
            if finding.advice:
                print(f"{'':18} -> {finding.advice}", flush=True)
        print(f"{problems} problems, {warnings} warnings")
    return 1 if problems else 0


def examine(chosen: argparse.Namespace) -> Iterator[Finding]:
    """Every check in turn; one that breaks is itself a problem."""
    uri = absolute_sqlite(chosen.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKER)
    runs = runs_folder(chosen.out)
    data = (chosen.data or Path(os.environ.get("VQSWEEP_DATA") or "data")).absolute()
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": versions,
        "gpu": gpu,
        "memory": memory,
        "disk": lambda: disk({"runs": runs, "data": data, "ray": ray_folder()}),
        "limits": limits,
        "tracker": lambda: (Finding("tracker", *said) for said in check_tracker(uri)),
        "study": lambda: (Finding("study", *said) for said in check_storage(storage_url(chosen.storage))),
        "data": lambda: data_sets(data),
        "ray": ray,
        "ports": ports,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # of a driver, a file system, a library: the other checks are still of use
            yield Finding(name, PROBLEM, f"could not be examined: {type(error).__name__}: {error}")


def versions() -> Iterator[Finding]:
    """Python, and every package that the project's metadata ask for, against what they ask."""
    from packaging.requirements import Requirement

    yield Finding("python", OK, f"{platform.python_version()} on {platform.platform(terse=True)}")
    try:
        declared = [Requirement(line) for line in metadata.requires("vqsweep") or []]
    except metadata.PackageNotFoundError:
        yield Finding("vqsweep", WARNING, "runs from a folder that is not installed", "pip install -e '.[all]'")
        return
    missing: dict[str, list[str]] = {}
    found: list[str] = []
    for wanted in declared:
        extra = str(wanted.marker).partition("extra ==")[2].strip(" \"'") if wanted.marker else ""
        if extra in ("dev", "all") or wanted.name == "vqsweep":
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            missing.setdefault(extra, []).append(wanted.name)
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            advice = f"pip install '{wanted.name}{wanted.specifier}'"
            yield Finding("packages", PROBLEM, f"{wanted.name} is {version}; allowed is {wanted.specifier}", advice)
        elif f"{wanted.name} {version}" not in found:
            found.append(f"{wanted.name} {version}")
    yield Finding("packages", OK, ", ".join(sorted(found, key=str.lower)))
    for extra, names in missing.items():
        level = PROBLEM if extra in ("", "sweep") else WARNING
        advice = f"pip install 'vqsweep[{extra}]'" if extra else "pip install -e ."
        yield Finding("packages", level, f"not installed: {', '.join(dict.fromkeys(names))}", advice)


def gpu() -> Iterator[Finding]:
    """GPUs that torch sees, and a driver that it does not use."""
    import torch

    program = shutil.which("nvidia-smi")
    driver = ""
    if program:
        asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        driver = answer.stdout.split("\n")[0].strip() if answer.returncode == 0 else ""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        free, total = torch.cuda.mem_get_info(number)
        name = f"{torch.cuda.get_device_name(number)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free"
        level, advice = (OK, "") if free > total / 2 else (WARNING, "nvidia-smi says who has it")
        yield Finding(
            "gpu", level, f"{number}: {name}, driver {driver or 'unknown'}, CUDA {torch.version.cuda}", advice
        )
    if not count and driver and torch.version.cuda is None:
        advice = "pip install --force-reinstall torch, without the index of the CPU builds"
        yield Finding("gpu", PROBLEM, f"driver {driver}, but torch {torch.__version__} is a build without CUDA", advice)
    elif not count and driver:
        text = f"driver {driver}, but torch {torch.__version__} for CUDA {torch.version.cuda} sees no GPU"
        yield Finding(
            "gpu", PROBLEM, text, "a newer driver, or a torch for an older CUDA; CUDA_VISIBLE_DEVICES decides"
        )
    elif not count:
        yield Finding("gpu", OK, "none: trials train on CPUs")


def memory() -> Iterator[Finding]:
    """Main memory, and the shared memory in which Ray's processes exchange objects."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    yield Finding("memory", OK, f"{total / GIB:.1f} GiB, {free / GIB:.1f} unused")
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return  # not Linux
    size = shutil.disk_usage(shm).total
    text = f"{shm} has {size / GIB:.1f} GiB"
    if size < GIB:
        yield Finding("memory", WARNING, f"{text}: Ray will use slow files", "in Docker: --shm-size=4g")
    else:
        yield Finding("memory", OK, text)


def disk(folders: dict[str, Path]) -> Iterator[Finding]:
    """Room, and leave to write, where checkpoints, images and Ray's own files go."""
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usage = shutil.disk_usage(there)
        text = f"{usage.free / GIB:.1f} GiB free for {name} in {folder}"
        if not os.access(there, os.W_OK):
            yield Finding(
                "disk", PROBLEM, f"{there} cannot be written, where {name} would go", "another folder, or chown"
            )
        elif usage.free < GIB:
            yield Finding("disk", PROBLEM, text, "make room: a checkpoint has up to some 100 MB, a data set some GB")
        elif usage.free < 10 * GIB or (name == "ray" and usage.free < 0.05 * usage.total):
            yield Finding(
                "disk", WARNING, text, "Ray stops storing objects at 95 %; runs of a large sweep need tens of GB"
            )
        else:
            yield Finding("disk", OK, text)


def ray_folder() -> Path:
    """Where Ray keeps its sockets and logs."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"


def limits() -> Iterator[Finding]:
    """Open files, and the length of a socket's path."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        yield Finding("limits", WARNING, f"{soft} open files; a Ray node wants more", "ulimit -n 65536")
    else:
        yield Finding("limits", OK, f"{soft} open files")
    if len(str(ray_folder())) > LONGEST_TEMP:
        yield Finding("limits", PROBLEM, f"{ray_folder()} is too long for Ray's sockets", "a shorter RAY_TMPDIR")


def data_sets(root: Path) -> Iterator[Finding]:
    """Data sets that are prepared, whether they can be opened, and whether others can be had."""
    from vqvae_core.data import open_dataset

    found = []
    for path in sorted(root.glob("*/dataset.json")):
        try:
            dataset = open_dataset(path.parent)
            found.append(f"{dataset.name} ({sum(dataset.splits.values()):,} images)")
        except (ValueError, OSError, KeyError) as error:
            yield Finding("data", PROBLEM, f"{path.parent} cannot be opened: {error}", "delete it: it is made again")
    yield Finding("data", OK, f"in {root}: {', '.join(found) or 'none prepared yet'}")
    offline = [name for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if os.environ.get(name)]
    if offline:
        yield Finding("data", WARNING, f"{offline[0]} is set: nothing is downloaded", "--data-source DIR, or unset it")


def ray() -> Iterator[Finding]:
    """Which Ray a sweep would use, and its token, which is never printed."""
    mode = os.environ.get(ray_token.MODE, "")
    place = ray_token.place()
    if mode.lower() not in ("", "token", "disabled"):
        yield Finding("ray", PROBLEM, f"{ray_token.MODE} is {mode!r}; allowed are token and disabled")
    text = f"{ray_token.MODE} is {mode or 'not set'}, token: {place or 'none'}"
    yield Finding("ray", OK, text if place or mode else f"{text} (a local Ray makes one, `ray start` asks for none)")
    if place and place != ray_token.TOKEN and Path(place).exists() and Path(place).stat().st_mode & 0o077:
        yield Finding("ray", WARNING, f"{place} can be read by others", f"chmod 600 {place}")
    address = os.environ.get("RAY_ADDRESS") or started_here() or "local"
    if address == "local":
        if why := ray_token.refusal(address):
            yield Finding("ray", PROBLEM, why)
        yield Finding("ray", OK, "no cluster: a sweep starts a Ray of its own on this machine")
        return
    if why := ray_token.refusal(address):
        yield Finding("ray", PROBLEM, why)
    elif "://" not in address and address != "auto" and not answers(address):
        advice = "start it, or unset RAY_ADDRESS"
        yield Finding("ray", PROBLEM, f"RAY_ADDRESS is {address}, where no Ray cluster answers", advice)
    else:
        yield Finding("ray", OK, f"the cluster at {address} answers")


def ports() -> Iterator[Finding]:
    """The usual ports of a cluster's head, for whoever wants to start one here."""
    taken = [port for port in PORTS if answers(f"127.0.0.1:{port}")]
    for port in taken:
        text = f"{port} ({PORTS[port]}) is taken"
        advice = "by a server of yours: use it; else `ray start --port`, `--dashboard-port`, `mlflow server --port`"
        yield Finding("ports", WARNING, text, advice)
    if not taken:
        yield Finding("ports", OK, f"{', '.join(map(str, PORTS))} are free")
