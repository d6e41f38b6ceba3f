"""What the sweep tests share: a folder to run in, a migrated tracker database, and one small Ray of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps._plan import Plan, make_plan
from sweeps._settings import parse
from sweeps._space import Sweep, log_uniform

SMALL = ["--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4", "--train.calibration_images", "64"]


@pytest.fixture
def question() -> Sweep:
    """A sweep over beta and lr, as ``sweeps/beta_lr.py``."""
    space = {"model.beta": log_uniform(0.05, 5.0), "train.lr": log_uniform(1e-4, 1e-2)}
    return Sweep(name="question", question="Which?", space=space)


@pytest.fixture
def workplace(tmp_path: Path, digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder whose ``data`` holds the digits; no tracker and no cluster are set."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    # A cluster that someone started on this machine is not ours to use.
    monkeypatch.setenv("RAY_ADDRESS", "local")
    (tmp_path / "data").symlink_to(digits_root)
    return tmp_path


@pytest.fixture
def make(workplace: Path, question: Sweep) -> Callable[..., Plan]:
    """The plan of a command line on the digits: ``make("--trials", "4")``."""

    def build(*arguments: str, sweep: Sweep = question) -> Plan:
        settings = parse(sweep, ["--dataset", "digits", *SMALL, *arguments], "sweeps/question.py")
        return make_plan(sweep, settings)

    return build


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes ten seconds, copying it none."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("tracker") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked(workplace: Path, migrated: Path) -> Path:
    """The workplace with an empty tracker database in it."""
    shutil.copy(migrated, workplace / "mlflow.db")
    return workplace


@pytest.fixture(scope="session")
def small_ray() -> Iterator[None]:
    """A Ray of two CPUs for all tests of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        from sweeps import _cluster

        _cluster.connect(_cluster.Cluster(2, 0, "local"))
        yield
        import ray

        ray.shutdown()


@pytest.fixture
def own_ray(small_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """That Ray, for sweeps that do not measure first what they cost: each would start a process for it.

    Sweeps that are started as programs do; see also test_preflight.py.
    """
    monkeypatch.setattr("sweeps._preflight.short", lambda plan: "")
