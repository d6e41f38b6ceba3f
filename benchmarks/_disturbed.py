"""Sweeps in folders of their own, to be disturbed: started, watched by their journals, and held against a calm one."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil

SWEEPS = Path(__file__).parents[1] / "sweeps"
TIMED = ("train/images_per_sec", "train/seconds")  # a clock's word, not the training's
Points = dict[tuple[str, str, int], float]  # run, metric, images seen -> value


class Wrong(AssertionError):
    """A sweep that was disturbed is not what it would have been."""


@dataclass(frozen=True)
class Place:
    """A folder in which one sweep runs: its tracker, its study, its checkpoints."""

    folder: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    sweep: str = "beta_lr-digits"
    drivers: list[subprocess.Popen[bytes]] = field(default_factory=list)  # that were started

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> subprocess.Popen[bytes]:
        """The sweep's command, in a session of its own, as a shell would start it; its output is appended to a log."""
        with self.log.open("ab") as log:
            driver = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=dict(self.environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.drivers.append(driver)
        return driver

    def finish(self, driver: subprocess.Popen[bytes]) -> str:
        """Wait for the end; gives what this driver printed after the ranking began."""
        status = driver.wait()
        text = self.log.read_text()
        if status:
            raise Wrong(f"the sweep ended with status {status}:\n{text[-3000:]}")
        return text[text.rindex("\nrank ") :].split("\ncheckpoints and pictures")[0]

    def events(self) -> list[dict[str, Any]]:
        """The journal's whole lines."""
        try:
            lines = (self.folder / "runs" / self.sweep / "journal.jsonl").read_bytes().splitlines(keepends=True)
        except OSError:
            return []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def events_of_trials(self) -> list[dict[str, Any]]:
        """Those of them that tell of a trial."""
        return [event for event in self.events() if event["run"] != "sweep"]

    def reports(self) -> int:
        """Reports in the journal."""
        return sum(event["kind"] == "report" for event in self.events())

    def report_interval(self) -> float:
        """Seconds between two reports of one run, the median."""
        last: dict[str, int] = {}
        intervals = []
        for event in self.events():
            if event["kind"] == "report":
                if event["run"] in last:
                    intervals.append((event["time"] - last[event["run"]]) / 1000)
                last[event["run"]] = event["time"]
        return statistics.median(intervals)

    def last_steps(self) -> dict[str, int]:
        """Images seen at the last report of each run."""
        return {event["run"]: event["step"] for event in self.events() if event["kind"] == "report"}

    def continued(self) -> list[tuple[str, int]]:
        """Runs that went on from a checkpoint, and the images that they had seen there, in the order of the log."""
        text = self.log.read_text() if self.log.exists() else ""
        found = re.findall(r"^trial (\S+): continues at ([\d,]+) images$", text, re.MULTILINE)
        return [(run, int(seen.replace(",", ""))) for run, seen in found]

    def writing(self) -> set[str]:
        """Runs that have reported."""
        return {event["run"] for event in self.events() if event["kind"] == "report"}

    def finished(self) -> dict[int, tuple[str, float | None]]:
        """State and value of each trial that the study holds for over."""
        if not (self.folder / "optuna.db").exists():  # nor shall it be made by whoever looks on
            return {}
        try:
            study = optuna.load_study(study_name=self.sweep, storage=f"sqlite:///{self.folder}/optuna.db")
        except KeyError:  # not yet made
            return {}
        return {trial.number: (trial.state.name, trial.value) for trial in study.trials if trial.state.is_finished()}

    def in_journal(self) -> Points:
        """Every metric point in the journal; ``Wrong`` when one is there twice."""
        found: Points = {}
        for event in self.events():
            if event["kind"] == "report":
                for name, value in event["metrics"].items():
                    key = (event["run"], name, event["step"])
                    if key in found:
                        raise Wrong(f"{key} is in the journal twice")
                    found[key] = value
        return found

    def in_tracker(self) -> Points:
        """Every metric point of training and validation in the tracker; ``Wrong`` when one is there twice."""
        import sqlite3

        found: Points = {}
        database = sqlite3.connect(self.folder / "mlflow.db", timeout=60)
        try:
            rows = database.execute(
                "select t.value, m.key, m.step, m.value from metrics m join tags t on t.run_uuid = m.run_uuid "
                "where t.key = 'sweep.run' and t.value != 'sweep' and m.key not like 'test/%'"
            ).fetchall()
        finally:
            database.close()
        for run, name, step, value in rows:
            if (run, name, step) in found:
                raise Wrong(f"{name} of trial {run} at {step} images is in the tracker twice")
            found[run, name, step] = value
        return found


def decided(points: Points) -> Points:
    """Those that the configuration and the seed decide."""
    return {key: value for key, value in points.items() if key[1] not in TIMED}


def check_equal(name: str, ours: Points, theirs: Points) -> None:
    """``Wrong`` with the first points that differ."""
    different = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    if different:
        first = ", ".join(f"{key}: {ours.get(key)} and {theirs.get(key)}" for key in different[:3])
        raise Wrong(f"{len(different)} points differ: {name}; {first}")


def check_run(place: Place, table: str, calm: Place | None, calm_table: str) -> int:
    """A sweep that has ended: each point once, in the tracker as in the journal as in the calm sweep; counts them."""
    told = place.in_tracker()
    check_equal("tracker and journal", told, place.in_journal())
    if calm:
        check_equal("this sweep and an undisturbed one", decided(told), decided(calm.in_tracker()))
    if calm_table and table != calm_table:
        raise Wrong(f"the final table is another:\n{table}\nundisturbed:\n{calm_table}")
    return len(told)


@contextmanager
def places(root: Path, arguments: Sequence[str], **environment: str) -> Iterator[Any]:
    """A maker of places: ``make("calm")`` is a folder with an empty tracker in which the command can run.

    What still runs in them at the end of the block is ended.
    """
    from mlflow import MlflowClient

    from vqvae_core.config import DataConfig
    from vqvae_core.data import prepare

    prepare(DataConfig("digits", str(root / "data")))
    MlflowClient(f"sqlite:///{root}/empty.db").search_experiments()
    variables = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1", **environment}
    variables["PYTHONPATH"] = str(SWEEPS.parent)
    made: list[Place] = []

    def make(name: str, script: Path = SWEEPS / "beta_lr.py", with_tracker: bool = True, **more: str) -> Place:
        folder = root / name
        folder.mkdir()
        if with_tracker:  # making one takes ten seconds
            shutil.copy(root / "empty.db", folder / "mlflow.db")
        command = [sys.executable, str(script), "--dataset", "digits", "--data.root", str(root / "data"), *arguments]
        made.append(Place(folder, command, {**variables, **more}))
        return made[-1]

    try:
        yield make
    finally:
        for driver in [driver for place in made for driver in place.drivers if driver.poll() is None]:
            end_all([psutil.Process(driver.pid), *below(driver.pid)])


def below(pid: int, name: str = "") -> list[psutil.Process]:
    """The processes below one, those only whose command begins with ``name``."""
    try:
        found = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if command_of(process).startswith(name)]


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def end_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(processes), timeout=30)


def wait_for(what: str, ready: Any, driver: subprocess.Popen[bytes] | None = None, seconds: float = 600) -> bool:
    """Wait until something is so; False when the driver has ended before; ``Wrong`` when it takes too long."""
    began = time.monotonic()
    while not ready():
        if driver and driver.poll() is not None:
            return False
        if time.monotonic() - began > seconds:
            raise Wrong(f"{what} did not happen in {seconds:.0f} s")
        time.sleep(0.1)
    return True
