"""What the tracker is to be told, on disk first: nothing is lost with a process or a server, and nothing told twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
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
        self.last_step: dict[str, int] = {}  # by run: images seen at the last report in the journal
        self.started: set[str] = set()
        self.ended: set[str] = set()
        self.extras: dict[str, Event] = {}
        for event in self._read(0):
            self._note(event[1])
        self._file = self._path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self.grown = threading.Event()

    def add(self, kind: str, run: str, **content: Any) -> bool:
        """Append an event; False when the journal has it already (the same step, a second end, the same extra)."""
        with self._lock:
            if kind == "report" and content["step"] <= self.last_step.get(run, -1):
                return False
            if kind == "end" and run in self.ended:
                return False
            if kind == "extra" and content == self.extras.get(run):
                return False
            event: Event = {"kind": kind, "run": run, "time": time.time_ns() // 1_000_000, **content}
            self._note(event)
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        self.grown.set()
        return True

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

    def _note(self, event: Event) -> None:
        if event["kind"] == "report":
            self.last_step[event["run"]] = event["step"]
        elif event["kind"] == "end":
            self.ended.add(event["run"])
        elif event["kind"] == "extra":
            self.extras[event["run"]] = {"step": event["step"], "metrics": event["metrics"]}
        elif event["kind"] == "start":
            self.started.add(event["run"])
            self.ended.discard(event["run"])

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
