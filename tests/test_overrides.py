"""Dotted names reach every field, texts become values, and an experiment survives every trip through text."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up import environment

from vqvae_core.config import DataConfig, Experiment, TrainConfig, VQVAEConfig
from vqvae_core.overrides import (
    difference,
    fail,
    flatten,
    from_json,
    run_key,
    split_overrides,
    to_json,
    unflatten,
    with_overrides,
)
from vqvae_core.presets import PRESETS, preset_for, tiny

# Every field away from its default, so that a field that is lost on the way shows.
STRANGE = Experiment(
    DataConfig("mine", "elsewhere", "some/source", size=48, frames=7),
    VQVAEConfig(
        hidden=24,
        residual_blocks=0,
        batch_norm=True,
        num_codes=17,
        code_dim=3,
        codes_per_position=4,
        beta=0.25,
        quantizer="ema",
        codebook_init="kmeans",
        ema_decay=0.9,
        restart_below=0.125,
        output="linear",
        likelihood="gaussian",
        scale="channel",
        mixture_components=2,
        residual=True,
        projected_dim=2,
        normalize=True,
        fsq_levels="17",
    ),
    TrainConfig(
        images=99,
        batch_size=12,
        accumulate=3,
        lr=1e-5,
        grad_clip=2.5,
        eval_every=11,
        eval_batch=5,
        calibration_images=6,
        precision="float32",
        device="cpu",
    ),
    seed=123456789012345678,
)


def test_the_strange_experiment_differs_from_the_defaults_everywhere() -> None:
    defaults = flatten(Experiment(DataConfig(), VQVAEConfig(), TrainConfig()))
    same = [name for name, value in flatten(STRANGE).items() if value == defaults[name]]
    assert same == ["model.type"]


@pytest.mark.parametrize("experiment", [STRANGE, *(preset() for preset in PRESETS.values())])
def test_flat_and_json_come_back_as_they_were(experiment: Experiment) -> None:
    assert unflatten(flatten(experiment)) == experiment
    assert from_json(to_json(experiment)) == experiment
    # A tracker keeps params as texts.
    assert unflatten({name: str(value) for name, value in flatten(experiment).items()}) == experiment


def test_an_override_given_as_text_is_the_value_itself() -> None:
    texts = {name: str(value) for name, value in flatten(STRANGE).items() if name != "model.type"}
    assert with_overrides(tiny(), texts) == STRANGE
    assert with_overrides(STRANGE, {"data.source": "none"}).data.source is None
    assert with_overrides(tiny(), {"train.images": "1_000_000"}).train.images == 1_000_000


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("Yes", True), ("1", True), ("FALSE", False), ("no", False)]
)
def test_yes_and_no_in_their_spellings(text: str, value: bool) -> None:
    assert with_overrides(tiny(), {"model.batch_norm": text}).model.batch_norm is value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("model.num_codes", "0", "an integer >= 2"),
        ("model.num_codes", "many", "an integer >= 2"),
        ("train.images", "1e6", "an integer >= 1"),
        ("train.lr", "-0.1", "a number > 0"),
        ("model.beta", "x", "a number >= 0"),
        ("model.beta", "nan", "a number >= 0"),
        ("model.beta", "inf", "a number >= 0"),
        ("model.batch_norm", "maybe", "true or false"),
        ("model.quantizer", "magic", "one of gradient, ema, frozen"),
        ("seed", "-1", "an integer >= 0"),
        ("data.size", "30", "0 or a multiple of 4"),
        ("data.name", "../elsewhere", "letters, digits, '_', '-' and '.'"),
    ],
)
def test_a_text_that_is_no_value_names_field_value_and_what_is_allowed(name: str, text: str, allowed: str) -> None:
    with pytest.raises(ValueError) as refused:
        with_overrides(tiny(), {name: text})
    message = str(refused.value)
    assert message.startswith(f"{name} is ") and allowed in message, message
    assert text in message, message
    assert "\n" not in message


def test_an_unknown_field_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"^model\.num_code is not a field .*did you mean model\.num_codes\?"):
        with_overrides(tiny(), {"model.num_code": 3})
    with pytest.raises(ValueError, match=r"^zzz is not a field of this experiment; there are data\.frames, "):
        with_overrides(tiny(), {"zzz": 3})
    with pytest.raises(ValueError, match=r"^model\.type is 'gan'; allowed is one of vqvae"):
        unflatten({"model.type": "gan"})


def test_fields_that_belong_together_change_together() -> None:
    # 16 -> 15 alone would not be divisible by 5's stand-in, and neither would 5 alone by 16.
    changed = with_overrides(tiny(), {"train.batch_size": 15, "train.accumulate": 5})
    assert (changed.train.batch_size, changed.train.accumulate) == (15, 5)


def test_options_are_split_into_names_and_values() -> None:
    given = ["--model.beta", "2", "--seed=3", "--train.grad-clip", "0.5", "--data.source=a=b", "--train.lr", "-1"]
    expected = {"model.beta": "2", "seed": "3", "train.grad_clip": "0.5", "data.source": "a=b", "train.lr": "-1"}
    assert split_overrides(given) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.beta"], "--model.beta needs a value"),
        (["--model.beta", "--seed", "1"], "--model.beta needs a value"),
        (["model.beta", "1"], "'model.beta' is not expected here"),
        (["-x", "1"], "'-x' is not expected here"),
    ],
)
def test_options_of_another_form_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_overrides(arguments)


def test_a_mistake_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        fail("first\n  second")
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_a_difference_names_what_changed() -> None:
    old, new = flatten(tiny()), flatten(with_overrides(tiny(), {"model.beta": 2, "train.lr": 0.5}))
    assert difference(old, new) == "model.beta 1.0 -> 2.0, train.lr 0.001 -> 0.5"
    assert difference(old, old) == ""
    assert difference({}, {"extra": 1}) == "extra None -> 1"


@pytest.mark.parametrize("change", [f for f in flatten(STRANGE) if f != "model.type"])
def test_the_key_of_a_run_knows_every_decisive_field(change: str) -> None:
    changed = with_overrides(tiny(), {change: flatten(STRANGE)[change]}) if change != "train.accumulate" else None
    changed = changed or with_overrides(tiny(), {change: 2})
    same = run_key(changed, "data") == run_key(tiny(), "data")
    assert same == (change in ("data.root", "data.source", "train.device", "train.eval_batch"))


def test_the_key_of_a_run_knows_the_data_and_is_the_same_in_every_process() -> None:
    assert run_key(tiny(), "data") != run_key(tiny(), "other data")
    assert run_key(with_overrides(tiny(), {"model.beta": 1}), "") == run_key(
        with_overrides(tiny(), {"model.beta": "1"}), ""
    )
    program = (
        "from vqvae_core.overrides import run_key; from vqvae_core.presets import tiny; print(run_key(tiny(), 'data'))"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**environment(), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert keys == {run_key(tiny(), "data")}


def test_a_preset_for_any_data_set() -> None:
    assert preset_for("mnist", "vqvae") == PRESETS["mnist_vqvae"]()
    mine = preset_for("mine", "vqvae")
    assert mine.data == DataConfig("mine")
    assert dataclasses.replace(mine, data=PRESETS["cifar10_vqvae"]().data) == PRESETS["cifar10_vqvae"]()
    with pytest.raises(ValueError, match=r"model 'gan'.*vqvae"):
        preset_for("mnist", "gan")


def test_json_has_one_field_a_line_and_no_code() -> None:
    lines = to_json(STRANGE).splitlines()
    assert len(lines) == len(flatten(STRANGE)) + 2
    plain: tuple[type[Any], ...] = (str, int, float, bool, type(None))
    assert all(isinstance(value, plain) for value in json.loads(to_json(STRANGE)).values())


def test_no_configuration_knows_this_machine() -> None:
    for name, preset in PRESETS.items():
        assert not any(isinstance(v, str) and Path(v).is_absolute() for v in flatten(preset()).values()), name
