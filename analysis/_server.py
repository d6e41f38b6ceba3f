"""Runs from a tracking server or a database server, through mlflow's client, page by page."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from analysis._sqlite import number
from analysis.runs import Curve, Query, Run, shown
from vqvae_core.overrides import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

PAGE = 1000  # runs asked for at once
QUESTIONS = 8  # asked at the same time, where each run needs one of its own
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
ANSWER = 5.0  # seconds in which a server must say that it is there

# A reader is told at once; mlflow's own patience is four minutes a call.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def read(uri: str, query: Query) -> list[Run]:
    """The runs that a query means; ``ValueError`` when nobody answers, or somebody who does not know MLflow."""
    with _reading(uri) as client:
        return pages(client, query)


@contextmanager
def _reading(uri: str) -> Iterator[MlflowClient]:
    """A client of the tracker at ``uri``; whatever it raises becomes a ``ValueError`` of one line."""
    check(uri)
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise ValueError("a tracking server is read with mlflow: pip install 'vqsweep[analysis]'") from None
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it has to say is in its exceptions
    try:
        yield MlflowClient(uri)
    except Exception as error:  # of any driver, proxy or server
        reason = first_line(error)
        raise ValueError(f"the tracking URI {shown(uri)} cannot be read ({reason})") from None


def check(uri: str) -> None:
    """``ValueError`` when nothing answers at a tracking URI, in seconds."""
    try:
        place = urlsplit(uri)
        port = place.port or PORTS.get(place.scheme.partition("+")[0])
    except ValueError as error:
        raise ValueError(f"the tracking URI {shown(uri)} cannot be read ({error})") from None
    try:
        if place.scheme in ("http", "https"):
            urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=ANSWER).close()
        elif port is None:
            allowed = "sqlite:///file.db, postgresql://... and http://..."
            raise ValueError(f"the tracking URI is {shown(uri)!r}; allowed are {allowed}")
        elif place.hostname:  # none: a socket of this machine
            socket.create_connection((place.hostname, port), timeout=ANSWER).close()
    except urllib.error.HTTPError:
        return  # someone answers; whether it is MLflow, and lets us in, shows when we read
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"the tracking URI {shown(uri)} does not answer ({reason}); is the server running?") from None


def pages(client: MlflowClient, query: Query) -> list[Run]:
    """Every page of what a query means."""
    names = _experiments(client)
    found: list[Run] = []
    token = None
    while names:
        page = client.search_runs(list(names), filter_text(query), max_results=PAGE, page_token=token)
        found += [_run(run, names) for run in page]
        token = page.token
        if not token:
            break
    return found


def _experiments(client: MlflowClient) -> dict[str, str]:
    """The name of every experiment, by its id."""
    names: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        names |= {str(experiment.experiment_id): experiment.name for experiment in page}
        token = page.token
        if not token:
            return names


def filter_text(query: Query) -> str:
    """A query in MLflow's own language."""
    terms = [f"attributes.status = '{query.status}'"] if query.status else []
    terms += [f"metrics.`{name}` >= 0" for name in query.measured]
    terms += [f"tags.`{name}` = {_quoted(value)}" for name, value in query.tags.items()]
    terms += [f"tags.`{name}` != {_quoted(value)}" for name, value in query.tags_not.items()]
    return " and ".join(terms)


def _quoted(value: str) -> str:
    if "'" in value and '"' in value:
        raise ValueError(f"{value!r} cannot be searched for: it has quotes of both kinds")
    return f'"{value}"' if "'" in value else f"'{value}'"


def _run(run: MlflowRun, experiments: dict[str, str]) -> Run:
    info, data = run.info, run.data
    metrics = data.to_proto().metrics  # the only public place that has the steps
    return Run(
        id=info.run_id,
        name=info.run_name or "",
        experiment=experiments[info.experiment_id],
        status=info.status,
        started=info.start_time or 0,
        params=dict(data.params),
        tags=dict(data.tags),
        metrics={metric.key: number(metric.value) for metric in metrics},
        steps={metric.key: metric.step for metric in metrics},
        ended=info.end_time or 0,
        artifacts=info.artifact_uri or "",
    )


def curves(uri: str, runs: Sequence[str], metric: str) -> dict[str, Curve]:
    """The history of a metric in some runs, asked for one by one: mlflow's client knows no other way."""
    with _reading(uri) as client, ThreadPoolExecutor(QUESTIONS) as pool:
        return dict(zip(runs, pool.map(lambda run: _curve(client.get_metric_history(run, metric)), runs), strict=True))


def _curve(history: Iterable[Metric]) -> Curve:
    told = sorted((point.step, point.timestamp, number(point.value)) for point in history)
    return list({step: (step, value) for step, _, value in told}.values())


def artifact(uri: str, run: Run, name: str) -> bytes | None:
    """A file that was logged with a run, by way of the server or from its own place; None when it cannot be had."""
    from mlflow import MlflowClient, artifacts

    with tempfile.TemporaryDirectory() as folder:
        try:
            if uri.startswith("sqlite:"):
                found = artifacts.download_artifacts(artifact_uri=f"{run.artifacts}/{name}", dst_path=folder)
            else:
                found = MlflowClient(uri).download_artifacts(run.id, name, folder)
            return Path(found).read_bytes()
        except Exception:  # of any store's own driver; a report goes on without the picture
            return None
