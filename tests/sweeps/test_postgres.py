"""Study and tracker on a real PostgreSQL, the tracker behind ``mlflow server``: a sweep, and its continuation."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from benchmarks._servers import Missing, mlflow_server, postgres
from sweeps._launch import launch

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SWEEP = ["--dataset", "digits", "--train.calibration_images", "64", "--model.hidden", "8", "--model.num_codes", "16"]
SWEEP += ["--model.code_dim", "4", "--images", "400", "--scheduler", "none", "--concurrent", "1"]


def told(uri: str) -> dict[str, tuple[str, dict[str, list[tuple[int, float]]]]]:
    """What the server knows of each run: its status, and every point of every metric."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits/beta_lr")
    assert experiment is not None
    return {
        run.data.tags["sweep.run"]: (
            run.info.status,
            {
                name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
            },
        )
        for run in client.search_runs([experiment.experiment_id])
    }


def test_a_sweep_on_postgresql_is_continued(workplace: Path, own_ray: None) -> None:
    from sweeps.beta_lr import sweep

    try:
        with (
            postgres("studies", "tracker") as url,
            mlflow_server(f"{url}tracker", workplace / "artifacts", os.environ) as uri,
        ):
            arguments = [*SWEEP, "--storage", f"{url}studies", "--tracking-uri", uri, "--trials"]
            launch(sweep, [*arguments, "1"])
            first = told(uri)
            launch(sweep, [*arguments, "3"])
            both = told(uri)
            study = optuna.load_study(study_name="beta_lr-digits", storage=f"{url}studies")
            trials = study.get_trials()
            study._storage.remove_session()  # its connections, before the server ends
    except Missing as error:
        pytest.skip(str(error))
    assert set(first) == {"sweep", "000"}
    assert set(both) == {"sweep", "000", "001", "002"}
    assert {status for status, _ in both.values()} == {"FINISHED"}
    assert [trial.state for trial in trials] == 3 * [TrialState.COMPLETE]
    for trial in trials:
        points = both[f"{trial.number:03d}"][1]
        bits = points["valid/bits_per_dim"]
        assert bits[-1][0] >= 400
        assert bits[-1][1] == pytest.approx(trial.value)
        for name, curve in points.items():  # each point once
            assert len({step for step, _ in curve}) == len(curve), name
        assert trial.intermediate_values == {step: pytest.approx(value) for step, value in bits}
    # What was told is neither repeated nor changed; the winner is measured on test again, if it is the same.
    before, after = first["000"][1], both["000"][1]
    assert {name: curve for name, curve in after.items() if name in before} == before
