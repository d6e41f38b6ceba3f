"""The figures: from the right run, of the right images, with a table that says what is drawn."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import write_made_up
from made_up_sweep import Writer, measured
from PIL import Image

from analysis._catalogue import FIGURES
from analysis._drawings import untrained_row
from analysis.figures import main
from vqvae_core.checkpoint import Keeper, read
from vqvae_core.data import Dataset
from vqvae_core.overrides import flatten, with_overrides
from vqvae_core.presets import PRESETS, tiny
from vqvae_core.prior import Prior
from vqvae_core.train import fit
from vqvae_core.vqvae import VQVAE

SMALL = {
    "prior": {"model.layers": 2, "model.hidden": 8, "model.head": 8},
    "hierarchy": {
        "model.hidden": 8,
        "model.residual_blocks": 1,
        "model.num_codes": 8,
        "model.code_dim": 4,
        "model.layers": 2,
        "model.decoder_hidden": 4,
        "model.head": 8,
        "model.pictures": 4,
    },
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images of two classes, 40 of them for test."""
    return write_made_up(tmp_path_factory.mktemp("figures") / "mnist", (8, 8, 1), train=48, test=40)


@pytest.fixture(scope="module")
def checkpoints(images: Dataset) -> dict[str, Path]:
    """A small trained model of each kind, by kind."""
    root = images.folder.parent
    common = {"data.name": images.name, "data.root": str(root), "train.images": 32, "train.batch_size": 16}
    common |= {"train.eval_batch": 8, "train.calibration_images": 32}
    found = {}
    for kind in ("vqvae", "prior", "hierarchy"):
        base = tiny() if kind == "vqvae" else PRESETS[f"digits_{kind}"]()
        first = {} if kind == "vqvae" else {"model.first": str(found["vqvae"]), **SMALL[kind]}
        experiment = with_overrides(base, {**common, **first, "train.precision": "float32"})
        keeper = Keeper(root / kind)
        for report in fit(experiment, dataset=images):
            found[kind] = keeper.save(report.state, report.metrics, images.shape)
    return found


@pytest.fixture(scope="module")
def uri(images: Dataset, checkpoints: dict[str, Path]) -> str:
    """A tracker: of each kind a run with weights, and of the VQ-VAE a better one that left none."""
    writer = Writer(images.folder.parent)
    for folder in checkpoints.values():
        params = flatten(read(folder).experiment)
        curve = [(step, measured(2.0 - step / 100, 1.0)) for step in (16, 32)]
        writer.run("000", "FINISHED", {"stage": "search"}, params, curve, checkpoint=folder)
    better = {**flatten(read(checkpoints["vqvae"]).experiment), "model.num_codes": 32}
    writer.run("001", "FINISHED", {"stage": "search"}, better, [(32, measured(1.0, 1.0))])
    writer.run("002", "FAILED", {"stage": "search"}, better, [(32, measured(0.5, 1.0))])
    return writer.save()


def draw(uri: str, out: Path, *arguments: str) -> dict[str, list[dict[str, str]]]:
    """Run the program; gives the tables that it wrote, by file name."""
    main(["--tracking-uri", uri, "--out", str(out), *arguments])
    for path in out.glob("*.png"):
        assert path.with_suffix(".csv").exists()
        with Image.open(path) as picture:
            picture.verify()
    return {path.stem: list(csv.DictReader(path.read_text().splitlines())) for path in sorted(out.glob("*.csv"))}


def cells(path: Path, size: int, columns: int) -> np.ndarray[Any, Any]:
    """The images of a grid of grey images: (rows, columns, size, size)."""
    with Image.open(path) as picture:
        array = np.asarray(picture)
    scale = array.shape[1] // (columns * (size + 2) - 2)
    rows = (array.shape[0] // scale + 2) // (size + 2)
    small = array[::scale, ::scale]
    return np.stack(
        [[small[y * (size + 2) :, x * (size + 2) :][:size, :size] for x in range(columns)] for y in range(rows)]
    )


def test_reconstructions_are_the_models_of_the_test_images(
    uri: str, images: Dataset, checkpoints: Any, tmp_path: Path
) -> None:
    """What is drawn is in the table, and what is in the table can be had again from it."""
    tables = draw(uri, tmp_path, "--figure", "3", "--dataset", "mnist")
    table = tables["figure-03-mnist"]
    numbers = [int(row["index"]) for row in table]
    assert len(set(numbers)) == 16 and {row["split"] for row in table} == {"test"}
    assert [row["class"] for row in table] == [("dark", "light")[n % 2] for n in numbers]
    assert "000" in table[0]["from"] and table[0]["images_seen"] == "32"
    drawn = cells(tmp_path / "figure-03-mnist.png", 8, 8)
    originals = np.concatenate([drawn[0], drawn[2]])
    assert (originals == images.images("test")[numbers][..., 0]).all()
    model = read(checkpoints["vqvae"]).model()
    assert isinstance(model, VQVAE)
    codes = torch.tensor([[int(code) for code in row["codes"].split()] for row in table]).view(-1, 1, 2, 2)
    back = ((model.decode(codes) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)[:, 0].numpy()
    assert (np.concatenate([drawn[1], drawn[3]]) == back).all()
    for row, a, b in zip(table, originals, back, strict=True):
        assert float(row["mse"]) == pytest.approx((((a.astype(float) - b) / 127.5) ** 2).mean())


def test_figure_13_shows_others_than_figure_5(uri: str, tmp_path: Path) -> None:
    tables = draw(uri, tmp_path, "--figure", "5", "--figure", "13", "--dataset", "mnist")
    shown = [{row["index"] for row in tables[name]} for name in ("figure-05-mnist", "figure-13-mnist")]
    assert len(shown[0]) == len(shown[1]) == 8 and not shown[0] & shown[1]


def test_samples_have_a_row_for_each_class_and_their_seed_decides(uri: str, tmp_path: Path) -> None:
    tables = [draw(uri, tmp_path / name, "--figure", "4", "--dataset", "mnist", "--seed", name) for name in "010"]
    codes = [[row["codes"] for row in table["figure-04-mnist"]] for table in tables]
    assert [row["class"] for row in tables[0]["figure-04-mnist"]] == ["dark"] * 10 + ["light"] * 10
    assert codes[0] == codes[2] != codes[1]


def test_uniform_and_learned_prior_stand_above_each_other(uri: str, tmp_path: Path) -> None:
    table = draw(uri, tmp_path, "--figure", "6", "--dataset", "mnist")["figure-06-mnist"]
    assert [row["source"] for row in table] == ["uniform prior"] * 12 + ["learned prior"] * 12
    used = {code for row in table[:12] for code in row["codes"].split()}
    assert len(used) > 8  # 48 codes of 16


def test_a_condition_that_was_never_trained_is_drawn_and_then_gone(uri: str, checkpoints: Any, tmp_path: Path) -> None:
    table = draw(uri, tmp_path, "--figure", "8", "--dataset", "mnist")["figure-08-mnist"]
    assert [row["source"] for row in table] == ["no condition"] * 8 + ["a condition that was never trained"] * 8
    assert [row["codes"] for row in table[:8]] != [row["codes"] for row in table[8:]]
    model = read(checkpoints["prior"]).model()
    assert isinstance(model, Prior)
    before = model.pixelcnn.bias.detach().clone()
    with untrained_row(model, 0):
        assert (model.pixelcnn.bias != before).all()
    assert (model.pixelcnn.bias == before).all()


def test_a_second_vqvae_has_three_rows(uri: str, tmp_path: Path) -> None:
    table = draw(uri, tmp_path, "--figure", "9", "--dataset", "mnist")["figure-09-mnist"]
    assert len(table) == 8 and all(len(row["codes"].split()) == 3 for row in table)
    assert all(len(row["second_codes"].split()) == 4 for row in table)


def test_graphs_show_what_the_tracker_holds(uri: str, tmp_path: Path) -> None:
    tables = draw(uri, tmp_path, "--figure", "curves", "--figure", "rate_distortion", "--figure", "codebook_usage")
    assert {row["model"] for row in tables["curves-mnist"]} == {"vqvae", "prior", "hierarchy"}
    curve = [float(r["value"]) for r in tables["curves-mnist"] if (r["model"], r["metric"]) == ("prior", "distortion")]
    assert curve == pytest.approx([2.0 - 0.16 - 0.25, 2.0 - 0.32 - 0.25])
    points = [(row["num_codes"], row["on_frontier"]) for row in tables["rate_distortion-mnist"]]
    assert sorted(points) == [("16", "False"), ("32", "True")]  # the failed run is no point
    usage = tables["codebook_usage-mnist"]
    assert sum(int(row["count"]) for row in usage) == 40 * 4 and len(usage) == 16


def test_a_training_is_one_point_however_many_sweeps_took_it(tmp_path: Path) -> None:
    """Also one that was taken twice over, and one whose own run the tracker has no longer."""
    writer = Writer(tmp_path)

    def run(rate: float, **tags: str) -> str:
        metrics = measured(2.0, 1.0) | {"valid/rate_unigram": rate, "valid/distortion": 2.0 - rate}
        params = {"data.name": "mnist", "model.type": "vqvae", "model.num_codes": 16}
        own = {name.replace("_", "."): value for name, value in tags.items()}
        return writer.run("000", "FINISHED", {"stage": "search", **own}, params, [(32, metrics)])

    trained = run(0.25)
    taken = run(0.25, cache_run=trained, cache_from="trial 000 of first")
    run(0.25, cache_run=taken, cache_from="trial 000 of second")
    other = run(0.5)
    for _ in range(2):
        run(0.75, cache_run="f" * 32, cache_from="trial 007 of deleted")
    rows = draw(writer.save(), tmp_path / "out", "--figure", "rate_distortion")["rate_distortion-mnist"]
    assert sorted(float(row["rate"]) for row in rows) == [0.25, 0.5, 0.75]
    assert {trained, other} < {row["run"] for row in rows}


def test_a_checkpoint_can_be_named(uri: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    tables = draw(uri, tmp_path, "--figure", "11", "--checkpoint", str(checkpoints["vqvae"].parent))
    assert str(checkpoints["vqvae"].parent) in tables["figure-11-mnist"][0]["from"]


def test_a_prior_that_left_no_first_stage_is_passed_over(
    images: Dataset, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As older sweeps did: its weights alone make no image."""
    alone = tmp_path / "alone"
    shutil.copytree(checkpoints["prior"], alone)
    shutil.rmtree(alone / "first")
    writer = Writer(tmp_path)
    params = flatten(read(checkpoints["prior"]).experiment)
    writer.run("000", "FINISHED", {"stage": "search"}, params, [(32, measured(2.0, 1.0))], checkpoint=alone)
    with pytest.raises(SystemExit) as caught:
        main(["--tracking-uri", writer.save(), "--out", str(tmp_path / "out"), "--figure", "12", "--dataset", "mnist"])
    assert caught.value.code == 1 and "there is no run of a prior on mnist yet" in capsys.readouterr().err


def test_a_figure_without_its_run_says_which_command_makes_it(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all figures those that can be drawn are, and the others name their commands."""
    main(["--tracking-uri", uri, "--out", str(tmp_path), "--all"])
    printed = capsys.readouterr()
    assert "figure 3: " in printed.out and "figure 4: " in printed.out
    for name, command in {
        "3": "python sweeps/beta_lr.py --dataset cifar10",
        "5": "python sweeps/beta_lr.py --dataset mini_imagenet",
        "8": "python sweeps/prior.py --dataset boxing --model.first beta_lr-boxing",
        "9": "python sweeps/hierarchy.py --dataset boxing --model.first beta_lr-boxing",
    }.items():
        line = next(line for line in printed.err.splitlines() if line.startswith(f"figure {name}: "))
        assert command in line
    sweeps = Path(__file__).parents[2] / "sweeps"
    assert all((sweeps / f"{name}.py").exists() for name in ("beta_lr", "prior", "hierarchy", "codebook"))


def test_an_empty_tracker_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in FIGURES:
        with pytest.raises(SystemExit) as caught:
            main(["--tracking-uri", f"sqlite:///{tmp_path}/none.db", "--out", str(tmp_path / "out"), "--figure", name])
        assert caught.value.code == 1 and capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--figure is not given"),
        (["--figure", "10"], "invalid choice: '10'"),
        (["--all", "--checkpoint", "x"], "--checkpoint is for one figure"),
        (["--figure", "3", "--checkpoint", "nowhere"], "--checkpoint is 'nowhere', where there is no checkpoint"),
        (["--figure", "4", "--checkpoint", "VQVAE"], "the checkpoint is a vqvae; allowed is a prior"),
        (["--figure", "3", "--checkpoint", "VQVAE", "--out", "FILE"], "which is not a folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    uri: str,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    places = {"VQVAE": str(checkpoints["vqvae"])}
    with pytest.raises(SystemExit) as caught:
        main(["--tracking-uri", uri, *(places.get(argument, argument) for argument in arguments)])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1 and words in error
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
