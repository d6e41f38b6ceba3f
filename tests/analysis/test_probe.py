"""The probe: every definition by hand on a small model, and which of them prefers a grey image."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import TINY_MODELS, write_made_up
from PIL import Image

from analysis._models import Found
from analysis._probe import BLURRED, GREY, MODEL, Probe, blurred, formatted, probe
from analysis.table1 import main
from vqvae_core.checkpoint import Keeper
from vqvae_core.config import DataConfig
from vqvae_core.data import Dataset
from vqvae_core.likelihood import bits_per_dim, eq7, fit_log_scale, nll_per_image, to_levels
from vqvae_core.metrics import evaluate_split
from vqvae_core.presets import tiny
from vqvae_core.restore import restore
from vqvae_core.train import fit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_made_up(tmp_path_factory.mktemp("data") / "made_up", (8, 8, 1), train=96, valid=24, test=24)


def trained(dataset: Dataset, kind: str = "vqvae", images: int = 2048) -> tuple[Found, Path]:
    """A tiny model, trained until it is better than grey, and its folder of checkpoints."""
    base = tiny()
    model = base.model if kind == "vqvae" else TINY_MODELS[kind]
    train = replace(base.train, images=images, lr=3e-3, eval_every=images)
    experiment = replace(base, data=DataConfig("made_up", root=str(dataset.folder.parent)), model=model, train=train)
    report = list(fit(experiment, dataset=dataset))[-1]
    folder = dataset.folder.parent / f"runs-{kind}-{images}"
    Keeper(folder).save(report.state, report.metrics, dataset.shape)
    return Found(restore(report.state, dataset.shape), experiment, images, report.metrics, "a test", "unknown"), folder


@pytest.fixture(scope="module")
def found(dataset: Dataset) -> tuple[Found, Path]:
    return trained(dataset)


@pytest.fixture(scope="module")
def probed(dataset: Dataset, found: tuple[Found, Path]) -> Probe:
    return probe(found[0], dataset, "test", 24)


def by_name(probed: Probe) -> dict[str, dict[str, float | None]]:
    return {definition.name: dict(definition.prices) for definition in probed.definitions}


def test_a_trained_models_figures_are_those_of_its_evaluation(
    dataset: Dataset, found: tuple[Found, Path], probed: Probe
) -> None:
    model = found[0].model
    measured = evaluate_split(found[0].experiment, model, dataset, "test")  # type: ignore[arg-type]
    prices = by_name(probed)
    assert probed.mse[MODEL] == pytest.approx(measured["mse"], rel=1e-5)
    assert probed.rates == pytest.approx({name: measured[f"rate_{name}"] for name in ("uniform", "unigram")}, rel=1e-6)
    assert prices["Equation 7 as printed"][MODEL] == pytest.approx(measured["eq7"], rel=1e-5)
    assert prices["the model's own: logistic"][MODEL] == pytest.approx(measured["bits_per_dim"], rel=1e-5)
    # Fitted on other training images than the evaluation's: near it, not equal.
    assert prices["discretised logistic, fitted scale"][MODEL] == pytest.approx(measured["bits_per_dim"], abs=0.05)


def test_a_grey_image_by_hand(dataset: Dataset, probed: Probe) -> None:
    train, test = (torch.from_numpy(dataset.images(split).copy()).float() for split in ("train", "test"))
    mean = torch.full((), float(train.mean()))
    mse = float(((test - mean) / 127.5).double().pow(2).mean())
    prices = by_name(probed)
    assert probed.mse[GREY] == pytest.approx(mse, rel=1e-5)
    assert prices["Equation 7 as printed"][GREY] == pytest.approx(eq7(mse, 0, 16, 64), abs=1e-5)
    one = math.log2(127.5) + 0.5 * math.log2(2 * math.pi) + mse / 2 / math.log(2)
    assert prices["Gaussian density, sigma 1"][GREY] == pytest.approx(one, abs=1e-5)
    for kind in ("gaussian", "logistic"):
        scale = fit_log_scale(kind, train, to_levels((mean / 127.5 - 1).expand_as(train)))
        bits = bits_per_dim(float(nll_per_image(kind, test, mean.expand_as(test), scale).sum()), test.numel())
        # The probe takes 24 images of train to fit on: a little worse or better.
        assert prices[f"discretised {kind}, fitted scale"][GREY] == pytest.approx(bits, abs=0.05)


def test_equation_7_prefers_a_grey_image_and_likelihoods_the_trained_model(probed: Probe) -> None:
    assert probed.mse[MODEL] < probed.mse[GREY]
    prefers = {definition.name: definition.prefers for definition in probed.definitions}
    assert prefers["Equation 7 as printed"] == GREY
    for name in (
        "Gaussian density, fitted sigma",
        "discretised gaussian, fitted scale",
        "discretised logistic, fitted scale",
    ):
        assert prefers[name] in (MODEL, BLURRED), name  # a model that has seen 2,048 images may gain from a blur
        assert by_name(probed)[name][MODEL] < by_name(probed)[name][GREY], name  # type: ignore[operator]
    assert prefers["the model's own: logistic"] == "-"  # it prices no other


def test_blurring_averages_over_the_square_around_each_pixel() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 3] = 1
    out = blurred(image)[0, 0]
    expected = torch.zeros(8, 8)
    for y in range(1, 6):
        for x in range(1, 6):
            # At the edge, of the pixels that there are.
            seen = (min(y + 2, 7) - max(y - 2, 0) + 1) * (min(x + 2, 7) - max(x - 2, 0) + 1)
            expected[y, x] = 1 / seen
    assert torch.allclose(out, expected)


@pytest.mark.parametrize("kind", list(TINY_MODELS))
def test_every_model_of_images_can_be_probed(dataset: Dataset, kind: str) -> None:
    found, _ = trained(dataset, kind, images=64)
    probed = probe(found, dataset, "valid", 10)
    assert probed.images == 10 and probed.split == "valid"
    assert probed.prior == ("normal" if kind == "vae" else "unigram")
    assert all(math.isfinite(price) for prices in by_name(probed).values() for price in prices.values() if price)


def test_the_program_prints_it_in_every_format(
    dataset: Dataset, found: tuple[Found, Path], probed: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--probe", "--checkpoint", str(found[1]), "--images", "24"]
    printed = {}
    for form in ("text", "md", "csv", "latex", "json"):
        main([*arguments, "--format", form])
        printed[form] = capsys.readouterr().out
    read = json.loads(printed["json"])
    assert [entry["prices"] for entry in read["definitions"]] == [dict(d.prices) for d in probed.definitions]
    assert read["definitions"][0]["prefers"] == GREY
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [row["prefers"] for row in rows] == [d.prefers for d in probed.definitions]
    assert float(rows[0][GREY]) == probed.definitions[0].prices[GREY]
    for form in ("text", "md", "latex"):
        assert "prefers the grey image: Equation 7 as printed" in printed[form]
    assert formatted(probed, "text").count("\n") > 10


def test_a_picture_has_a_row_of_images_and_two_of_each_model(
    dataset: Dataset, found: tuple[Found, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "models.png"
    vae = trained(dataset, "vae", images=64)[1]
    main(["--picture", str(path), "--checkpoint", str(found[1]), "--checkpoint", str(vae)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines[1:]] == [
        "images of test",
        "vqvae: reconstructions",
        "vae: reconstructions",
        "vqvae: samples of the unigram prior, each code by itself",
        "vae: samples of N(0, 1)",
    ]
    with Image.open(path) as picture:
        width, height = picture.size
    scale = width // (12 * 10 - 2)
    assert height == scale * (5 * 10 - 2)
    with pytest.raises(SystemExit):
        main(["--picture", str(path)])
    assert "--checkpoint is not given" in capsys.readouterr().err
