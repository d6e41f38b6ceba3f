"""A PostgreSQL and an MLflow server of one's own, on this machine, for a benchmark or a test, and ended with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 180.0  # seconds for a server to start on a busy machine


class Missing(RuntimeError):
    """A program or a package that a server needs is not installed."""


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until something listens at a port of this machine; ``RuntimeError`` when its process ends before."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise RuntimeError(f"nothing listens at {port}: {log.read_text()}")


@contextmanager
def in_its_own_group(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that writes to ``log``; it and all that it started are ended with the block."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, env=dict(environment), cwd=cwd, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGTERM)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def program(name: str) -> str:
    """A program of PostgreSQL, which Debian does not put on the path; raises ``Missing``."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    if found is None:
        raise Missing("needs the Debian package postgresql")
    return found


def somebody() -> str | None:
    """Who PostgreSQL runs as: it refuses to be root's."""
    if os.geteuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextmanager
def postgres(*databases: str, fsync: bool = False) -> Iterator[str]:
    """A private PostgreSQL with some databases; gives its URL up to the database's name. Raises ``Missing``.

    With ``fsync`` it waits for the disk at every commit, as one whose data matter does.
    """
    try:
        import psycopg2
    except ImportError:
        raise Missing("needs vqsweep[postgres]") from None
    initdb, server, user = program("initdb"), program("postgres"), somebody()
    folder, port = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp")), free_port()
    try:
        if user:
            shutil.chown(folder, user)
        make = [initdb, "-D", str(folder / "data"), "-U", "vqsweep", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run([*make, "--locale=C"], user=user, cwd=folder, check=True, capture_output=True)
        log = folder / "log"
        flags = ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", f"fsync={fsync}"]
        with log.open("wb") as output:
            running = subprocess.Popen(
                [server, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), *flags],
                user=user,
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(port, running, log)
            url = f"postgresql+psycopg2://vqsweep@127.0.0.1:{port}/"
            connection = psycopg2.connect(host="127.0.0.1", port=port, user="vqsweep", dbname="postgres")
            connection.autocommit = True
            with connection.cursor() as cursor:
                for name in databases:
                    cursor.execute(f"CREATE DATABASE {name}")
            connection.close()
            yield url
        finally:
            running.send_signal(signal.SIGINT)
            running.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(
    store: str, artifacts: Path, environment: Mapping[str, str], port: int | None = None
) -> Iterator[str]:
    """`mlflow server` on a backend store, at a free port unless one is given; gives its URL."""
    port, log = port or free_port(), artifacts.parent / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(artifacts)]
    variables = {**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes, for language models
    with in_its_own_group(command, variables, log, artifacts.parent) as running:
        wait_for(port, running, log)
        yield f"http://127.0.0.1:{port}"
