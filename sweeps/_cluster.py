"""Which Ray a sweep runs on, and what it has to offer."""

from __future__ import annotations

import logging
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atari_collect import ray_token

STARTS = 3  # of a Ray of our own, before we give up


@dataclass(frozen=True)
class Cluster:
    """CPUs and GPUs that a sweep may use, and where they are."""

    cpus: int
    gpus: int
    address: str  # "local" for a Ray of our own on this machine

    def __str__(self) -> str:
        where = "this machine" if self.address == "local" else f"the Ray cluster at {self.address}"
        gpus = f", {self.gpus} GPU{'s' if self.gpus != 1 else ''}" if self.gpus else ", no GPU"
        return f"{where}: {self.cpus} CPU{'s' if self.cpus != 1 else ''}{gpus}"


def find(with_groups: bool = False) -> Cluster:
    """The cluster that ``RAY_ADDRESS`` names or that ``ray start`` started here, else this machine; starts nothing.

    ``with_groups`` as in ``connect``. Raises ``ValueError`` when ``RAY_ADDRESS`` names a cluster that does not answer.
    """
    address = os.environ.get("RAY_ADDRESS") or started_here()
    if address and address != "local":
        return _of_running(address, with_groups)
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cluster(cpus, torch.cuda.device_count(), "local")


def connect(cluster: Cluster, with_groups: bool = False) -> None:
    """Start or join Ray; ``with_groups`` for trials of several workers.

    When Tune stops such a trial, what frees its workers asks Ray's dashboard whether the trial is still there. Without
    a dashboard, or where it cannot tell which of several Rays on the machine is meant, they would hold their CPUs for
    ever, and the next trial would wait for ever. So there is a dashboard, and its address is in every process's
    environment.
    """
    import ray

    if ray.is_initialized():
        return
    if why := ray_token.refusal(cluster.address):
        raise ValueError(why)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if cluster.address == "local":
        options |= {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "include_dashboard": with_groups}
        if with_groups:
            options["dashboard_port"] = port = _free_port()
            os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    elif with_groups and ":" in cluster.address and "://" not in cluster.address:
        options["runtime_env"] = {"env_vars": {"RAY_ADDRESS": cluster.address}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            start(cluster.address, options)
        except (ConnectionError, ray.exceptions.RayError) as error:
            raise ValueError(
                f"{error}; RAY_ADDRESS and Ray's token (RAY_AUTH_MODE, ~/.ray/auth_token) decide"
            ) from None
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)


def start(address: str, options: dict[str, Any]) -> None:
    """``ray.init``, once more where a busy machine kept Ray's own parts from starting.

    A node ends itself when its agents are not there after 15 s, which nothing can change; on a machine whose cores are
    all taken that happens. Raises ``ValueError`` when they were late ``STARTS`` times.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:  # Ray raises a plain one
            late = type(error) is Exception and "timed out during startup" in str(error)
            if address != "local" or not late:
                raise
            ray.shutdown()
            if attempt == STARTS:
                raise ValueError(f"Ray did not start in {STARTS} attempts: the machine is too busy ({error})") from None


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def started_here() -> str | None:
    """The address that ``ray start`` left on this machine, if its cluster still answers."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    try:
        address = note.read_text().strip()
    except OSError:
        return None
    return address if address and answers(address) else None


def answers(address: str) -> bool:
    import socket

    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=3):
            return True
    except (OSError, ValueError):
        return False


def _of_running(address: str, with_groups: bool) -> Cluster:
    if "://" not in address and address != "auto" and not answers(address):
        raise ValueError(f"RAY_ADDRESS is {address!r}, where no Ray cluster answers; start it, or unset RAY_ADDRESS")
    import ray

    connect(Cluster(0, 0, address), with_groups)
    resources, later = ray.cluster_resources(), grows_to()
    cpus, gpus = (int(max(resources.get(name, 0), later.get(name, 0))) for name in ("CPU", "GPU"))
    if not cpus:
        raise ValueError(
            f"the Ray cluster at {address} has no CPU; if it grows by itself, set VQSWEEP_GROWS_TO, as CPU=64,GPU=8"
        )
    return Cluster(cpus, gpus, address)


def grows_to() -> dict[str, int]:
    """What an autoscaling cluster may come to have, from ``VQSWEEP_GROWS_TO``; empty when it does not grow.

    Such a cluster begins with no worker at all, and a plan for what is there now would ask for none.
    """
    text = os.environ.get("VQSWEEP_GROWS_TO", "")
    found = dict(re.findall(r"(CPU|GPU)=(\d+)(?:,|$)", text))
    if ",".join(f"{name}={number}" for name, number in found.items()) != text:
        raise ValueError(f"VQSWEEP_GROWS_TO is {text!r}; allowed is such as CPU=64,GPU=8")
    return {name: int(number) for name, number in found.items()}
