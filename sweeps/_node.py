"""What a driver does when Ray's own processes, which it has started, are gone: end, for nobody else would tell it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

NEEDED = ("raylet", "gcs_server")  # the others, for logs and pages, may be missed
LOST = 1  # exit status of a driver without them
EVERY = 1.0  # seconds


@contextmanager
def ends_with_ray(before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within the block, this process ends soon after the raylet or the GCS that it has started.

    Tune would wait for ever for actors that are gone, in a call that Ctrl-C does not reach. What was reported is in the
    journal, the study and the checkpoints, as after a SIGKILL of the driver; ``before`` is called first, to leave the
    terminal as it was. Of a cluster that others have started, Ray itself ends its drivers.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            if death := lost():
                with suppress(Exception):
                    before()
                print(f"error: {death}; the same command continues the sweep", file=sys.stderr, flush=True)
                sys.stdout.flush()
                end_the_rest()
                os._exit(LOST)

    thread = threading.Thread(target=watch, name="ends with ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def leave_if_lost(status: int) -> None:
    """End this process at its end with an exit status, if Ray's processes are gone, as after a SIGTERM to a group.

    Ray's own shutdown would look for them for a minute, and then complain.
    """
    if "ray" in sys.modules and lost():
        end_the_rest()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def lost() -> str:
    """Which process of Ray's that this one has started is gone, and how; empty while all that are needed are there."""
    import ray
    from ray._private import worker

    node: Any = worker._global_node
    if node is None or not ray.is_initialized():  # not yet, or no longer
        return ""
    for kind in NEEDED:
        for info in node.all_processes.get(kind, []):
            status = info.process.poll()
            # Ray's own shutdown first disconnects, then ends them.
            if status is not None and ray.is_initialized():
                how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
                return f"Ray's {kind} on this machine, which this sweep had started, was ended {how}"
    return ""


def end_the_rest() -> None:
    """What is left of Ray's processes; its workers end by themselves without their raylet."""
    from ray._private import worker

    node: Any = worker._global_node
    with suppress(Exception):
        node.kill_all_processes(check_alive=False, allow_graceful=False)
