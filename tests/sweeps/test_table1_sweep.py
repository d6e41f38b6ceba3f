"""The sweep of Table 1: what its rows are, and one of them all tiny, from the command to the printed table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from analysis.table1 import main as print_table
from sweeps._journal import Journal, begun
from sweeps._plan import Plan, make_plan
from sweeps._settings import parse
from sweeps._space import Point
from sweeps._tracker import SWEEP
from sweeps.table1 import ALIVE, ROWS, main, table1
from sweeps.table1_prior import firsts, table1_prior
from sweeps.table1_prior import main as main_of_priors
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import ImageModelConfig
from vqvae_core.data import open_dataset
from vqvae_core.overrides import flatten, with_overrides
from vqvae_core.presets import PRESETS, mnist_vqvae
from vqvae_core.train import fit

SAMPLED = ("vae", "vimco", "dvae")  # whose q(z | x) has more than one z
TINY = ["--dataset", "digits", "--train.calibration_images", "64", "--train.eval_batch", "512", "--model.hidden", "8"]

TINY_PRIOR = ["--model.layers", "2", "--model.hidden", "8", "--model.head", "8", "--train.eval_batch", "512"]


def changed_by(plan: Plan, point: Point) -> dict[str, object]:
    """The fields of an experiment that are not the report's preset's."""
    base, own = flatten(plan.base), flatten(plan.experiment(point))
    return {name: own[name] for name in base if name in own and own[name] != base[name]}


def test_rows_differ_by_the_model_the_codebook_and_the_likelihood_alone(make: Callable[..., Plan]) -> None:
    sweep = table1(list(ROWS), range(2), ())
    plan = make(sweep=sweep)
    points = {str(point["row"]): point for point in sweep.fixed.values() if point["seed"] == 0}
    assert list(points) == list(ROWS) and len(sweep.fixed) == 2 * len(ROWS)
    assert changed_by(plan, points["vqvae_mse"]) == {}
    assert changed_by(plan, points["vqvae_ema"]) == ALIVE
    assert changed_by(plan, points["vqvae"]) == {**ALIVE, "model.likelihood": "categorical"}
    trunk = ("model.hidden", "model.residual_blocks", "model.batch_norm")
    for row, point in points.items():
        own = plan.experiment(point)
        assert isinstance(own.model, ImageModelConfig)
        assert own.model.trains_on_errors == (row in ("vqvae_mse", "vqvae_ema", "vae_mse"))
        fields = flatten(own)
        assert [fields[name] for name in trunk] == [flatten(plan.base)[name] for name in trunk]
        assert fields["train.images"] == plan.base.train.images
    assert flatten(mnist_vqvae())["model.quantizer"] == "gradient"  # the report's own, as vqvae_mse has it


def test_likelihood_and_samples_reach_the_rows_that_have_them(make: Callable[..., Plan]) -> None:
    sweep = table1(list(ROWS), range(1), ["train.lr"], likelihood="mixture", samples=3)
    plan = make(sweep=sweep)
    found = {str(p["row"]): flatten(plan.experiment(p)) for p in sweep.fixed.values()}
    for row, fields in found.items():
        assert fields["model.likelihood"] == ("logistic" if row.endswith(("_mse", "_ema")) else "mixture")
    assert found["vimco"]["model.samples"] == 3 and "model.samples" not in found["dvae"]
    mine = table1(["vqvae"], range(5, 6), ["model.beta"])
    fields = flatten(make("--model.beta", "0.7", sweep=mine).experiment(mine.fixed["vqvae-seed-5"]))
    assert (fields["model.beta"], fields["seed"]) == (0.7, 5)


def test_fewer_rows_continue_the_same_sweep(make: Callable[..., Plan]) -> None:
    every, one = (make(sweep=table1(rows, range(3), ())) for rows in (list(ROWS), ["vae"]))
    assert every.identity() == one.identity() and set(one.sweep.fixed) < set(every.sweep.fixed)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "-1"], "--seed"),
        (["--trials", "3"], "--trials is 3; allowed is none"),
        (["--scheduler", "none"], "--scheduler is none; allowed is none: each run of this list is trained once"),
        (["--only", "vqvea"], "vqvea"),
        (["--seeds", "0"], "--seeds"),
        (["--likelihood", "logistic"], "--likelihood"),
        (["--samples", "1"], "allowed is an integer >= 2"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    printed = capsys.readouterr()
    assert left.value.code == 2 and printed.err.count("\n") == 1 and words in printed.err


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_rows_are_trained_tested_and_shown(tracked: Path, own_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    trained = ("vqvae_mse", *SAMPLED)
    command = [*TINY, "--images", "64", "--train.eval_every", "64", "--seeds", "1", "--likelihood", "mixture"]
    command += [word for row in trained for word in ("--only", row)]
    command += ["--samples", "2", "--train.lr", "1e-3"]
    main(command)
    printed = capsys.readouterr().out
    assert "table1-digits" in printed and "'s point" not in printed  # a run of a list is nobody's known point
    uri = f"sqlite:///{tracked}/mlflow.db"
    print_table(["--tracking-uri", uri, "--results", str(tracked / "data"), "--format", "json"])
    rows = {row["name"]: row["ours"] for row in json.loads(capsys.readouterr().out)["rows"] if row["ours"]}
    assert set(rows) == set(trained)
    for name, ours in rows.items():
        assert (ours["dataset"], ours["n"], ours["seeds"], ours["split"]) == ("digits", 1, [0], "test")
        assert ours["value"] == pytest.approx(ours["D"] + ours["R"]) and ours["images_seen"] == [64]
        assert 0 < ours["unigram_pixels"] < 8
        bounds = ours["bounds"]
        if name in SAMPLED:
            # The same samples, more of them: the bound can only be tighter; S = 1 is an estimate of bits/dim itself.
            assert bounds["s50"] < bounds["s10"] < bounds["s1"] == pytest.approx(ours["value"], rel=0.1)
        else:
            assert bounds == {}
    main(command)  # again: it is finished
    assert "starts" not in capsys.readouterr().out

    # A PixelCNN on the codes of each: a VAE has none.
    learned = ["--model.first", "table1-digits", "--images", "64", "--train.eval_every", "64", *TINY_PRIOR]
    main_of_priors(learned)
    assert "training 3 runs" in capsys.readouterr().out
    print_table(["--tracking-uri", uri, "--results", str(tracked / "data"), "--format", "json"])
    rows = {row["name"]: row["ours"] for row in json.loads(capsys.readouterr().out)["rows"] if row["ours"]}
    assert set(rows) == {*trained, "vqvae_mse_prior", "vimco_prior", "dvae_prior"}
    for name in ("vqvae_mse_prior", "vimco_prior", "dvae_prior"):
        ours, first = rows[name], rows[name.removesuffix("_prior")]
        assert (ours["n"], ours["prior"], ours["model"]) == (1, "learned", first["model"])
        assert ours["value"] == pytest.approx(ours["D"] + ours["R"])
        assert str(tracked) not in json.dumps(ours) and ours["config"]["first.images_seen"] == "64"
    assert rows["vqvae_mse_prior"]["D"] == pytest.approx(rows["vqvae_mse"]["D"])  # the same model of images
    main_of_priors(learned)
    assert "starts" not in capsys.readouterr().out


def first_stages(workplace: Path) -> Path:
    """The folder of a finished sweep of Table 1 in which the run of VIMCO failed half way."""
    folder = workplace / "runs" / "table1-digits"
    for row, kind, until in (("vqvae", "vqvae", 2), ("vimco", "vimco", 1), ("vae", "vae", 2)):
        small = {"model.hidden": 8, "train.images": 64, "train.eval_every": 32, "train.calibration_images": 32}
        dataset = open_dataset(workplace / "data" / "digits")
        keeper = Keeper(folder / "trials" / f"{row}-seed-0" / "checkpoints")
        for report in islice(fit(with_overrides(PRESETS[f"digits_{kind}"](), small), dataset=dataset), until):
            keeper.save(report.state, report.metrics, dataset.shape)
    (folder / "trials" / "vqvae-seed-x").mkdir()  # somebody's
    journal = Journal(folder)
    journal.add("start", SWEEP)
    journal.add("end", SWEEP, state="complete")
    journal.close()
    assert begun(folder) is not None and begun(workplace) is None
    return folder


def test_priors_stand_on_the_ends_of_finished_runs_that_have_codes(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VQSWEEP_RUNS", raising=False)
    folder = first_stages(workplace)
    (stage,) = firsts("table1-digits", ["vqvae"])
    assert (stage.row, stage.seed, stage.dataset, stage.checkpoint.name) == ("vqvae", 0, "digits", "at-000000000064")
    sweep = table1_prior([stage])
    assert list(sweep.fixed) == ["vqvae_prior-seed-0"] and sweep.derive is not None
    assert sweep.derive(sweep.fixed["vqvae_prior-seed-0"]) == {"seed": 0, "model.first": str(stage.checkpoint)}
    named = ["--model.first", "table1-digits"]
    both = [stage, replace(stage, row="dvae", checkpoint=stage.checkpoint.parent)]
    one, two = (
        make_plan(own, parse(own, ["--dataset", "digits"], "sweeps/table1_prior.py"))
        for own in (sweep, table1_prior(both[::-1]))
    )
    assert one.identity() == two.identity()  # further rows continue the same sweep

    def refused(arguments: list[str], words: str) -> None:
        with pytest.raises(SystemExit) as left:
            main_of_priors(arguments)
        printed = capsys.readouterr()
        assert left.value.code == 2 and printed.err.count("\n") == 1 and words in printed.err

    refused([], "--model.first is not given")
    refused(["--model.first", "nowhere"], "--model.first is 'nowhere'; allowed is the folder or name of a finished")
    refused(named, "whose run vimco-seed-0 failed; leave its row out by --only")
    refused([*named, "--only", "vae"], "--only is vae; allowed is a row with codes")
    refused([*named, "--only", "dvae"], "--only is dvae;")
    refused([*named, "--only", "vqvae", "--seed", "5"], "--seed is 5; allowed is none")
    refused([*named, "--only", "vqvae", "--dataset", "mnist"], "--dataset is mnist; allowed is digits")
    with (folder / "journal.jsonl").open("a") as journal:  # continued with further rows, and not at its end yet
        journal.write(json.dumps({"kind": "start", "run": SWEEP}) + "\n" + '{"kind": "end", "ru')
    refused([*named, "--only", "vqvae"], "--model.first is 'table1-digits', which was not brought to its end")
