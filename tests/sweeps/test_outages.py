"""What the databases of a sweep can do to it: be locked, be away, be slow. Nothing is lost and nothing told twice."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from mlflow import MlflowClient

from sweeps._journal import Journal
from sweeps._plan import Plan
from sweeps._study import open_storage, open_study
from sweeps._tracker import SWEEP, Tracker, client_of

ROOT = Path(__file__).parents[2]


@contextmanager
def locked(database: Path, seconds: float | None = None) -> Iterator[None]:
    """Somebody holds an sqlite database for himself for so long, or else to the end of the block."""
    begun, over = threading.Event(), threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(database)
        connection.execute("begin exclusive")
        begun.set()
        over.wait(seconds)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        if seconds is None:
            over.set()
        thread.join()


def events(journal: Journal, runs: int, steps: range) -> None:
    for step in steps:
        for number in range(runs):
            journal.add(
                "report", f"{number:03d}", step=step, metrics={"valid/mse": number + step / 100, "train/x": 0.5}
            )


def begun(journal: Journal, runs: int) -> None:
    journal.add("start", SWEEP, name="outage", tags={}, params={})
    for number in range(runs):
        name = f"{number:03d}"
        journal.add("start", name, name=name, parent=SWEEP, tags={"stage": "sweep"}, params={"a": number})


def told(database: Path) -> list[tuple[str, str, int, float]]:
    """Every metric point in an MLflow database, as often as it is there."""
    connection = sqlite3.connect(database)
    rows = connection.execute(
        "select t.value, m.key, m.step, m.value from metrics m join tags t on t.run_uuid = m.run_uuid "
        "where t.key = 'sweep.run'"
    ).fetchall()
    connection.close()
    return sorted(rows)


def expected(runs: int, steps: range) -> list[tuple[str, str, int, float]]:
    points = [(f"{n:03d}", "valid/mse", step, n + step / 100) for n in range(runs) for step in steps]
    return sorted([*points, *((f"{n:03d}", "train/x", step, 0.5) for n in range(runs) for step in steps)])


class TestStudy:
    @pytest.fixture
    def plan(self, make: Callable[..., Plan]) -> Plan:
        return make("--trials", "4")

    def test_that_is_locked_is_waited_for(self, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
        study = open_study(plan, open_storage(plan.storage))
        with locked(Path(plan.storage.removeprefix("sqlite:///")), 7):
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
        trial.report(3.0, 10)
        study.tell(trial, 2.0)
        assert [t.value for t in open_study(plan, open_storage(plan.storage)).trials] == [2.0]
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "cannot be reached (database is locked); waiting" in said

    def test_that_stays_locked_is_one_line(self, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        study = open_study(plan, open_storage(plan.storage))
        monkeypatch.setattr("sweeps._study.PATIENCE", 1.0)
        with (
            locked(Path(plan.storage.removeprefix("sqlite:///")), 8),
            pytest.raises(ValueError, match=r"the study in sqlite:.* cannot be reached \(database is locked\)$"),
        ):
            study.ask()

    def test_on_a_full_disk_is_an_oserror(self, plan: Plan) -> None:
        study = open_study(plan, open_storage(plan.storage))
        engine = study._storage._backend.engine  # type: ignore[attr-defined]

        def limit(connection: sqlite3.Connection, *_: object) -> None:
            """As far as sqlite knows, the disk ends here."""
            pages = connection.execute("pragma page_count").fetchone()[0]
            connection.execute(f"pragma max_page_count = {pages}")

        sqlalchemy.event.listen(engine, "connect", limit)
        engine.dispose()
        with pytest.raises(OSError, match="disk is full") as caught:
            study.set_user_attr("much", "x" * 100_000)
        assert caught.value.errno == 28


class TestTracker:
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        journal = Journal(tmp_path / "run")
        yield journal
        journal.close()

    @pytest.mark.slow
    def test_that_is_locked_is_told_once_it_is_free(
        self, tracked: Path, journal: Journal, capfd: pytest.CaptureFixture[str]
    ) -> None:
        database = tracked / "mlflow.db"
        begun(journal, 2)
        tracker = Tracker(f"sqlite:///{database}", "digits/outage", "id", journal)
        with locked(database, 7):
            tracker.start()
        with locked(database):
            events(journal, 2, range(10, 40, 10))
            wait_for(lambda: tracker.trouble is not None)
            assert "locked" in str(tracker.trouble)
            events(journal, 2, range(40, 60, 10))
        assert tracker.close() == 0
        assert told(database) == expected(2, range(10, 60, 10))
        assert tracker.refused == []
        assert capfd.readouterr().err == ""

    def test_what_was_told_before_the_mark_was_set_is_told_again_and_there_once(
        self, tracked: Path, journal: Journal
    ) -> None:
        database = tracked / "mlflow.db"
        for _ in range(2):
            begun(journal, 2)
            events(journal, 2, range(10, 40, 10))
            tracker = Tracker(f"sqlite:///{database}", "digits/outage", "id", journal)
            tracker.start()
            assert tracker.close() == 0
            journal.told(0)  # as if the driver had been killed just before each mark
        assert told(database) == expected(2, range(10, 40, 10))
        client = MlflowClient(f"sqlite:///{database}")
        experiment = client.get_experiment_by_name("digits/outage")
        assert experiment is not None
        assert len(client.search_runs([experiment.experiment_id])) == 3

    def test_a_sweep_that_is_continued_with_its_images_elsewhere_is_not_refused(
        self, tracked: Path, journal: Journal
    ) -> None:
        uri = f"sqlite:///{tracked}/mlflow.db"
        for source in ({"data.source": "here"}, {"data.source": "None", "further": 1}):
            journal.add("start", SWEEP, name="moved", tags={}, params={"data.name": "mnist", **source})
            tracker = Tracker(uri, "mnist/moved", "id", journal)
            tracker.start()
            assert (tracker.close(), tracker.refused) == (0, [])
        run_id = tracker.run_id(SWEEP)
        assert run_id is not None
        params = MlflowClient(uri).get_run(run_id).data.params
        assert params == {"data.name": "mnist", "data.source": "here", "further": "1"}


KILLED = """
import os, signal, sys
import sqlalchemy
from sweeps._tracker import client_of
@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
def kill(connection, cursor, statement, *more):
    if statement.strip().startswith("DROP TABLE"):  # of one that has been replaced by another
        os.kill(os.getpid(), signal.SIGKILL)
client_of(sys.argv[1]).search_experiments()
"""


@pytest.mark.slow
def test_a_tracker_that_a_killed_driver_had_half_made_is_made(tmp_path: Path) -> None:
    """MLflow itself cannot go on from there ("duplicate column name: step"): it repeats the step that was half done."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run([sys.executable, "-c", KILLED, uri], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert client_of(uri).search_experiments()
    assert (tmp_path / "mlflow.db").exists()


class Server:
    """An MLflow server of our own, behind a door that can be slow or shut."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.delay = folder, 0.0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._door = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._let_in, daemon=True).start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        log = (self.folder / "server.log").open("ab")
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes, for language models
        self._process = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.5)
        raise AssertionError("no server in 300 s")

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self._door.close()
        if self._process.poll() is None:
            self.kill()

    def _let_in(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.port))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
        self._pass_on(server, client, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        try:
            while piece := source.recv(65536):
                if late:
                    time.sleep(self.delay)
                target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_server_that_is_slow_then_killed_and_back_has_each_point_once(
    tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    server = Server(tracked)
    server.start()
    try:
        journal = Journal(tracked / "run")
        tracker = Tracker(server.uri, "digits/outage", "id", journal)
        tracker.start()
        begun(journal, 8)
        events(journal, 8, range(10, 40, 10))
        server.delay = 7.0  # longer than a request may take: it is carried out, and its answer comes too late
        events(journal, 8, range(40, 60, 10))
        wait_for(lambda: tracker.trouble is not None)
        server.delay = 0.0
        events(journal, 8, range(60, 70, 10))
        server.kill()
        began = time.monotonic()
        for step in range(70, 100, 10):  # training goes on
            events(journal, 8, range(step, step + 10, 10))
        assert time.monotonic() - began < 5
        wait_for(lambda: tracker.trouble is not None)
        assert sum(1 for _ in journal.untold())
        server.start()
        for number in range(8):
            tags = {"status.reason": "done", "trial.state": "complete"}
            journal.add("end", f"{number:03d}", state="complete", tags=tags)
        assert tracker.close(patience=300) == 0
        assert tracker.refused == []
        journal.close()
    finally:
        server.close()
    assert told(tracked / "mlflow.db") == expected(8, range(10, 100, 10))
    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    experiment = client.get_experiment_by_name("digits/outage")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["sweep.run"] for run in runs) == [*(f"{n:03d}" for n in range(8)), SWEEP]
    assert {run.info.status for run in runs if run.data.tags["sweep.run"] != SWEEP} == {"FINISHED"}


def wait_for(ready: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.1)
