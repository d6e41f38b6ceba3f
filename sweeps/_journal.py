"""What the tracker is to be told, on disk first: nothing is lost with a process or a server, and nothing told twice."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from vqvae_core.files import write_whole

Event = dict[str, Any]


class Journal:
    """Events as lines of JSON, and how far the tracker has got with them.

    Written by the driver only. A line that a crash cut short is dropped when the journal is opened again: whoever wrote
    it had not gone on, and will write it again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._mark = folder / "journal.jsonl", folder / "journal.told"
        self._repair()
        self.reports: dict[str, Event] = {}  # by run: the last one
        self.started: set[str] = set()
        self.ended: dict[str, Event] = {}  # by run: its end, until it is started again
        self.extras: dict[str, Event] = {}
        for event in self._read(0):
            self._note(event[1])
        self._file = self._path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self.grown = threading.Event()

    def add(self, kind: str, run: str, **content: Any) -> bool:
        """Append an event; False when the journal has it already (the same step, a second end, the same extra).

        Raises ``OSError`` when it cannot be written; the journal is then as it was.
        """
        with self._lock:
            if kind == "report" and content["step"] <= self.last_step(run):
                return False
            if kind == "end" and run in self.ended:
                return False
            if kind == "extra" and content == self.extras.get(run):
                return False
            event: Event = {"kind": kind, "run": run, "time": time.time_ns() // 1_000_000, **content}
            self._write(json.dumps(event).encode() + b"\n")
            self._note(event)
        self.grown.set()
        return True

    def last_step(self, run: str) -> int:
        """Images seen at a run's last report, -1 before the first."""
        return int(self.reports[run]["step"]) if run in self.reports else -1

    def untold(self) -> Iterator[tuple[int, Event]]:
        """Events that the tracker does not have yet, each with the position behind it."""
        return self._read(self.position())

    def position(self) -> int:
        """How far the tracker has got, in bytes."""
        try:
            return int(self._mark.read_text())
        except FileNotFoundError:
            return 0

    def told(self, position: int) -> None:
        """The tracker has everything before ``position``."""
        write_whole(self._mark, str(position))

    def close(self) -> None:
        """No more events."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        """A whole line, or none: a disk that fills up may take the half of it."""
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError as error:
            self._file.truncate(before)
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def _note(self, event: Event) -> None:
        if event["kind"] == "report":
            self.reports[event["run"]] = event
        elif event["kind"] == "end":
            self.ended[event["run"]] = event
        elif event["kind"] == "extra":
            self.extras[event["run"]] = {"step": event["step"], "metrics": event["metrics"]}
        elif event["kind"] == "start":
            self.started.add(event["run"])
            self.ended.pop(event["run"], None)

    def _read(self, position: int) -> Iterator[tuple[int, Event]]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield position, json.loads(line)

    def _repair(self) -> None:
        if self._path.exists():
            content = self._path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                with self._path.open("r+b") as file:
                    file.truncate(whole)


def state_of(folder: Path, run: str) -> str | None:
    """How a run ended, by the journal of a sweep's folder; None while it has not. Reads only, so anybody may ask."""
    state = None
    with suppress(FileNotFoundError):
        for line in (folder / "journal.jsonl").read_bytes().splitlines(keepends=True):
            event = json.loads(line) if line.endswith(b"\n") else {}
            if event.get("run") == run and event["kind"] in ("start", "end"):
                state = event.get("state")
    return state


def begun(folder: Path) -> datetime | None:
    """When the journal of a sweep's folder was begun; None where there is none. Reads only."""
    with suppress(FileNotFoundError), (folder / "journal.jsonl").open() as file:
        if (line := file.readline()).endswith("\n"):
            return datetime.fromtimestamp(json.loads(line)["time"] / 1000)
    return None
