"""What a command line means, and what it may not mean: one line, status 2, nothing written."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sweeps._cluster import Cluster
from sweeps._images import prepared_images
from sweeps._launch import as_it_would_be, launch
from sweeps._plan import Plan, describe_plan, make_plan
from sweeps._settings import parse
from sweeps._space import Sweep
from sweeps._study import open_storage, open_study
from sweeps._tracker import check
from vqvae_core.overrides import with_overrides

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_flags_and_overrides_reach_the_experiment(make: Callable[..., Plan]) -> None:
    plan = make(
        "--trials", "7", "--images", "900", "--train.lr_unused_here".replace("lr_unused_here", "batch_size"), "48"
    )
    assert (plan.trials, plan.base.train.images, plan.base.train.batch_size) == (7, 900, 48)
    assert plan.base.train.eval_every == 100  # a ninth of the budget: a report at every rung
    assert plan.rungs == {100: 3, 450: 1}
    assert plan.name == "question-digits"
    assert plan.experiment_name == "digits/question"


def test_paths_do_not_depend_on_the_folder_of_a_ray_process(make: Callable[..., Plan], workplace: Path) -> None:
    plan = make()
    assert plan.folder == workplace / "runs" / "question-digits"
    assert plan.tracking_uri == f"sqlite:///{workplace}/mlflow.db"
    assert plan.storage == f"sqlite:///{workplace}/optuna.db"
    assert Path(plan.base.data.root).is_absolute()


@pytest.mark.parametrize(
    ("cluster", "arguments", "expected"),
    [
        (Cluster(2, 0, "local"), [], (2, 1, 0)),
        (Cluster(16, 0, "local"), ["--concurrent", "4"], (4, 4, 0)),
        (Cluster(16, 0, "local"), ["--workers", "4"], (4, 1, 0)),
        (Cluster(16, 2, "local"), [], (2, 8, 1)),
        (Cluster(16, 2, "local"), ["--gpus-per-trial", "0.25"], (8, 2, 0.25)),
        (Cluster(16, 8, "local"), ["--workers", "4"], (2, 2, 1)),
        (Cluster(64, 1, "local"), ["--trials", "1"], (1, 64, 1)),
    ],
)
def test_resources_are_shared_out(
    make: Callable[..., Plan],
    monkeypatch: pytest.MonkeyPatch,
    cluster: Cluster,
    arguments: list[str],
    expected: tuple[float, float, float],
) -> None:
    monkeypatch.setattr("sweeps._plan.find", lambda with_groups=False: cluster)
    plan = make("--train.batch_size", "64", *arguments)
    assert (plan.concurrent, plan.cpus_per_worker, plan.gpus_per_worker) == expected


MISTAKES = {
    "unknown data set": (["--dataset", "nonesuch"], "nonesuch"),
    "a game misspelled": (["--dataset", "boxin"], "data.name is 'boxin' (did you mean Boxing?)"),
    "a data set misspelled": (["--dataset", "mnits"], "data.name is 'mnits' (did you mean mnist?)"),
    "a game of too few frames": (["--dataset", "boxing", "--data.frames", "2"], "frames is 2; allowed is"),
    "a folder for a name": (["--dataset", "pictures/mine"], "python -m vqvae_core.data import DIR"),
    "K = 0": (["--model.num_codes", "0"], "model.num_codes is 0; allowed is an integer >= 2"),
    "negative lr": (["--train.lr", "-1"], "train.lr"),
    "beta no number": (["--model.beta", "x"], "model.beta"),
    "no trials": (["--trials", "0"], "--trials: '0'; allowed is an integer >= 1"),
    "too many workers": (["--workers", "99"], "--workers is 99; allowed is up to"),
    "too many at once": (["--concurrent", "99"], "--concurrent is 99; allowed is up to"),
    "more GPUs than there are": (["--gpus-per-trial", "64"], "--gpus-per-trial is 64; allowed is up to"),
    "unknown field": (["--model.num_cods", "8"], "did you mean model.num_codes?"),
    "unknown flag": (["--trails", "8"], "--trails is not an option"),
    "a field without value": (["--model.num_codes"], "--model.num_codes needs a value"),
    "no tracker there": (["--tracking-uri", "http://127.0.0.1:9"], "http://127.0.0.1:9 does not answer"),
    "a tracker of an unknown kind": (["--tracking-uri", "somewhere"], "allowed are sqlite:///file.db"),
    "a tracker that is a text": (["--tracking-uri", f"sqlite:///{__file__}"], "test_plan.py is no SQLite database"),
    "a tracker that is a folder": (["--tracking-uri", "sqlite:///."], "is no SQLite database"),
    "GPUs that are no number": (["--gpus-per-trial", "nan"], "--gpus-per-trial: 'nan'; allowed is a number >= 0"),
    "two budgets": (["--images", "64", "--train.images", "96"], "allowed is one, --images"),
    "two data sets": (["--data.name", "mnist"], "--data.name is mnist beside --dataset digits"),
    "a study in no folder": (["--storage", "sqlite:///no/such/folder/optuna.db"], "allowed is a place to write"),
    "results in a file": (["--out", __file__], "test_plan.py is not a writable folder"),
    "less than a batch": (["--images", "5"], "train.images is 5; allowed is at least train.batch_size"),
    "a database that is not there": (["--tracking-uri", "postgresql://u:p@127.0.0.1:9/x"], "does not answer"),
    "a source that is no folder": (["--dataset", "mnist", "--data-source", "nowhere"], "nowhere"),
    "a name that is a path": (["--name", "../up"], "--name is '../up'"),
    "a batch that cannot be shared": (["--train.batch_size", "33", "--workers", "2"], "train.batch_size is 33"),
    "a point outside the space": (["--train.accumulate", "5"], "train.accumulate is 5"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda name: name.replace(" ", "-"))
def test_a_mistake_is_one_line_and_writes_nothing(
    workplace: Path, question: Sweep, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    arguments, expected = MISTAKES[mistake]
    if mistake in ("K = 0", "unknown field", "a field without value", "negative lr", "beta no number"):
        question = Sweep("question", "?", {"train.grad_clip": question.space["model.beta"]})
    before = sorted(workplace.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        launch(question, ["--dataset", "digits", *arguments])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert expected in printed.err
    assert sorted(workplace.rglob("*")) == before


def test_a_gpu_is_not_asked_of_a_cluster_without_one(
    make: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    for gpus, allowed in ((0, False), (1, True)):  # the GPUs may be in other machines than the driver's
        monkeypatch.setattr("sweeps._plan.find", lambda with_groups=False, gpus=gpus: Cluster(2, gpus, "local"))
        if allowed:
            assert make("--train.device", "cuda").gpus_per_worker == 1
        else:
            with pytest.raises(ValueError, match=r"^train\.device is 'cuda'; allowed is auto or cpu on this machine"):
                make("--train.device", "cuda")


def test_a_server_that_is_no_mlflow_is_not_taken_for_a_tracker() -> None:
    class Nothing(BaseHTTPRequestHandler):
        status = 404

        def do_GET(self) -> None:
            self.send_error(self.status)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ValueError, match=r"is no MLflow: it has no /health"):
            check(uri)
        Nothing.status = 401  # a password is asked for: whether ours is right shows when we write
        check(uri)
        server.shutdown()


def test_a_swept_field_cannot_be_fixed_too(
    workplace: Path, question: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        launch(question, ["--dataset", "digits", "--model.beta", "1"])
    assert "model.beta is '1', but the sweep varies it: 0.05 .. 5 (log)" in capsys.readouterr().err


def test_a_truncated_parquet_is_named_and_nothing_is_left(
    workplace: Path, question: Sweep, parquet_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = sorted(parquet_root.rglob("train-*.parquet"))[1]
    broken.write_bytes(broken.read_bytes()[:-100])
    (workplace / "own").mkdir()
    before = sorted(workplace.rglob("*"))
    with pytest.raises(SystemExit, match="2"):
        launch(question, ["--dataset", "mnist", "--data-source", str(parquet_root), "--data.root", "own"])
    error = capsys.readouterr().err
    assert broken.name in error
    assert error.count("\n") == 1
    assert sorted(workplace.rglob("*")) == before


def test_a_dry_run_says_everything_and_does_nothing(
    workplace: Path, question: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workplace.rglob("*"))
    launch(question, ["--dataset", "digits", "--trials", "5", "--images", "900", "--seeds", "3", "--dry-run"])
    printed = capsys.readouterr().out
    for expected in (
        "question-digits",
        "the report: beta 1, lr 0.0003",
        "3 spread evenly\n",
        "5 trials x 900 images at most",
        "go on, from 100 to 450 images",
        "at most 6 runs",
        "CPU",
        f"{workplace}/runs/question-digits",
        f"sqlite:///{workplace}/mlflow.db, experiment digits/question",
    ):
        assert expected in printed
    assert sorted(workplace.rglob("*")) == before


def test_a_dry_run_refuses_a_taken_name_as_the_sweep_would(
    workplace: Path, question: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--dataset", "digits", "--images"]
    plan = make_plan(question, parse(question, [*given, "900"], "sweeps/question.py"))
    have = prepared_images(plan.base.data)
    assert have is not None
    open_study(replace(plan, data_fingerprint=have.fingerprint), open_storage(plan.storage))
    before = {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()}
    said = []
    for arguments in (["600", "--dry-run"], ["600"]):
        with pytest.raises(SystemExit) as caught:
            launch(question, [*given, *arguments])
        assert caught.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        said.append(printed.err)
    assert said[0] == said[1]
    assert "the sweep question-digits was begun with other settings (train.eval_every 100 -> 67, " in said[0]
    assert "train.images 900 -> 600); give --name for another sweep, or --fresh" in said[0]
    for arguments, name in ((["900"], "question-digits"), (["600", "--fresh"], "question-digits-2")):
        launch(question, [*given, *arguments, "--dry-run"])
        assert capsys.readouterr().out.startswith(f"sweep     {name}\n")
    assert {path: path.read_bytes() for path in workplace.rglob("*") if path.is_file()} == before


def test_a_dry_run_compares_the_images_where_they_are(make: Callable[..., Plan], workplace: Path) -> None:
    plan = make()
    open_study(replace(plan, data_fingerprint="others"), open_storage(plan.storage))
    assert as_it_would_be(plan, fresh=True).name == "question-digits-2"
    with pytest.raises(ValueError, match=r"other settings \(data others -> [0-9a-f]+\)"):
        as_it_would_be(plan, fresh=False)
    elsewhere = with_overrides(plan.base, {"data.root": str(workplace / "nothing")})
    assert as_it_would_be(replace(plan, base=elsewhere), fresh=False).data_fingerprint == ""


def test_what_may_not_change_under_a_name(make: Callable[..., Plan]) -> None:
    first, second = make(), make("--trials", "50", "--train.device", "cpu")
    assert first.identity() == second.identity()
    assert first.identity() != make("--images", "77").identity()
    assert first.identity() != make("--seed", "1").identity()


@pytest.mark.parametrize("name", ["beta_lr", "batch_size", "codebook"])
def test_every_sweep_file_is_short_and_its_known_points_are_possible(name: str, make: Callable[..., Plan]) -> None:
    import importlib

    module = importlib.import_module(f"sweeps.{name}")
    assert module.sweep.name == name
    assert len((SWEEPS / f"{name}.py").read_text().splitlines()) <= 45
    plan = make(sweep=module.sweep) if name == "beta_lr" else None
    if plan:
        assert "space" in describe_plan(plan)


@pytest.mark.slow
def test_a_sweep_file_starts_as_a_program(workplace: Path) -> None:
    """This one; beta_lr.py and batch_size.py are started in test_sweep.py and test_preflight.py."""
    command = [sys.executable, str(SWEEPS / "codebook.py"), "--dataset", "digits", "--dry-run"]
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("sweep     codebook-digits")
    assert not (workplace / "mlflow.db").exists()
