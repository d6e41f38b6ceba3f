"""What the tracker holds, read only: every sweep, trial and replicate as a frozen ``Run``.

An SQLite tracker is read with a few SQL statements and without importing mlflow: its client needs seconds to start and
three milliseconds a run, creates what is not there and refuses a database of another mlflow version. Anything else is
asked through mlflow's client, page by page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

DEFAULT_TRACKER = "sqlite:///mlflow.db"


@dataclass(frozen=True)
class Run:
    """One run of the tracker, with the last value of each metric."""

    id: str
    name: str
    experiment: str  # <dataset>/<study>
    status: str  # FINISHED = complete, KILLED = stopped early, FAILED, RUNNING
    started: int  # ms since 1970
    params: Mapping[str, str]  # the flat dotted config
    tags: Mapping[str, str]
    metrics: Mapping[str, float]  # NaN and infinities are themselves
    steps: Mapping[str, int]  # images seen when the metric was measured
    ended: int = 0  # ms since 1970; 0 = not yet
    artifacts: str = ""  # where its pictures and weights lie: file:///..., mlflow-artifacts:/..., s3://...

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return self.params.get("data.name") or self.experiment.partition("/")[0]

    @property
    def model(self) -> str:
        """``vqvae``, ``vae``, ..."""
        return self.params.get("model.type", "unknown")

    @property
    def study(self) -> str:
        """The sweep's file: ``beta_lr`` of ``mnist/beta_lr``."""
        return self.experiment.partition("/")[2]

    @property
    def seed(self) -> int | None:
        """Seed of everything random in the run."""
        text = self.tags.get("seed") or self.params.get("seed", "")
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    @property
    def parent(self) -> str | None:
        """Id of the sweep that a trial belongs to, or of the trial that a replicate repeats."""
        return self.tags.get("mlflow.parentRunId")

    @property
    def commit(self) -> str:
        """Full hash of the code's commit, or ``unknown``."""
        return self.tags.get("mlflow.source.git.commit") or "unknown"

    @property
    def dirty(self) -> bool:
        """Whether the code had been changed since that commit."""
        return self.tags.get("git.dirty") == "true"


@dataclass(frozen=True)
class Query:
    """Which runs; everything left empty means any. The tracker does the filtering."""

    status: str = ""  # FINISHED, ...
    measured: tuple[str, ...] = ()  # metrics, never negative ones, that a run must have, and not as NaN
    tags: Mapping[str, str] = field(default_factory=dict)  # that a run must have
    tags_not: Mapping[str, str] = field(default_factory=dict)  # that must be there with another value


def find_runs(uri: str, query: Query | None = None) -> list[Run]:
    """The runs that a query means, newest first; none when the database file does not exist.

    Raises ``ValueError`` with one line when nothing answers at ``uri`` or what does is no MLflow tracker.
    """
    query = query or Query()
    if is_missing(uri):
        return []
    if uri.startswith("sqlite:"):
        from analysis import _sqlite

        found = _sqlite.read(database_file(uri), query)
    else:
        from analysis import _server  # imports mlflow

        found = _server.read(uri, query)
    return sorted(found, key=lambda run: (-run.started, run.id))


Curve = list[tuple[int, float]]  # (images seen, value), in the order of images seen


def find_curves(uri: str, runs: Sequence[Run], metric: str) -> dict[str, Curve]:
    """Every value that ``metric`` had in some runs, by the run's id; a step that was told twice counts once, as last.

    Raises ``ValueError`` when nothing answers at ``uri``. A server is asked once a run: give it no more than needed.
    """
    if not runs:
        return {}
    if uri.startswith("sqlite:"):
        from analysis import _sqlite

        return _sqlite.curves(database_file(uri), [run.id for run in runs], metric)
    from analysis import _server

    return _server.curves(uri, [run.id for run in runs], metric)


def read_artifact(uri: str, run: Run, name: str) -> bytes | None:
    """A file that was logged with a run; None when there is none of that name, or when its place does not answer."""
    if run.artifacts.startswith(("file:", "/")):
        path = Path(unquote(urlsplit(run.artifacts).path)) / name
        try:
            return path.read_bytes()
        except OSError:
            return None
    from analysis import _server

    return _server.artifact(uri, run, name)


def tracking_uri(given: str | None) -> str:
    """The tracker that a user means: the flag, else ``$MLFLOW_TRACKING_URI``, else the file in this folder."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKER


def database_file(uri: str) -> Path:
    """``sqlite:///mlflow.db`` -> ``mlflow.db``, ``sqlite:////tmp/mlflow.db`` -> ``/tmp/mlflow.db``."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if not uri.startswith("sqlite:///") or not path:
        raise ValueError(f"the tracking URI is {uri!r}; allowed are sqlite:///file.db, postgresql://... and http://...")
    return Path(path)


def is_missing(uri: str) -> bool:
    """Whether a tracker is a file that does not exist, as before the first sweep."""
    return uri.startswith("sqlite:") and not database_file(uri).exists()


def shown(uri: str) -> str:
    """A tracking URI as it may be printed and published: without its password."""
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", uri)
