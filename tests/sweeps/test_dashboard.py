"""optuna-dashboard, as a user starts it, opens our studies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sweeps._plan import Plan
from sweeps._search import OptunaSearcher
from sweeps._study import open_storage, open_study

pytestmark = pytest.mark.filterwarnings("default")


def result(seen: int, value: float, parameters: float) -> dict[str, Any]:
    figures = {"valid/bits_per_dim": value, "train/parameters": parameters, "valid/perplexity": 2.0}
    return {"images_seen": seen, "objective": value, **{f"metrics/{name}": v for name, v in figures.items()}}


def ask(app: Any, path: str) -> Any:
    """What the dashboard's own pages get from its server, without a socket."""
    said: list[str] = []
    environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "wsgi.errors": None}
    body = b"".join(app(environment, lambda status, headers, *_: said.append(status)))
    assert said == ["200 OK"], body
    return json.loads(body)


@pytest.mark.parametrize("objectives", ["bits_per_dim", "bits_per_dim,parameters"])
def test_a_study_opens_with_its_trials_their_values_and_what_is_wrong_with_them(
    make: Callable[..., Plan], objectives: str
) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    plan = make("--trials", "5", "--images", "900", "--objectives", objectives, "--min-perplexity", "4")
    other = make("--name", "other", "--images", "900")
    open_study(other, open_storage(other.storage))
    searcher = OptunaSearcher(plan, open_study(plan, open_storage(plan.storage)), lambda trial_id, spec: None)
    for number, trial_id in enumerate("abcde"):
        searcher.suggest(trial_id)
        if trial_id != "e":  # still running
            searcher.on_trial_result(trial_id, result(100, 6.0, 10.0))
            searcher.on_trial_complete(trial_id, result(900 if number < 3 else 300, 5.0 - number, 100.0))

    app = dashboard.wsgi(plan.storage)
    studies = {study["study_name"]: study for study in ask(app, "/api/studies")["study_summaries"]}
    assert set(studies) == {plan.name, "other"}
    study = ask(app, f"/api/studies/{studies[plan.name]['study_id']}")
    names = ["bits/dim", "parameters"][: objectives.count(",") + 1]
    assert study["objective_names"] == names
    assert [trial["state"] for trial in study["trials"]] == ["Complete", "Complete", "Complete", "Pruned", "Running"]
    assert study["trials"][1]["values"] == [4.0, 100.0][: len(names)]
    assert {param["name"] for param in study["trials"][1]["params"]} == set(plan.sweep.space)
    attributes = {entry["key"]: entry["value"] for entry in study["trials"][1]["user_attrs"]}
    assert "perplexity is 2, below 4" in attributes["codebook"]
