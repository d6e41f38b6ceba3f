"""The writing side of MLflow: one thread of the driver, which training never waits for.

Experiment ``<dataset>/<study>``, a parent run for the sweep, a child for each trial, a grandchild for each replicate.
The thread reads the journal; a tracker that is away, slow or locked is tried again until it is back.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps._database import make_database
from sweeps._journal import Event, Journal
from vqvae_core.overrides import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

# One short attempt: the journal is our patience; mlflow's own (four minutes a call) would only hide the outage.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a repeated "create" makes two runs
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a line for each run, between ours

PAGES = ("/health", "/api/2.0/mlflow/experiments/search?max_results=1")  # an MLflow server has both
PATIENCE = 60.0  # seconds for a tracker that does not answer as a sweep begins or ends
TRIES = 5  # of what a tracker calls a bad request, before it is believed

SWEEP = "sweep"  # the journal's name for the parent run
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "stopped": "KILLED"}


def check(uri: str) -> None:
    """``ValueError`` when nothing answers at a tracking URI, in seconds; writes nothing."""
    if uri.startswith(("http://", "https://")):
        # Other errors than "not found" are those of a server that wants a password, or is at its start.
        if all(answer(uri.rstrip("/") + page, uri) == 404 for page in PAGES):
            raise ValueError(f"the tracking URI {uri} is answered by a server that is no MLflow: it has no {PAGES[0]}")
    elif uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise ValueError(f"the tracking URI {uri} is no place to write: {path.parent} is not a writable folder")
        if path.exists() and not is_database(path):
            raise ValueError(f"the tracking URI {uri} is no tracker: {path} is no SQLite database that can be written")
    elif "://" in uri and not uri.startswith("file:"):
        try:
            reach(uri)  # MLflow itself would try for two minutes
            client_of(uri).search_experiments(max_results=1)
        except Exception as error:
            raise ValueError(f"the tracking URI {uri} does not answer ({first_line(error)})") from None
    else:
        raise ValueError(f"the tracking URI is {uri!r}; allowed are sqlite:///file.db, postgresql://... and http://...")


def answer(page: str, uri: str) -> int:
    """The status with which a server answers; ``ValueError``, which names the tracking URI, where nobody does."""
    try:
        with urllib.request.urlopen(page, timeout=5) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"the tracking URI {uri} does not answer ({reason}); is `mlflow server` running?") from None


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database, or empty as one that was just made, and may be written."""
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        return False
    with path.open("rb") as file:
        return file.read(16) in (b"", b"SQLite format 3\0")


def reach(uri: str) -> None:
    """``OSError`` when nobody listens at a database's host and port; says nothing of a URI without a host."""
    parts = urllib.parse.urlsplit(uri)
    port = parts.port or {"postgresql": 5432, "mysql": 3306, "mssql": 1433}.get(parts.scheme.partition("+")[0])
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=5).close()


def find_run(uri: str, run: str, sweep_id: re.Pattern[str]) -> str | None:
    """MLflow's id of a run of another sweep: the newest of that name in a sweep whose id is like that."""
    client, token, found = client_of(uri), None, []
    experiments = [str(e.experiment_id) for e in client.search_experiments()]
    while True:
        page = client.search_runs(
            experiments, f"tags.`sweep.run` = '{run}'", max_results=1000, page_token=token, order_by=["start_time DESC"]
        )
        found += [r.info.run_id for r in page if sweep_id.fullmatch(r.data.tags.get("sweep.id", ""))]
        token = page.token
        if not token:
            return found[0] if found else None


class Tracker:
    """Tells the journal's events to MLflow, in order, until it is closed."""

    def __init__(self, uri: str, experiment: str, sweep_id: str, journal: Journal) -> None:
        self.uri, self.experiment, self.sweep_id, self.journal = uri, experiment, sweep_id, journal
        self.trouble: str | None = None  # why the tracker cannot be reached at present
        self.refused: list[str] = []  # events that it will never take
        self._runs: dict[str, str] = {}  # journal's name -> MLflow run id
        self._experiment_id = ""
        self._tries = 0  # of the event that is to be told next
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    def start(self) -> None:
        """Create database and experiment, before any worker can race for them, and begin to tell.

        Raises ``ValueError`` when the tracker does not answer within ``PATIENCE``.
        """
        began = time.monotonic()
        while True:
            try:
                self._client = client_of(self.uri)
                self._experiment_id = self._find_experiment()
                self._find_runs()
                break
            except Exception as error:  # locked, or just starting
                if time.monotonic() - began > PATIENCE:
                    raise ValueError(f"the tracking URI {self.uri} does not answer ({first_line(error)})") from None
                time.sleep(1)
        self._thread.start()

    def close(self, patience: float = PATIENCE) -> int:
        """Tell the rest, for at most ``patience`` seconds; gives the number of events that stay in the journal."""
        self._closing.set()
        self.journal.grown.set()
        self._thread.join(patience)
        return sum(1 for _ in self.journal.untold())

    def run_id(self, run: str) -> str | None:
        """MLflow's id of a run, once it is there."""
        return self._runs.get(run)

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found:
            return str(found.experiment_id)
        location = None
        if self.uri.startswith("sqlite:///"):  # MLflow would take ./mlruns of whoever asks first
            location = (Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / self.experiment).as_uri()
        # Without it, MLflow's pages are those for language models: traces, judges, prompts.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(self.experiment, artifact_location=location, tags=kind))

    def _find_runs(self) -> None:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id], f"tags.`sweep.id` = '{self.sweep_id}'", max_results=1000, page_token=token
            )
            self._runs |= {run.data.tags["sweep.run"]: run.info.run_id for run in page if "sweep.run" in run.data.tags}
            token = page.token
            if not token:
                return

    def _work(self) -> None:
        pause = 0.2
        while True:
            self.journal.grown.clear()
            closing = self._closing.is_set()
            try:
                if self.trouble:  # a run may have been created although the answer was lost
                    self._find_runs()
                self._tell_all()
                self.trouble, pause = None, 0.2
                if closing:
                    return
                self.journal.grown.wait(1.0)
            except Exception as error:  # whatever a driver, a proxy or a full disk can think of: it may pass
                self.trouble = first_line(error)
                time.sleep(pause)
                pause = min(pause * 2, 5.0)

    def _tell_all(self) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        for position, event in _batched(list(self.journal.untold())):
            try:
                if event["kind"] != "start" and event["run"] not in self._runs:
                    raise MlflowException("its run was refused", RESOURCE_DOES_NOT_EXIST)
                self._tell(event)
            except MlflowException as error:
                self._tries += 1
                if not _is_final(error, self._tries):
                    raise
                self.refused.append(f"{event['kind']} of {event['run']}: {first_line(error)}")
            self.journal.told(position)
            self._tries = 0

    def _tell(self, event: Event) -> None:
        run = event["run"]
        match event["kind"]:
            case "start":
                self._start_run(event)
            case "report":
                self._client.log_batch(self._runs[run], metrics=_metrics(event["points"]))
            case "tags":
                self._client.log_batch(self._runs[run], tags=_tags(event))
            case "artifact":
                if Path(event["path"]).exists():
                    self._client.log_artifact(self._runs[run], event["path"], event.get("to"))
            case "end":
                self._client.log_batch(self._runs[run], tags=_tags(event))
                self._client.set_terminated(self._runs[run], STATUS[event["state"]], event["time"])

    def _start_run(self, event: Event) -> None:
        from mlflow.entities import Param

        run, parent = event["run"], event.get("parent")
        tags = {"sweep.id": self.sweep_id, "sweep.run": run, **event["tags"]}
        if parent:
            tags["mlflow.parentRunId"] = self._runs[parent]
        known: dict[str, str] = {}
        if run in self._runs:  # a continued sweep, or a start that was told just before a crash
            self._client.update_run(self._runs[run], "RUNNING")
            known = self._client.get_run(self._runs[run]).data.params
        else:
            created = self._client.create_run(self._experiment_id, event["time"], tags, event["name"])
            self._runs[run] = created.info.run_id
            if dataset := _dataset(event):
                self._client.log_inputs(self._runs[run], [dataset])
        if "config" in event:
            self._client.log_dict(self._runs[run], event["config"], "experiment.json")
        # MLflow refuses to change one; those that a continued sweep may change say where it was begun.
        params = [Param(name, str(value)) for name, value in event["params"].items() if name not in known]
        for start in range(0, len(params), 100):
            self._client.log_batch(self._runs[run], params=params[start : start + 100])


def _batched(events: list[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """Reports of one run that follow each other become one event, and one transaction."""
    merged: list[tuple[int, Event]] = []
    for position, event in events:
        if event["kind"] in ("report", "extra"):
            points = [(name, value, event["time"], event["step"]) for name, value in event["metrics"].items()]
            before = merged[-1][1] if merged else None
            if before and before["kind"] == "report" and before["run"] == event["run"] and len(before["points"]) < 800:
                merged[-1] = (position, {**before, "points": before["points"] + points})
                continue
            event = {"kind": "report", "run": event["run"], "points": points}
        merged.append((position, event))
    return merged


def _dataset(event: Event) -> Any:
    """The images of a run as MLflow shows them beside it; None where the event does not say which they are."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = event["tags"]
    name, digest = event["params"].get("data.name"), tags.get("data.fingerprint")
    if not name or not digest:
        return None
    source = json.dumps({"from": tags.get("data.from", "unknown")})
    profile = json.dumps({key.removeprefix("data."): tags[key] for key in sorted(tags) if key.endswith("_images")})
    images = Dataset(name, digest[:36], "code", source, profile=profile)
    return DatasetInput(images, [InputTag("mlflow.data.context", "training")])


def _metrics(points: list[tuple[str, float, int, int]]) -> list[Any]:
    """The points of a batch, what matters first: MLflow's plots begin with the metric that a run had first."""
    from mlflow.entities import Metric

    points = sorted(
        points, key=lambda point: (not point[0].endswith("/bits_per_dim"), not point[0].startswith("valid/"))
    )
    return [Metric(name, value, moment, step) for name, value, moment, step in points]


def _tags(event: Event) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in event["tags"].items()]


def client_of(uri: str) -> MlflowClient:
    """MLflow's client for a tracking URI, which says nothing of its troubles; the file of ``sqlite:///`` is made."""
    import logging

    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # of its troubles we tell ourselves
    if uri.startswith("sqlite:///"):
        make_database(Path(uri.removeprefix("sqlite:///").partition("?")[0]))
    return MlflowClient(uri)


def _is_final(error: Any, tries: int) -> bool:
    """Whether the tracker understood and refused, so that asking again is of no use."""
    code = getattr(error, "error_code", "")
    if code == "BAD_REQUEST":  # also what MLflow makes of some troubles of its database
        return tries >= TRIES
    return code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
