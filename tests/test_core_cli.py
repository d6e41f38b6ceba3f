"""The programs as they are typed: ``python -m vqvae_core`` and ``python -m vqvae_core.data``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import environment, run_module, without_times, write_made_up
from safetensors.torch import load_file

import vqvae_core.__main__ as program
from vqvae_core.checkpoint import WEIGHTS, Keeper, read
from vqvae_core.data import open_dataset
from vqvae_core.overrides import with_overrides
from vqvae_core.presets import PRESETS, tiny
from vqvae_core.train import Diverged, fit

SMALL = ["--train.images", "80", "--train.eval_every", "16", "--model.quantizer", "ema", "--model.batch-norm=yes"]

# The real program, which is killed by a signal that it cannot catch while it writes its third checkpoint.
KILLED = """
import os, runpy, signal, sys
from vqvae_core import checkpoint
written, plain = [], checkpoint.as_safetensors
def deadly(tensors):
    written.append(1)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(tensors)
checkpoint.as_safetensors = deadly
sys.argv[0] = "vqvae_core"
runpy.run_module("vqvae_core", run_name="__main__")
"""


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(digits_root: Path, tmp_path: Path) -> None:
    arguments = ["tiny", "--data.root", str(digits_root), *SMALL]
    first = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert first.returncode == -9, first.stderr
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["16", "32"]
    run = tmp_path / "runs" / "tiny"
    assert len(list(run.glob(".at-000000000048.*.tmp"))) == 1  # cut off in the middle

    again = run_module("vqvae_core", *arguments, cwd=tmp_path)
    assert again.returncode == 0 and again.stderr.count("\n") <= 1, again.stderr
    assert not again.stderr or "perplexity" in again.stderr  # so short a training may end in a warning
    said = again.stdout.splitlines()
    assert said[0] == "continuing from runs/tiny/at-000000000032"
    assert [line.split()[0] for line in said[1:]] == ["48", "64", "80", "best:"]
    assert not list(run.glob(".*"))

    overrides = program.split_overrides(arguments[1:])
    *_, expected = fit(with_overrides(tiny(), overrides), dataset=open_dataset(digits_root / "digits"))
    last = Keeper(run).last()
    assert last is not None and without_times(last.metrics) == without_times(expected.metrics)
    weights = load_file(last.folder / WEIGHTS)
    assert weights.keys() == expected.state["model"].keys()
    assert all(tensor.equal(expected.state["model"][name]) for name, tensor in weights.items())


def test_the_data_programs(png_folder: Path, tmp_path: Path) -> None:
    made = run_module("vqvae_core.data", "import", str(png_folder), "--name", "mine", "--size", "8", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[0] == "data/mine: 8 x 8 x 3, 10 train, 1 valid, 1 test, 2 classes"
    pytest.importorskip("sklearn")
    prepared = run_module("vqvae_core.data", "prepare", "digits", cwd=tmp_path)
    assert prepared.returncode == 0, prepared.stderr
    assert prepared.stdout == "data/digits: 8 x 8 x 1, 1,350 train, 150 valid, 297 test, 10 classes\n"
    assert prepared.stderr.splitlines()[0] == "preparing digits train: 1,500 images"  # progress, where no terminal is
    listed = run_module("vqvae_core.data", "list", "--verify", cwd=tmp_path)
    assert listed.stdout.splitlines() == [prepared.stdout.strip(), made.stdout.splitlines()[0]]
    wrong = run_module("vqvae_core.data", "prepare", "nothing", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert wrong.stderr.startswith("error: data.name is 'nothing'; allowed is one of digits, ")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which ``main`` is called, instead of starting a process for every mistake."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tinny"],
            "error: python -m vqvae_core: argument PRESET: 'tinny' (did you mean tiny?); allowed is one ",
        ),
        (["x"], "error: python -m vqvae_core: argument PRESET: 'x'; allowed is one of digits_vqvae, "),
        (["tiny", "--data.name", "nothing"], "error: data.name is 'nothing'; allowed is one of digits, mnist, "),
        (["tiny", "--data.name", "../x"], "error: data.name is '../x'; allowed are letters, digits"),
        (["tiny", "--model.num_codes", "0"], "error: model.num_codes is 0; allowed is an integer >= 2"),
        (["tiny", "--train.lr", "-1"], "error: train.lr is -1.0; allowed is a number > 0"),
        (["tiny", "--train.lr=-1e-3"], "error: train.lr is -0.001; allowed is a number > 0"),
        (["tiny", "--train.lr", "-1e-3"], "error: train.lr is -0.001; allowed is a number > 0"),
        (["tiny", "--model.beta", "x"], "error: model.beta is 'x'; allowed is a number >= 0"),
        (["tiny", "--model.num_coeds", "8"], "error: model.num_coeds is not a field of this experiment; did you mean "),
        (["tiny", "--model.beta"], "error: --model.beta needs a value"),
        (["tiny", "stray"], "error: 'stray' is not expected here; options look like --model.beta 0.25"),
        (["tiny", "--data", "x"], "error: data is not a field of this experiment; did you mean data."),
        (["tiny", "--data-source", "nowhere"], "error: data.source is 'nowhere', which is not a folder"),
        (["tiny", "--train.accumulate", "3"], "error: train.accumulate is 3; allowed is a divisor of train.batch_size"),
        (["tiny", "--data.size", "16"], "error: data.size is 16; allowed is 0 for digits, whose images are 8 x 8"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        program.main(arguments)
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.startswith(message) and err.count("\n") == 1, err
    assert not list(here.iterdir())


@pytest.mark.parametrize("where", ["--out", "--data.root"])
def test_a_folder_that_cannot_be_written(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr(Path, "mkdir", refused)
    root = [] if where == "--data.root" else ["--data.root", str(digits_root)]
    with pytest.raises(SystemExit) as left:
        program.main(["tiny", *root, where, "there", "--train.images", "16"])
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: [Errno 13] Permission denied: 'there'"


def test_a_file_where_checkpoints_should_go(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("")
    with pytest.raises(SystemExit) as left:
        program.main(["tiny", "--out", "file"])
    assert left.value.code == 2 and capsys.readouterr().err == "error: --out is 'file', which is not a folder\n"
    assert [path.name for path in here.iterdir()] == ["file"]


def test_images_that_the_encoder_cannot_shrink(here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_made_up(tmp_path / "data" / "odd", (6, 8, 1))
    with pytest.raises(SystemExit) as left:
        program.main(["tiny", "--data.name", "odd"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: images are 8 x 6 pixels; allowed are multiples of 4, ")
    assert not (here / "runs").exists()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["mnist_vqvae", "-h"]])
def test_help_shows_every_preset_and_field(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    program.main(arguments)
    out = capsys.readouterr().out
    assert all(name in out for name in PRESETS)
    assert "fields and their values in mnist_vqvae:" in out if len(arguments) == 2 else "values in tiny:" in out
    for field in ("data.name", "model.num_codes", "train.accumulate", "seed"):
        assert f"--{field} " in out


def run(digits_root: Path, *arguments: str) -> None:
    program.main(["tiny", "--data.root", str(digits_root), "--out", "out", *SMALL, *arguments])


def test_what_is_finished_is_not_done_again(here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(digits_root)
    first = capsys.readouterr().out.splitlines()
    assert len(first) == 6 and "bits/dim" in first[0] and first[-1].startswith("best: ")
    run(digits_root)
    assert capsys.readouterr().out.splitlines() == ["continuing from out/at-000000000080", first[-1]]
    # A larger budget goes on from there.
    run(digits_root, "--train.images", "96")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["continuing", "96", "best:"]


def test_folders_of_the_environment_hold_what_is_made(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with sweeps: a run is found again by its name."""
    monkeypatch.setenv("VQSWEEP_RUNS", str(here / "made"))
    monkeypatch.setenv("VQSWEEP_DATA", str(digits_root))
    program.main(["digits_vqvae", *SMALL])
    capsys.readouterr()
    layers = ["--model.layers", "2", "--model.hidden", "8", "--model.head", "8"]
    program.main(["digits_prior", *layers, "--train.images", "32", "--train.batch_size", "16"])
    assert capsys.readouterr().out.startswith(f"codes of {here / 'made' / 'digits_vqvae'}")
    assert sorted(path.name for path in here.iterdir()) == ["made"]
    assert sorted(path.name for path in (here / "made").iterdir()) == ["digits_prior", "digits_vqvae"]


def test_codes_that_say_nothing_are_a_warning(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(digits_root, "--model.num_codes", "2", "--model.quantizer", "frozen", "--train.lr", "1e-9")
    perplexity = Keeper(Path("out")).last()
    assert perplexity is not None and perplexity.metrics["valid/perplexity"] < 2
    printed = capsys.readouterr()
    assert "warning: its codes' perplexity is " in printed.err and "warning" not in printed.out


def test_a_prior_says_whose_codes_it_learns(here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(digits_root)
    best = Keeper(Path("out")).best()
    assert best is not None
    small = ["--model.layers", "2", "--model.hidden", "8", "--model.head", "8", "--train.images", "16"]
    capsys.readouterr()
    program.main(["digits_prior", "--data.root", str(digits_root), "--model.first", "out", "--out", "prior", *small])
    assert capsys.readouterr().out.splitlines()[0] == f"codes of {best.folder.absolute()}"


def test_another_experiment_in_the_same_folder_is_refused(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(digits_root)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        run(digits_root, "--model.beta", "2")
    assert left.value.code == 2
    expected = "error: the state to continue from is another experiment's: model.beta 1.0 -> 2.0\n"
    assert capsys.readouterr().err == expected
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(digits_root, "--train.images", "32")
    newest = Keeper(here / "out").found()[-1]
    (newest / WEIGHTS).write_bytes(b"damaged")
    capsys.readouterr()
    run(digits_root, "--train.images", "32")
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"warning: out/{newest.name}/{WEIGHTS} is damaged: ")
    assert read(newest).images_seen == 32 and out[-1].startswith("best: ")


def test_a_run_that_diverges_says_so_in_one_line(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run(digits_root, "--train.lr", "1e30")
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: the loss is no longer finite at ")


def test_a_second_ctrl_c_says_how_to_go_on(
    here: Path, digits_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        yield next(fit(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "fit", interrupted)
    with pytest.raises(SystemExit) as left:
        run(digits_root)
    assert left.value.code == 130
    assert capsys.readouterr().err == "\nstopped; the same command continues from the last checkpoint\n"
    assert [path.name for path in Keeper(here / "out").found()] == ["at-000000000016"]


def test_diverged_is_no_value_error() -> None:
    # A sweep tells a user's mistake from a run that did not work out.
    assert not issubclass(Diverged, ValueError)


def test_sigterm_saves_and_the_same_command_goes_on_to_the_same_numbers(
    tmp_path: Path, digits_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tiny", "--data.root", str(digits_root), "--train.images", "320", "--train.eval_every", "160"]
    program.main([*arguments, "--out", str(tmp_path / "whole")])
    asked = iter(range(1, 1000))

    def step_and_signal(watch: program.Watch, images_seen: int) -> bool:
        if next(asked) == 14:  # in the middle of the second report's interval
            os.kill(os.getpid(), signal.SIGTERM)
        return watch.interrupted

    with monkeypatch.context() as patch:
        patch.setattr(program.Watch, "__call__", step_and_signal)
        with pytest.raises(SystemExit) as caught:
            program.main([*arguments, "--out", str(tmp_path / "broken")])
    assert caught.value.code == program.INTERRUPTED
    assert "stopped at 224 images; the same command continues" in capsys.readouterr().err
    program.main([*arguments, "--out", str(tmp_path / "broken")])
    whole, broken = (Keeper(tmp_path / name).last() for name in ("whole", "broken"))
    assert whole is not None and broken is not None
    assert without_times(whole.metrics) == without_times(broken.metrics)
    ours, theirs = (load_file(found.folder / WEIGHTS) for found in (whole, broken))
    assert all(ours[name].equal(theirs[name]) for name in ours)
