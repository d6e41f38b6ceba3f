"""Whole sweeps on a small Ray: what ends up in the tracker, in the study and on the screen."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState

from sweeps._launch import INTERRUPTED, launch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SWEEPS = Path(__file__).parents[2] / "sweeps"
SMALL = ["--dataset", "digits", "--train.calibration_images", "64", "--model.hidden", "8"]
CODES = ["--model.num_codes", "16", "--model.code_dim", "4"]


def runs_of(folder: Path, experiment: str) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def history(folder: Path, run: Run, metric: str = "valid/bits_per_dim") -> list[tuple[int, float]]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric))


CONFIRMED = ["--trials", "4", "--seeds", "2", "--confirm", "1"]  # two trials at a time
SEARCHED = ["--trials", "3", "--concurrent", "1"]


@pytest.mark.parametrize(
    ("name", "options"),
    [("beta_lr", CONFIRMED), ("batch_size", SEARCHED), ("codebook", SEARCHED)],
    ids=["beta_lr", "batch_size", "codebook"],
)
def test_every_sweep_file_runs(
    name: str, options: list[str], tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = importlib.import_module(f"sweeps.{name}").sweep
    codes = [] if name == "codebook" else CODES
    launch(sweep, [*SMALL, *codes, "--images", "600", *options])
    printed = capsys.readouterr().out
    assert "rank  trial" in printed
    assert "the report's point" in printed
    assert f"mlflow ui --backend-store-uri sqlite:///{tracked}/mlflow.db" in printed
    assert "python analysis/table1.py" in printed

    runs = runs_of(tracked, f"digits/{name}")
    parent = runs.pop(f"{name}-digits")
    assert parent.info.status == "FINISHED"
    best = parent.data.tags["best.trial"]
    assert f"best: trial {best}" in printed
    for label, run in runs.items():
        above = parent if "-seed-" not in label else runs[label[:3]]
        assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
        assert {"sweep.id", "trial.key", "seed", "stage", "status.reason", "git.dirty"} <= set(run.data.tags)
        assert run.data.params["train.images"] == "600"
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[run.data.tags["trial.state"]]
        # Every step once, and the parts add up to the sum.
        steps = [step for step, _ in history(tracked, run)]
        assert steps == sorted(set(steps))
        metrics = run.data.metrics
        parts = metrics["valid/distortion"] + metrics["valid/rate_unigram"]
        assert metrics["valid/bits_per_dim"] == pytest.approx(parts)
    assert len({run.data.tags["trial.key"] for run in runs.values()}) == len(runs)
    assert len([label for label in runs if "-seed-" in label]) == (options == CONFIRMED)

    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    artifacts = {a.path for a in client.list_artifacts(runs[best].info.run_id)}
    assert {"checkpoint", "experiment.json", "reconstructions.png", "test_reconstructions.png"} <= artifacts
    weights = {a.path for a in client.list_artifacts(runs[best].info.run_id, "checkpoint")}
    assert {"checkpoint/model.safetensors", "checkpoint/experiment.json"} <= weights
    assert "test/bits_per_dim" in runs[best].data.metrics

    study = optuna.load_study(study_name=f"{name}-digits", storage=f"sqlite:///{tracked}/optuna.db")
    states = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}
    for trial in study.get_trials():
        run = runs[f"{trial.number:03d}"]
        assert states[trial.state] == run.info.status
        if trial.value is not None:
            assert trial.value == pytest.approx(run.data.metrics["valid/bits_per_dim"])


def test_the_same_command_again_repeats_nothing_and_more_trials_extend_it(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps.beta_lr import sweep

    arguments = [*SMALL, *CODES, "--images", "400", "--trials"]
    launch(sweep, [*arguments, "3"])
    first = capsys.readouterr().out
    before = {label: history(tracked, run) for label, run in runs_of(tracked, "digits/beta_lr").items()}
    launch(sweep, [*arguments, "3"])
    again = capsys.readouterr().out
    assert "starts" not in again
    assert again[again.index("rank") :] == first[first.index("rank") :]
    assert {label: history(tracked, run) for label, run in runs_of(tracked, "digits/beta_lr").items()} == before
    launch(sweep, [*arguments, "5"])
    after = {label: history(tracked, run) for label, run in runs_of(tracked, "digits/beta_lr").items()}
    assert set(after) - set(before) == {"003", "004"}
    assert {label: after[label] for label in before if label != "beta_lr-digits"} == {
        label: points for label, points in before.items() if label != "beta_lr-digits"
    }


def test_trials_that_break_are_failed_with_their_reason_and_the_rest_go_on(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps._space import Sweep, choice

    sweep = Sweep("broken", "?", {"train.lr": choice(1e-3, 1e30)}, known={"good": {"train.lr": 1e-3}})
    launch(sweep, [*SMALL, *CODES, "--images", "400", "--trials", "6"])
    runs = runs_of(tracked, "digits/broken")
    failed = [run for run in runs.values() if run.info.status == "FAILED"]
    assert failed
    assert all(run.data.tags["status.reason"].startswith("Diverged") for run in failed)
    assert all(run.data.params["train.lr"] == "1e+30" for run in failed)
    assert runs["000"].info.status == "FINISHED"
    assert "failed: Diverged" in capsys.readouterr().out


def test_a_front_and_sick_codebooks_reach_the_tracker(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from sweeps._space import Sweep, choice

    sweep = Sweep("front", "?", {"model.hidden": choice(4, 8, 16), "model.num_codes": choice(2, 16)}, known={})
    arguments = [*SMALL[:-2], "--model.code_dim", "4", "--images", "900", "--trials", "10", "--scheduler", "none"]
    arguments += ["--objectives", "bits_per_dim,parameters", "--max-dead-codes", "0.7", "--prune-unhealthy"]
    launch(sweep, arguments)
    printed = capsys.readouterr().out
    runs = runs_of(tracked, "digits/front")
    parent = runs.pop("front-digits")
    states = {label: run.data.tags["trial.state"] for label, run in runs.items()}
    sick = {label for label, state in states.items() if state == "pruned"}
    well = {label for label, state in states.items() if state == "complete"}
    assert sick  # so early, hardly a code of 16 is in use; of two, one always is
    assert well
    for label in sick:
        assert runs[label].data.tags["status.reason"].startswith("codebook: the share of dead codes is ")
        assert runs[label].data.metrics["valid/dead_codes"] > 0.7
        assert history(tracked, runs[label])[-1][0] < 900
        assert "pareto.front" not in runs[label].data.tags
    figures = {
        label: (runs[label].data.metrics["valid/bits_per_dim"], runs[label].data.metrics["train/parameters"])
        for label in well
    }
    for label, own in figures.items():
        beaten = any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in figures.values())
        assert runs[label].data.tags["pareto.front"] == str(not beaten).lower()
    table = printed[printed.rindex("Pareto front") :].splitlines()
    assert table[1].split()[:3] == ["trial", "bits/dim", "parameters"]
    assert "What told the best trials from the others: model." in printed
    shares = [value for name, value in parent.data.metrics.items() if name.startswith("importance/")]
    assert sum(shares) == pytest.approx(1)


# One trial after the other, so that the same history gives the same points and decisions.
LONG = [sys.executable, str(SWEEPS / "beta_lr.py"), *SMALL, *CODES, "--trials", "3", "--images", "15000"]
LONG += ["--concurrent", "1"]


@pytest.fixture(scope="module")
def undisturbed(migrated: Path, digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which ``LONG`` ran to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated, folder / "mlflow.db")
    (folder / "data").symlink_to(digits_root)
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    done = subprocess.run(LONG, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def reported(journal: Path) -> set[tuple[str, int]]:
    """The run and the step of each report that a journal has by now."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    events = [json.loads(line) for line in lines]
    return {(event["run"], event["step"]) for event in events if event["kind"] == "report"}


def test_a_driver_that_is_stopped_loses_nothing(tracked: Path, undisturbed: tuple[Path, str]) -> None:
    """Asked to stop, it saves its trials where they are; killed, it leaves them at their last reports."""
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    journal, log = tracked / "runs" / "beta_lr-digits" / "journal.jsonl", tracked / "log"
    continued: list[str] = []  # what each driver after the first said that it found
    for times, how in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)):
        before = len(reported(journal))
        with log.open("w") as output:
            driver = subprocess.Popen(
                LONG, cwd=tracked, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            try:
                while driver.poll() is None and len(reported(journal)) < before + 1:
                    time.sleep(0.05)
                assert driver.poll() is None, log.read_text()
            finally:
                driver.send_signal(how)
                driver.wait()
        printed = log.read_text()
        continued += re.findall("^continuing: .*", printed, re.M)
        assert len(continued) == times, printed
        if how != signal.SIGKILL:
            assert driver.returncode == INTERRUPTED
            assert "The same command continues it." in printed
            runs = runs_of(tracked, "digits/beta_lr")
            states = {runs[label].data.tags.get("trial.state") for label in runs.keys() - {"beta_lr-digits"}}
            assert states <= {"stopped", "complete", "pruned"}  # nobody is left running
    done = subprocess.run(LONG, cwd=tracked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    continued += re.findall("^continuing: .*", done.stdout, re.M)
    # A fast machine may be in the next trial when the signal comes, and never between two for long.
    assert all(re.fullmatch(r"continuing: [012] trials are over, [01] were in flight", line) for line in continued)
    assert len(continued) == 3
    assert any("1 were in flight" in line for line in continued)
    assert done.stdout[done.stdout.index("rank ") :].split("\n\n")[0] in undisturbed[1]
    runs, expected = runs_of(tracked, "digits/beta_lr"), runs_of(undisturbed[0], "digits/beta_lr")
    for label in ("000", "001", "002"):
        points = history(tracked, runs[label])
        assert points == history(undisturbed[0], expected[label])
        assert len(points) == len({step for step, _ in points})
        assert runs[label].info.status == expected[label].info.status


# In a mount namespace of its own: a disk of 32 MiB for the runs, which is filled at the first report, and then cleared.
FILLED = """
import subprocess, sys, time
from contextlib import suppress
from pathlib import Path
ballast, journal = Path("runs/ballast"), Path("runs/beta_lr-digits/journal.jsonl")
ballast.parent.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", "runs"], check=True)
driver = subprocess.Popen(sys.argv[1:])
while driver.poll() is None and not (journal.exists() and '"kind": "report"' in journal.read_text()):
    time.sleep(0.05)
with suppress(OSError), ballast.open("wb", buffering=0) as file:
    while True:
        file.write(bytes(512))
print("filled", driver.wait(), flush=True)
ballast.unlink()
print("cleared", subprocess.run(sys.argv[1:]).returncode)
"""


def test_a_disk_that_is_full_stops_the_sweep_until_there_is_room(tracked: Path, undisturbed: tuple[Path, str]) -> None:
    alone = ["unshare", "--map-root-user", "--mount"]
    trial = [*alone, "mount", "-t", "tmpfs", "tmpfs", str(tracked)]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("a user may not mount anything on this machine")
    done = subprocess.run(
        [*alone, sys.executable, "-c", FILLED, *LONG],
        cwd=tracked,
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nfilled 1\n" in done.stdout and done.stdout.endswith("\ncleared 0\n"), done.stdout + done.stderr
    told = re.findall(r"^error: No space left on device: .*; make room, then the same command .*$", done.stderr, re.M)
    assert len(told) == 1, done.stderr
    table = done.stdout[done.stdout.index("rank ") :].split("\n\n")[0]
    assert table in undisturbed[1]
    runs, expected = runs_of(tracked, "digits/beta_lr"), runs_of(undisturbed[0], "digits/beta_lr")
    for label in ("000", "001", "002"):
        assert history(tracked, runs[label]) == history(undisturbed[0], expected[label])


def test_two_workers_train_one_trial_on_a_folder_of_pictures(tracked: Path, png_folder: Path) -> None:
    import_it = [
        "-m",
        "vqvae_core.data",
        "import",
        str(png_folder),
        "--name",
        "pictures",
        "--size",
        "16",
        "--root",
        "own",
    ]
    subprocess.run([sys.executable, *import_it], cwd=tracked, check=True, capture_output=True)
    # Trials of several workers want a Ray with a dashboard, so this one is the program's own.
    arguments = ["--dataset", "pictures", "--data.root", "own", "--workers", "2", "--trials", "2", "--images", "96"]
    small = ["--model.hidden", "8", *CODES, "--train.batch_size", "8", "--train.eval_every", "48"]
    done = subprocess.run(
        [sys.executable, str(SWEEPS / "beta_lr.py"), *arguments, *small],
        cwd=tracked,
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = runs_of(tracked, "pictures/beta_lr")
    assert [step for step, _ in history(tracked, runs["000"])] == [48, 96]
    assert runs["000"].info.status == "FINISHED"


def test_a_sweep_of_priors_is_a_child_of_its_vqvae(
    tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best trial of one sweep, by the sweep's name, is what the next one stands on; so with a hierarchy."""
    small = ["--dataset", "digits", "--train.calibration_images", "64", "--images", "400", "--trials", "1"]
    launch(importlib.import_module("sweeps.beta_lr").sweep, [*small, "--model.hidden", "8", *CODES])
    first = runs_of(tracked, "digits/beta_lr")["000"]
    codes = tracked / "data" / ".codes"  # of all tests that have run in this process
    before = set(codes.glob("digits-*"))
    network = {
        "prior": ["--model.head", "16", "--images", "800"],
        "hierarchy": ["--model.hidden", "8", "--model.pictures", "4"],
    }
    for name, options in network.items():
        launch(importlib.import_module(f"sweeps.{name}").sweep, [*small, *options, "--model.first", "beta_lr-digits"])
        printed = capsys.readouterr().out
        assert "distortion plus rate under the learned prior" in printed and "the report" in printed
        runs = runs_of(tracked, f"digits/{name}")
        sweep, trial = runs[f"{name}-digits"], runs["000"]
        assert sweep.data.tags["mlflow.parentRunId"] == sweep.data.tags["first.run"] == first.info.run_id
        assert trial.data.tags["mlflow.parentRunId"] == sweep.info.run_id
        assert trial.data.tags["first.stage"] == "vqvae" and len(trial.data.tags["first.key"]) == 16
        assert trial.data.params["model.first"].startswith(str(tracked / "runs" / "beta_lr-digits" / "trials" / "000"))
        metrics = trial.data.metrics
        for split in ("valid", "test"):
            parts = metrics[f"{split}/distortion"] + metrics[f"{split}/rate_prior"]
            assert metrics[f"{split}/bits_per_dim"] == pytest.approx(parts)
            assert {f"{split}/rate_unigram", f"{split}/rate_uniform"} <= set(metrics)
        client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
        artifacts = {a.path for a in client.list_artifacts(trial.info.run_id)}
        picture = {"prior": "samples.png", "hierarchy": "reconstructions.png"}[name]
        assert {picture, f"test_{picture}"} <= artifacts
        weights = {a.path for a in client.list_artifacts(trial.info.run_id, "checkpoint/first")}
        assert weights == {"checkpoint/first/experiment.json", "checkpoint/first/model.safetensors"}
    assert len(set(codes.glob("digits-*")) - before) == 1  # encoded once for both
