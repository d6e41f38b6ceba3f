"""What is read from a tracker is what was written, by either way, and reading leaves no trace."""

from __future__ import annotations

import hashlib
import http.server
import math
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import made_up_tracker
import pytest

from analysis.runs import DEFAULT_TRACKER, Query, Run, database_file, find_runs, shown, tracking_uri
from vqvae_core.intervals import interval, share_within, t95

QUERIES = [
    Query(),
    Query("FINISHED", ("test/bits_per_dim", "valid/bits_per_dim"), tags_not={"stage": "sweep"}),
    Query("KILLED"),
    Query(tags={"stage": "sweep"}),
    Query(tags={"sweep.id": "50%_of|a&b-1a2b", "stage": "search"}),
    Query(tags={"sweep.id": "it's not there"}),
]


@pytest.fixture(scope="session")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_up_tracker.shared(tmp_path_factory.getbasetemp())


def as_known(runs: list[Run]) -> list[str]:
    """Runs as texts, in which NaN equals itself."""
    return [repr(run) for run in runs]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mlflow's own
@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_the_database_is_read_as_mlflows_client_reads_it_page_by_page(
    tracker: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page of three runs: what SQL finds is what mlflow says, to the last field."""
    from mlflow import MlflowClient

    from analysis import _server

    monkeypatch.setattr(_server, "PAGE", 3)
    asked = _server.pages(MlflowClient(tracker), query)
    read = find_runs(tracker, query)
    assert len({run.id for run in read}) == len(read)

    def normal(run: Run) -> Run:  # their dictionaries in one order
        parts = {name: dict(sorted(getattr(run, name).items())) for name in ("params", "tags", "metrics", "steps")}
        return Run(run.id, run.name, run.experiment, run.status, run.started, **parts)

    asked.sort(key=lambda run: (-run.started, run.id))
    assert as_known([normal(run) for run in read]) == as_known([normal(run) for run in asked])


@pytest.mark.slow
def test_the_tracker_filters(tracker: str) -> None:
    everything = find_runs(tracker)
    assert {run.status for run in everything} == {"FINISHED", "KILLED", "FAILED"}
    assert len(everything) > 3 * 3  # so that the test above needs several pages
    assert all(run.metrics.get("valid/bits_per_dim") != 1.5 for run in everything if run.model == "vqvae")  # deleted
    tested = find_runs(tracker, QUERIES[1])
    assert 0 < len(tested) < len(everything)
    for run in tested:
        assert run.status == "FINISHED" and run.tags["stage"] != "sweep"
        assert math.isfinite(run.metrics["valid/bits_per_dim"]) and not math.isnan(run.metrics["test/bits_per_dim"])
    assert not find_runs(tracker, QUERIES[-1])


@pytest.mark.slow
def test_a_run_is_typed_and_cannot_be_changed(tracker: str) -> None:
    trials = find_runs(tracker, Query(tags={"stage": "confirm"}))
    assert [run.started for run in trials] == sorted((run.started for run in trials), reverse=True)
    (run,) = (run for run in trials if run.seed == 2)
    sweeps = {sweep.id: sweep for sweep in find_runs(tracker, Query(tags={"stage": "sweep"}))}
    assert (run.dataset, run.model, run.study, run.name) == ("cifar10", "vqvae", "beta_lr", "000-seed-2")
    assert sweeps[str(run.parent)].name == "beta_lr-cifar10"
    assert (run.commit, run.dirty, run.params["train.lr"]) == (made_up_tracker.COMMIT, False, "0.0003")
    assert (run.metrics["test/bits_per_dim"], run.steps["test/bits_per_dim"]) == (5.02, 2002)
    with pytest.raises(FrozenInstanceError):
        run.name = "other"  # type: ignore[misc]


@pytest.mark.slow
def test_numbers_that_are_none_come_back_as_they_were_logged(tracker: str) -> None:
    values = [run.metrics.get("test/bits_per_dim", 0.0) for run in find_runs(tracker, Query("FINISHED"))]
    assert sum(map(math.isnan, values)) == 1
    assert values.count(math.inf) == 1


@pytest.mark.slow
def test_reading_changes_no_byte(tracker: str) -> None:
    path = database_file(tracker)
    before = hashlib.sha256(path.read_bytes()).hexdigest(), sorted(path.parent.iterdir())
    find_runs(tracker)
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), sorted(path.parent.iterdir())) == before


@pytest.mark.slow
def test_a_tracker_is_read_while_a_sweep_is_writing(tracker: str) -> None:
    writer = sqlite3.connect(database_file(tracker), isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")  # as mlflow does in the middle of a batch
        assert find_runs(tracker, Query("KILLED"))
    finally:
        writer.execute("ROLLBACK")
        writer.close()


def test_a_missing_database_is_an_empty_tracker_and_stays_missing(tmp_path: Path) -> None:
    assert find_runs(f"sqlite:///{tmp_path / 'mlflow.db'}") == []
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_an_empty_tracker(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert find_runs(f"sqlite:///{tmp_path / 'mlflow.db'}") == []
    assert (tmp_path / "mlflow.db").stat().st_size == 0


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "optuna.db"
    text.write_text("no database\n" * 100)
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE studies (id)")
    database.close()
    for path in (text, other, tmp_path):
        with pytest.raises(ValueError, match=f"^{path} cannot be read as an MLflow database"):
            find_runs(f"sqlite:///{path}")


@pytest.mark.parametrize("uri", ["mlflow.db", "sqlite://", "sqlite:mlflow.db", "file:///tmp", "databricks", ""])
def test_what_is_no_tracking_uri_is_refused_with_what_is(uri: str) -> None:
    with pytest.raises(ValueError, match=r"allowed are sqlite:///file\.db"):
        find_runs(uri)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql", "mysql+pymysql"])
def test_a_server_that_does_not_answer_is_named_without_its_password(scheme: str, closed_port: int) -> None:
    with pytest.raises(ValueError, match="does not answer") as caught:
        find_runs(f"{scheme}://me:secret@127.0.0.1:{closed_port}/name")
    assert f"{scheme}://me:***@127.0.0.1:{closed_port}/name" in str(caught.value)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_accepts_and_is_silent_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis import _server

    monkeypatch.setattr(_server, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ValueError, match="does not answer"):
        find_runs(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.fixture
def other_server() -> Iterator[str]:
    """The address of a web server that is no MLflow: 404 for everything."""

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_server_that_is_no_tracker_is_one_line(other_server: str) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(ValueError, match="cannot be read") as caught:
        find_runs(other_server)
    assert "404" in str(caught.value) and "\n" not in str(caught.value)


def test_which_tracker_a_user_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == DEFAULT_TRACKER
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    assert tracking_uri(None) == "http://there"
    assert tracking_uri("sqlite:///here.db") == "sqlite:///here.db"
    assert database_file("sqlite:////tmp/x.db") == Path("/tmp/x.db")
    assert database_file("sqlite:///x.db?timeout=3") == Path("x.db")
    assert shown("sqlite:///x.db") == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("freedom", "t"),
    # Of any printed table of Student's t, two-sided 95 %.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (10, 2.2281), (29, 2.0452), (120, 1.9799)],
)
def test_students_t_is_the_printed_tables(freedom: int, t: float) -> None:
    assert t95(freedom) == pytest.approx(t, abs=5e-5)
    assert share_within(t95(freedom), freedom) == pytest.approx(0.95, abs=1e-12)


def test_an_interval_needs_two_values() -> None:
    assert interval([1.0]) is None
    assert interval([1.0, 1.0]) == 0
    # Standard deviation 1, three values.
    assert interval([4.0, 5.0, 6.0]) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)


def test_students_t_covers_the_mean_in_95_of_100_samples() -> None:
    import random

    draw = random.Random(0)
    samples = [[draw.gauss(0, 1) for _ in range(3)] for _ in range(4000)]
    covered = sum(abs(sum(sample) / 3) <= (interval(sample) or 0) for sample in samples)
    assert 0.94 < covered / len(samples) < 0.96
