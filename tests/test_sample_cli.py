"""``python -m vqvae_core.sample`` on small priors: the same samples by every way, and mistakes in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import run_module, write_made_up
from PIL import Image
from stages import second, train_first

from vqvae_core import sample as program
from vqvae_core.checkpoint import Keeper
from vqvae_core.train import fit


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by name: ``first``, ``prior`` (classes 0 and 1), ``classless`` and ``hierarchy``; images of 4 x 3 codes."""
    folder = tmp_path_factory.mktemp("runs")
    images = write_made_up(folder / "made_up", (16, 12, 3))
    first = train_first(images)
    for name, kind, changes in (
        ("prior", "prior", {}),
        ("classless", "prior", {"model.null_rate": 1.0}),
        ("hierarchy", "hierarchy", {}),
    ):
        keeper = Keeper(folder / name)
        for report in fit(second(kind, images, first, **changes), dataset=images):
            keeper.save(report.state, report.metrics, images.shape)
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; runs are found by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQSWEEP_RUNS", str(runs))
    return tmp_path


def drawn(*arguments: str) -> np.ndarray:
    program.main([*arguments, "--out", "out.png"])
    return np.asarray(Image.open("out.png"))


def test_as_a_program(runs: Path, tmp_path: Path) -> None:
    run = run_module("vqvae_core.sample", "--checkpoint", str(runs / "prior"), "--n", "4", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "4 images in samples.png\n"
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_samples_by_every_way(here: Path) -> None:
    arguments = ["--checkpoint", "prior", "--n", "6", "--class", "1", "--temperature", "0.9", "--top-k", "5"]
    picture = drawn(*arguments)
    assert np.array_equal(drawn(*arguments, "--plain"), picture)
    assert np.array_equal(drawn(*arguments, "--batch", "4"), picture)
    assert np.array_equal(drawn(*arguments, "--class", "light"), picture)
    assert not np.array_equal(drawn(*arguments, "--seed", "1"), picture)
    # A checkpoint alone is enough: nothing but its own folder is read.
    best = Keeper(here.parent / "x").best() or Keeper(Path(program.find_checkpoint("prior")).parent).best()
    assert best is not None
    best.folder.rename(here / "alone")
    try:
        assert np.array_equal(drawn("--checkpoint", "alone", *arguments[2:]), picture)
    finally:
        (here / "alone").rename(best.folder)


def test_a_row_for_each_class(here: Path) -> None:
    rows = drawn("--checkpoint", "prior", "--n", "6", "--class", "all")
    assert np.array_equal(drawn("--checkpoint", "prior", "--n", "6", "--class", "0,1"), rows)
    scale = rows.shape[0] / (2 * 16 + 2)
    assert rows.shape == (round(scale * 34), round(scale * (3 * 14 - 2)), 3)


def test_completion_keeps_what_it_is_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[torch.Tensor] = []
    monkey = pytest.MonkeyPatch()
    original = program.draw_maps

    def spy(*arguments: object, **named: object) -> torch.Tensor:
        maps = original(*arguments, **named)  # type: ignore[arg-type]
        kept.extend((named["given"], maps))  # type: ignore[arg-type]
        return maps

    monkey.setattr(program, "draw_maps", spy)
    try:
        drawn("--checkpoint", "prior", "--n", "5", "--complete", "0.5", "--split", "test")
    finally:
        monkey.undo()
    given, maps = kept
    assert torch.equal(given[:, :, :2], maps[:, :, :2]) and not torch.equal(given[:, :, 2:], maps[:, :, 2:])
    assert capsys.readouterr().out == "10 images in out.png\n"


def test_of_a_hierarchy_there_are_reconstructions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn("--checkpoint", "hierarchy", "--n", "4")
    assert capsys.readouterr().out == "12 images in out.png\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "prior", "--class", "7"], "--class is 7, which training never saw; allowed is 0, 1"),
        (
            ["--checkpoint", "prior", "--class", "cat"],
            "--class is 'cat'; allowed are numbers, all, or one of dark, light",
        ),
        (
            ["--checkpoint", "classless", "--class", "0"],
            "--class is 0, which training never saw; allowed is none: this",
        ),
        (["--checkpoint", "classless", "--class", "all"], "--class is 'all'; allowed is none: this prior was trained "),
        (["--checkpoint", "prior", "--class", "all", "--n", "5"], "--n is 5; allowed is a multiple of 2"),
        (["--checkpoint", "prior", "--n", "0"], "--n is 0; allowed is an integer >= 1"),
        (["--checkpoint", "prior", "--n", "1000000000000"], "--n is 1000000000000; allowed is an integer >= 1 and <= "),
        (["--checkpoint", "prior", "--batch", "0"], "--batch is 0; allowed is an integer >= 1"),
        (["--checkpoint", "prior", "--complete", "0.01"], "--complete is 0.01, which keeps 0 of 4 rows of codes; allo"),
        (["--checkpoint", "prior", "--complete", "0.99"], "--complete is 0.99, which keeps 4 of 4 rows of codes; allo"),
        (["--checkpoint", "hierarchy", "--class", "1"], "--class is '1'; allowed is none: a hierarchy's pictures a"),
        (["--checkpoint", "hierarchy", "--temperature", "0"], "--temperature is 0.0; allowed is none: a hierarchy"),
        (["--checkpoint", "hierarchy", "--top-k", "-4"], "--top-k is -4; allowed is none: a hierarchy"),
        (["--checkpoint", "hierarchy", "--complete", "0.5"], "--complete is 0.5; allowed is none: a hierarchy"),
        (["--checkpoint", "hierarchy", "--plain"], "--plain is True; allowed is none: a hierarchy"),
        (["--checkpoint", "prior", "--temperature", "0"], "temperature is 0.0; allowed is a number > 0"),
        (["--checkpoint", "prior", "--top-k", "99"], "top_k is 99; allowed is an integer from 1 to 16"),
        (["--checkpoint", "prior", "--complete", "1"], "--complete is 1.0; allowed is a number > 0 and < 1"),
        (["--checkpoint", "prior", "--complete", "0.5", "--split", "x"], "data set made_up has no split 'x'"),
        (
            ["--checkpoint", "prior", "--complete", "0.5", "--class", "all"],
            "--class names 2 classes; allowed is one with",
        ),
        (["--checkpoint", "prior", "--complete", "0.5", "--data-root", "x"], "x/made_up is not a data set"),
        (["--checkpoint", "first"], "--checkpoint is a vqvae; allowed is a prior, whose codes can be drawn, or a hier"),
        (["--checkpoint", "nothing"], "--checkpoint is 'nothing', where there is no checkpoint; allowed is"),
        (["--checkpoint", "prior", "--out", "no/where.png"], "--out is 'no/where.png'; allowed is a file in a folder"),
        (["--checkpoint", "prior", "--out", "x.jpg"], "--out is 'x.jpg'; allowed is a name that ends in .png"),
        (["--checkpoint", "prior", "--out", ".."], "--out is '..'; allowed is a file in a folder"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        program.main(arguments)
    err = capsys.readouterr().err
    assert left.value.code == 2 and message in err and err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert not list(here.iterdir())


def test_progress_says_how_far_and_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 11.0, 12.0])
    monkeypatch.setattr(program.time, "monotonic", lambda: next(clock))
    progress = program.Progress()
    for done in (100, 200, 300):
        progress(done, 1000)
    assert capsys.readouterr().err == "       200 of 1,000 codes, about 44 s left\n"
