"""Published results go round, commands say what they promise, and words stay words in every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_tracker import result

from analysis import _commands
from analysis.published import as_json, read_results, write_results
from vqvae_core.overrides import flatten, split_overrides, with_overrides
from vqvae_core.presets import PRESETS, cifar10_vqvae
from vqvae_core.tables import WIDTH, Column, latex_text, markdown_text, text


def test_how_to_make_a_row_names_only_sweeps_that_exist(tmp_path: Path) -> None:
    rows = (Path(_commands.SWEEPS) / "table1.py").read_text()
    for model in _commands.ROWS:
        assert f'"{model}": {{"model.type"' in rows
        assert _commands.how_to_make("mnist", model) == f"python sweeps/table1.py --only {model} --dataset mnist"
        assert _commands.how_to_make("mnist", model, tmp_path) is None
    assert _commands.how_to_make("mnist", "my_model") is None


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("python sweeps/x.py --data-source /home/me/data --only a", "python sweeps/x.py --data-source DIR --only a"),
        (
            "p --data.root=/a/b --images 3 --out '/my runs/x' --seed 1",
            "p --data.root=DIR --images 3 --out DIR --seed 1",
        ),
        ("python sweeps/x.py --images 3", "python sweeps/x.py --images 3"),
        (None, None),
    ],
)
def test_a_published_command_has_no_folder_of_ours(typed: str | None, shown: str | None) -> None:
    assert _commands.without_places(typed) == shown


def test_the_command_that_repeats_a_configuration_gives_its_fields() -> None:
    changed = {"model.beta": 0.5, "train.lr": 1e-4, "model.batch_norm": True, "data.name": "my_images"}
    experiment = with_overrides(cifar10_vqvae(), {**changed, "data.root": "/somewhere", "data.source": "/my_files"})
    config = {name: str(value) for name, value in flatten(experiment).items()}
    command = _commands.how_to_repeat(config, [3])
    assert command is not None
    python, dash, module, preset, *arguments = command.split()
    assert (python, dash, module, preset) == ("python", "-m", "vqvae_core", "cifar10_vqvae")
    again = with_overrides(PRESETS[preset](), split_overrides(arguments))
    assert again == replace(experiment, seed=3)
    several = _commands.how_to_repeat(config, [0, 1])
    assert several is not None and several.startswith("for seed in 0 1; do python -m vqvae_core cifar10_vqvae --")
    assert _commands.how_to_repeat({**config, "model.type": "none_such"}, [0]) is None
    usual = _commands.how_to_repeat({**config, "data.root": "data", "data.source": "None"}, [3])
    assert usual is not None and "--data.root" not in usual and "--data.source" not in usual


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSONDecodeError"),
        ('{"kind": "bits_per_dim"}', "rows"),
        ('{"kind": "bits_per_dim", "rows": [{"dataset": "mnist"}]}', "model"),
        ('{"kind": "bits_per_dim", "rows": [3]}', "items"),
    ],
)
def test_a_damaged_result_is_named(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=rf"x\.json is no file of published results .*{reason}"):
        read_results(tmp_path)


@pytest.mark.parametrize("change", [{"value": "1"}, {"value": None}, {"n": True}, {"data": None}, {"commit": "abc"}])
def test_a_result_of_wrong_kind_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    row = {**as_json(result("vqvae", 1.0, 0.1)), **change}
    (tmp_path / "x.json").write_text(json.dumps({"kind": "bits_per_dim", "rows": [row]}))
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .*; allowed is"):
        read_results(tmp_path)


def test_results_go_round(tmp_path: Path) -> None:
    one = result("vqvae", 1.5, None, eq7=float("nan"))
    write_results(tmp_path / "x.json", [one])
    ((file, again),) = read_results(tmp_path)
    assert (file, as_json(again)) == ("x.json", as_json(one))
    assert again.eq7 is None  # JSON knows no NaN


def test_cells_that_are_too_long_are_cut_in_text_only() -> None:
    columns = [Column(f"{n}", ["x" * 50, "y"], most=10) for n in range(12)]
    lines = text(columns).splitlines()
    assert WIDTH - 3 < max(map(len, lines)) <= WIDTH
    assert "x" * 9 + "…" in lines[2]


def test_nothing_stays_markup() -> None:
    assert latex_text(r"a_b & 50% \x{y} ~^#$ <±") == (
        r"a\_b \& 50\% \textbackslash{}x\{y\} \textasciitilde{}\textasciicircum{}\#\$ \textless{}$\pm$"
    )
    assert markdown_text("a|b_c*d`e\nf<g>[h]") == r"a\|b\_c\*d\`e f\<g\>\[h\]"
