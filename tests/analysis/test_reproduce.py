"""A published row is trained again from its record alone, and compared with its interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import write_made_up
from stages import last, second

from analysis._reproduce import experiment_of, find_record
from analysis.published import Result, write_results
from analysis.table1 import main
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import DataConfig, Experiment
from vqvae_core.data import Dataset
from vqvae_core.overrides import flatten
from vqvae_core.presets import tiny
from vqvae_core.restore import restore
from vqvae_core.task import evaluate_on
from vqvae_core.train import fit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_made_up(tmp_path_factory.mktemp("data") / "made_up", train=64, valid=20, test=12)


def experiment(dataset: Dataset, seed: int) -> Experiment:
    train = replace(tiny().train, images=96, eval_every=48)
    return replace(tiny(), data=DataConfig("made_up", root=str(dataset.folder.parent)), train=train, seed=seed)


@pytest.fixture(scope="module")
def record(dataset: Dataset) -> Result:
    """What two seeds gave, as the tracker would have it: every value of the configuration a text."""
    values = []
    for seed in (0, 1):
        own = experiment(dataset, seed)
        last = list(fit(own, dataset=dataset))[-1]
        values.append(evaluate_on(own, restore(last.state, dataset.shape), dataset, "test")["bits_per_dim"])
    config = {name: str(value) for name, value in flatten(experiment(dataset, 0)).items() if name != "seed"}
    mean, half = sum(values) / 2, abs(values[0] - values[1]) / 2 + 0.01
    return Result(
        "made_up", "vqvae", mean, half, 2, None, None, "unigram", {"fingerprint": dataset.fingerprint}, None,
        ["0123456789"], "made up", seeds=[0, 1], values=values, config=config, sweep="a",
    )  # fmt: skip


def test_the_record_gives_the_experiment_back(dataset: Dataset, record: Result) -> None:
    places = {"data.root": str(dataset.folder.parent)}
    assert experiment_of({"model.type": "vqvae", **record.config}, "made_up", 1, places) == experiment(dataset, 1)


def test_a_row_runs_again_with_its_own_figures(
    dataset: Dataset, record: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    write_results(tmp_path / "results" / "table1.json", [record])
    places = ["--results", str(tmp_path / "results"), "--data-root", str(dataset.folder.parent), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "made_up/vqvae_mse", *places])
    printed = capsys.readouterr()
    assert left.value.code == 0, printed
    for seed, value in zip((0, 1), record.values, strict=True):
        assert f"seed {seed}: recorded {value:.4f}, now {value:.4f}, difference +0.0000" in printed.out.replace(
            "-0.0000", "+0.0000"
        )
    assert "within the interval" in printed.out and "not the record's images" not in printed.out
    assert "seed-1: 96 of 96 images" in printed.err
    # Again, and for one seed: nothing is trained twice.
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "made_up/vqvae_mse@a", "--seed", "1", *places])
    printed = capsys.readouterr()
    assert left.value.code == 0 and printed.err == "" and "seed 0" not in printed.out


def test_a_row_with_a_learned_prior_runs_again_from_its_first_stage_on(
    dataset: Dataset, record: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each seed has a first stage of its own, which is trained again too: the record knows no folder."""
    keeper = Keeper(tmp_path / "first")
    for report in fit(experiment(dataset, 1), dataset=dataset):
        keeper.save(report.state, report.metrics, dataset.shape)
    own = replace(second("prior", dataset, keeper.folder), seed=1)
    model = restore(last(fit(own, dataset=dataset)).state, dataset.shape)
    value = evaluate_on(own, model, dataset, "test")["bits_per_dim"]
    config = {name: str(value) for name, value in flatten(own).items() if name not in ("seed", "model.first")}
    config |= {f"first.{name}": value for name, value in record.config.items()}
    prior = replace(record, config=config, value=value, values=[value], seeds=[1], n=1, interval=0.0)
    write_results(tmp_path / "table1.json", [prior])
    places = ["--results", str(tmp_path), "--data-root", str(dataset.folder.parent), "--out", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "made_up/vqvae_mse_prior", *places])
    printed = capsys.readouterr()
    assert left.value.code == 0, printed
    assert f"recorded {value:.4f}, now {value:.4f}" in printed.out and "seed-1-first: 96 of 96 images" in printed.err


def test_a_figure_that_does_not_come_again_is_exit_status_1(
    dataset: Dataset, record: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(
        record, values=[value - 0.5 for value in record.values], interval=0.1, data={"fingerprint": "other"}
    )
    write_results(tmp_path / "table1.json", [other])
    places = ["--results", str(tmp_path), "--data-root", str(dataset.folder.parent), "--out", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "made_up/vqvae_mse", "--seed", "0", *places])
    printed = capsys.readouterr().out
    assert left.value.code == 1
    assert "difference +0.5000" in printed and "outside the interval" in printed
    assert "these are not the record's images" in printed
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "made_up/vqvae_mse", "--seed", "7", *places])
    assert left.value.code == 2 and "--seed is 7; allowed is one of 0, 1" in capsys.readouterr().err


def test_a_row_is_named_by_data_set_and_row_and_by_sweep_where_there_are_several(record: Result) -> None:
    other = replace(record, sweep="b", config={**record.config, "model.hidden": "16"})
    likelihood = replace(record, config={**record.config, "model.likelihood": "mixture"})
    published = [("x.json", record), ("x.json", other), ("x.json", likelihood)]
    assert find_record(published, "made_up/vqvae") is likelihood
    assert find_record(published, "made_up/vqvae_mse@b") is other
    with pytest.raises(ValueError, match="allowed is one of made_up/vqvae_mse@a, made_up/vqvae_mse@b"):
        find_record(published, "made_up/vqvae_mse")
