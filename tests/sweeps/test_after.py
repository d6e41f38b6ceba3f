"""After a sweep: list, leaderboard, best (show, export, rerun, extend), on a small sweep that needed no Ray."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from sweeps.__main__ import main
from sweeps._best import training_command
from sweeps._images import images_of
from sweeps._launch import with_dataset
from sweeps._plan import Plan, make_plan, preset_of
from sweeps._resume import replicates
from sweeps._search import OptunaSearcher, config_of
from sweeps._settings import parse
from sweeps._space import Sweep, log_uniform
from sweeps._study import open_storage, open_study
from sweeps._trial import task_of, train
from vqvae_core.checkpoint import Keeper, read
from vqvae_core.overrides import flatten, split_overrides, with_overrides
from vqvae_core.presets import PRESETS

SMALL = ["--model.hidden", "8", "--model.num_codes", "16", "--model.code_dim", "4", "--train.calibration_images", "64"]
NAME = "question-digits"


@dataclass(frozen=True)
class Finished:
    """A sweep of four trials: two complete, one stopped early, one failed; the best with a second seed."""

    plan: Plan
    places: list[str]  # flags

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name=NAME, storage=self.plan.storage)


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """As Tune gives it to a searcher."""
    return {**result, **{f"metrics/{name}": value for name, value in result.get("metrics", {}).items()}}


@pytest.fixture(scope="module")
def finished(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("after")
    places = ["--storage", f"sqlite:///{folder}/optuna.db", "--out", str(folder / "runs")]
    space = {"model.beta": log_uniform(0.05, 5.0), "train.lr": log_uniform(1e-4, 1e-2)}
    sweep = Sweep(name="question", question="Which?", space=space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "local")
        flags = ["--dataset", "digits", "--data.root", str(digits_root), "--images", "360", "--trials", "4"]
        settings = parse(sweep, [*flags, "--seeds", "2", "--confirm", "1", *SMALL, *places], "sweeps/question.py")
        plan = make_plan(sweep, settings)
    plan = with_dataset(plan, images_of(plan.base.data))
    study = open_study(plan, open_storage(plan.storage))
    searcher = OptunaSearcher(plan, study, lambda *_: None)
    for trial_id in "abcd":
        config = searcher.suggest(trial_id)
        if trial_id == "d":
            searcher.on_trial_complete(trial_id, {"failed": "Diverged: the loss", "done": True})
            continue
        for _, result in train(*task_of(config), Path(config["folder"])):
            searcher.on_trial_result(trial_id, flat(result))
            if trial_id == "c":
                break
        searcher.on_trial_complete(trial_id, flat(result))
    for spec in replicates(plan, study):
        config = config_of(spec.experiment, spec.folder, plan)
        list(train(*task_of(config), Path(config["folder"])))
    best = study.best_trial
    study.set_user_attr("tested", json.dumps({f"{best.number:03d}": {"test/bits_per_dim": 4.5}}))
    yield Finished(plan, places)


def call(finished: Finished, *words: str) -> None:
    main([*words, *finished.places])


def printed(finished: Finished, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    call(finished, *words)
    return capsys.readouterr().out


def winner(finished: Finished) -> str:
    return f"{finished.study.best_trial.number:03d}"


def test_list_says_how_far_each_sweep_is(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    answer = json.loads(printed(finished, capsys, "list", "--json"))
    (sweep,) = answer["sweeps"]
    assert sweep["bits_per_dim"] == finished.study.best_value
    assert {name: sweep[name] for name in ("sweep", "experiment", "best")} == {
        "sweep": NAME,
        "experiment": "digits/question",
        "best": winner(finished),
    }
    assert [sweep[state] for state in ("complete", "pruned", "failed", "running")] == [2, 1, 1, 0]
    assert NAME in printed(finished, capsys, "list")


def test_nothing_is_made_where_there_is_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--storage", f"sqlite:///{tmp_path}/optuna.db", "--out", str(tmp_path / "runs")]
    main(["list", *places])
    assert "there is no sweep in" in capsys.readouterr().out
    for words in (["best", "mine"], ["leaderboard", "mine"]):
        with pytest.raises(SystemExit, match="2"):
            main([*words, *places])
        said = capsys.readouterr().err
        assert said.startswith("error: there is no sweep 'mine' in") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_leaderboard_ranks_complete_trials_before_others(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = json.loads(printed(finished, capsys, "leaderboard", NAME, "--format", "json"))["trials"]
    assert [trial["state"] for trial in trials] == ["complete", "complete", "pruned", "failed"]
    assert [trial["rank"] for trial in trials] == [1, 2, None, None]
    assert trials[0]["bits_per_dim"] < trials[1]["bits_per_dim"]
    assert trials[0]["trial"] == winner(finished) and trials[0]["seeds"] == 2
    assert trials[0]["metrics"]["test/bits_per_dim"] == 4.5
    seeds = [trials[0]["bits_per_dim"]]
    seeds.append(
        Keeper(finished.plan.folder / "trials" / f"{winner(finished)}-seed-1" / "checkpoints")
        .last()
        .metrics["valid/bits_per_dim"]
    )
    assert trials[0]["mean"] == pytest.approx(np.mean(seeds), abs=1e-12)
    assert trials[2]["images_seen"] < 360 and "ASHA stopped it" in trials[2]["reason"]
    assert trials[3]["reason"].startswith("Diverged")


def test_every_form_of_the_leaderboard_has_the_same_trials(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = json.loads(printed(finished, capsys, "leaderboard", NAME, "--format", "json"))["trials"]
    names = [trial["trial"] for trial in trials]
    rows = list(csv.DictReader(io.StringIO(printed(finished, capsys, "leaderboard", NAME, "--format", "csv"))))
    assert [row["trial"] for row in rows] == names
    assert float(rows[0]["bits_per_dim"]) == trials[0]["bits_per_dim"]
    assert float(rows[0]["model.beta"]) == trials[0]["point"]["model.beta"]
    assert float(rows[0]["valid/distortion"]) == trials[0]["metrics"]["valid/distortion"]
    assert not {"point", "metrics"} & set(rows[0])
    md = printed(finished, capsys, "leaderboard", NAME, "--format", "md").splitlines()
    rate = md[0].split(" | ").index("rate")
    expected = trials[0]["bits_per_dim"] - trials[0]["metrics"]["valid/distortion"]
    assert float(md[2].split(" | ")[rate]) == pytest.approx(expected, abs=1e-4)
    assert [line.split(" | ")[1] for line in md[2:]] == names
    assert len({line.count("|") for line in md}) == 1
    latex = printed(finished, capsys, "leaderboard", NAME, "--format", "latex")
    assert r"\begin{tabular}" in latex and all(f" & {name} & " in latex for name in names)
    text = printed(finished, capsys, "leaderboard", NAME, "--top", "2").splitlines()
    assert len(text) == 4 and names[0] in text[2] and names[1] in text[3]


def test_show_tells_how_to_repeat_it(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(finished, capsys, "best", NAME)
    assert f"{winner(finished)} (" in text and f"{finished.study.best_value:.4f} bits/dim" in text
    answer = json.loads(printed(finished, capsys, "best", NAME, "--json"))
    assert answer["metrics"]["valid/bits_per_dim"] == finished.study.best_value
    checkpoint = read(Path(answer["checkpoint"]))
    words = shlex.split(answer["repeat"])
    assert words[:3] == ["python", "-m", "vqvae_core"]
    repeated = with_overrides(PRESETS[words[3]](), split_overrides(words[4:]))
    elsewhere = ("data.root", "data.source", "train.device", "train.eval_batch")
    same = {name: value for name, value in flatten(checkpoint.experiment).items() if name not in elsewhere}
    assert {name: value for name, value in flatten(repeated).items() if name not in elsewhere} == same
    other = json.loads(printed(finished, capsys, "best", NAME, "--json", "--trial", f"{winner(finished)}-seed-1"))
    assert other["seed"] == 1 and other["config"]["seed"] == 1


@pytest.mark.parametrize(
    ("dataset", "preset"), [("mine", "cifar10_vqvae"), ("pong", "boxing_vqvae"), ("mnist", "mnist_vqvae")]
)
def test_the_command_begins_with_the_preset_that_the_sweep_began_with(dataset: str, preset: str) -> None:
    experiment = with_overrides(preset_of(dataset, "vqvae"), {"data.name": dataset, "train.lr": 0.01})
    named = [] if dataset == "mnist" else ["--data.name", dataset]
    assert shlex.split(training_command(experiment)) == [
        *["python", "-m", "vqvae_core", preset],
        *named,
        *["--train.lr", "0.01"],
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trial", "9"], "--trial is '9'; allowed is one of 000, 001"),
        (["--trial", "003"], "has no whole checkpoint"),
        (["extend"], "extend needs --images N"),
        (["extend", "--images", "100"], "--images is 100; allowed is more than"),
        (["nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_a_mistake_is_one_line(
    finished: Finished, words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    uri = ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    with pytest.raises(SystemExit, match="2"):
        call(finished, "best", NAME, *words, *uri)
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_exported_model_needs_nothing_else(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert printed(finished, capsys, "best", NAME, "export").startswith(f"{NAME}-{winner(finished)}: checkpoint.json")
    folder = tmp_path / f"{NAME}-{winner(finished)}"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "checkpoint.json",
        "command.txt",
        "experiment.json",
        "figures.json",
        "model.safetensors",
        "reconstructions.png",
    }
    with Image.open(folder / "reconstructions.png") as picture:
        assert picture.width >= 640
    exported = read(folder)
    kept = Keeper(finished.plan.folder / "trials" / winner(finished) / "checkpoints").last()
    assert kept is not None and exported.experiment == kept.experiment
    for name, tensor in exported.model().state_dict().items():
        assert torch.equal(tensor, kept.model().state_dict()[name])
    assert json.loads((folder / "figures.json").read_text())["metrics"]["test/bits_per_dim"] == 4.5
    with pytest.raises(SystemExit, match="2"):
        call(finished, "best", NAME, "export")
    assert "which is there already" in capsys.readouterr().err


def test_a_rerun_gives_the_same_figures_to_the_last_digit(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = printed(finished, capsys, "best", NAME, "rerun")
    reports = len(finished.study.best_trial.intermediate_values)
    assert f"the same to the last digit at all {reports} reports" in answer
    again = printed(finished, capsys, "best", NAME, "rerun", "--trial", "002")  # stopped early: as far as it came
    assert "the same to the last digit at all 1 reports" in again


def test_a_rerun_that_ends_elsewhere_says_where_and_fails(
    finished: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps import _again

    def other(experiment: Any, *rest: Any) -> Any:
        return real(with_overrides(experiment, {"seed": 5}), *rest)

    real = _again.fit
    monkeypatch.setattr(_again, "fit", other)
    with pytest.raises(SystemExit, match="1"):
        call(finished, "best", NAME, "rerun", "--within", "1e-9")
    assert "images on, at the end by" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_extension_is_the_run_that_would_have_gone_on(
    finished: Finished, migrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vqvae_core.train import fit

    shutil.copy(migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    before = {path: path.stat().st_mtime_ns for path in (finished.plan.folder / "trials").rglob("*")}
    first = printed(finished, capsys, "best", NAME, "extend", "--images", "500", "--tracking-uri", uri)
    assert "360 -> 500" in first or "384 -> 500" in first
    further = printed(finished, capsys, "best", NAME, "extend", "--images", "700", "--tracking-uri", uri)
    assert f"{winner(finished)}-extended-500" in further  # goes on from there
    assert {path: path.stat().st_mtime_ns for path in (finished.plan.folder / "trials").rglob("*")} == before

    checkpoint = Keeper(finished.plan.folder / "trials" / winner(finished) / "checkpoints").last()
    assert checkpoint is not None
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits/question")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    extended = runs[f"{winner(finished)}-extended-700"]
    assert extended.info.status == "FINISHED" and extended.data.tags["stage"] == "extend"
    assert extended.data.params["train.images"] == "700"
    assert "test/bits_per_dim" in extended.data.metrics
    assert {"checkpoint", "reconstructions.png", "test_reconstructions.png"} <= {
        artifact.path for artifact in client.list_artifacts(extended.info.run_id)
    }

    longer = with_overrides(checkpoint.experiment, {"train.images": 500})
    *_, middle = fit(longer)
    *_, last = fit(with_overrides(longer, {"train.images": 700}), middle.state)
    assert extended.data.metrics["valid/bits_per_dim"] == last.metrics["valid/bits_per_dim"]
