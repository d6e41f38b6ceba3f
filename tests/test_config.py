"""Every field of every configuration says what it means, and refuses what it cannot be."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator
from typing import Any

import pytest

from vqvae_core import config, presets
from vqvae_core.config import Checked, DataConfig, Experiment, TrainConfig, VQVAEConfig, plain_types, type_hints
from vqvae_core.overrides import describe_fields
from vqvae_core.presets import PRESETS, tiny

SECTIONS = [
    kind
    for name, kind in vars(config).items()
    if isinstance(kind, type) and issubclass(kind, Checked) and name == kind.__name__ not in ("Checked", "Experiment")
]


def build(kind: type[Checked], **fields: Any) -> Checked:
    return Experiment(DataConfig(), VQVAEConfig(), TrainConfig(), **fields) if kind is Experiment else kind(**fields)


def options() -> Iterator[tuple[type[Checked], dataclasses.Field[Any], Any]]:
    for kind in [*SECTIONS, Experiment]:
        for spec in dataclasses.fields(kind):  # type: ignore[arg-type]
            if "doc" in spec.metadata:
                yield kind, spec, type_hints(kind)[spec.name]


def bad_values(spec: dataclasses.Field[Any], hint: Any) -> list[Any]:
    """Values just outside each bound, and of every other kind."""
    kinds = plain_types(hint)
    step = 1 if int in kinds else 1e-9
    bounds = spec.metadata["bounds"]
    bad: list[Any] = [object(), [1]]
    bad += [bounds[sign] - step for sign in (">=",) if sign in bounds]
    bad += [bounds[sign] + step for sign in ("<=",) if sign in bounds]
    bad += [bounds[sign] for sign in (">", "<") if sign in bounds]
    if types.NoneType not in kinds:
        bad.append(None)
    if int in kinds or float in kinds:
        bad += ["3", True, math.nan, math.inf, -math.inf]
    if int in kinds:
        bad.append(0.5)
    if bool in kinds:
        bad += ["true", 1]
    if str in kinds:
        bad.append(3)
    if spec.metadata["choices"]:
        bad.append("nonsense")
    return bad


@pytest.mark.parametrize(
    ("kind", "spec", "hint"), [pytest.param(*o, id=f"{o[0].section}.{o[1].name}") for o in options()]
)
def test_a_field_refuses_what_it_cannot_be(kind: type[Checked], spec: dataclasses.Field[Any], hint: Any) -> None:
    name = f"{kind.section}.{spec.name}".removeprefix(".")
    for bad in bad_values(spec, hint):
        with pytest.raises(ValueError) as refused:
            build(kind, **{spec.name: bad})
        message = str(refused.value)
        assert message.startswith(f"{name} is {bad!r}; allowed is "), message
        assert "\n" not in message and not message.endswith("allowed is "), message


@pytest.mark.parametrize(
    ("kind", "spec", "hint"), [pytest.param(*o, id=f"{o[0].section}.{o[1].name}") for o in options()]
)
def test_a_field_takes_the_edge_of_what_it_may_be(kind: type[Checked], spec: dataclasses.Field[Any], hint: Any) -> None:
    edges = [spec.metadata["bounds"][sign] for sign in (">=", "<=") if sign in spec.metadata["bounds"]]
    if spec.name == "accumulate":  # must also divide the batch size
        edges.append(32)
    for value in [*edges, *(spec.metadata["choices"] or [])]:
        assert getattr(build(kind, **{spec.name: value}), spec.name) == value


def test_every_field_is_explained_in_one_line() -> None:
    for kind, spec, _ in options():
        doc = spec.metadata["doc"]
        assert doc and "\n" not in doc and len(doc) < 120, (kind.__name__, spec.name)
    for kind in SECTIONS:
        unexplained = [f.name for f in dataclasses.fields(kind) if "doc" not in f.metadata]  # type: ignore[arg-type]
        assert not unexplained, kind.__name__


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"least": 1}, "an integer >= 1"),
        ({"above": 0, "below": 1}, "a number > 0 and < 1"),
        ({"choices": ("a", "b")}, "one of a, b"),
    ],
)
def test_what_is_allowed_reads_as_words(bounds: dict[str, Any], words: str) -> None:
    hint = {"an": int, "a ": float, "on": str}[words[:2]]
    spec = dataclasses.make_dataclass(
        "Section", [("x", hint, config.option(None, "x", **bounds))]
    ).__dataclass_fields__["x"]
    assert config.allowed(spec, hint) == words


def test_an_integer_where_a_number_is_meant_becomes_one() -> None:
    # 1 and 1.0 are one setting: it must not have two spellings in a tracker, or two hashes.
    assert repr(VQVAEConfig(beta=2).beta) == "2.0"
    assert repr(TrainConfig(lr=1).lr) == "1.0"


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny().model.beta = 2.0  # type: ignore[misc]


def test_fields_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.accumulate is 3; allowed is a divisor of train\.batch_size = 32"):
        TrainConfig(accumulate=3)
    with pytest.raises(
        ValueError, match=r"model\.restart_below is 0\.1; allowed is 0 where model\.quantizer is frozen"
    ):
        VQVAEConfig(quantizer="frozen", restart_below=0.1)


def test_a_report_comes_every_eighth_of_the_budget_unless_said_otherwise() -> None:
    assert TrainConfig(images=1000).report_interval == 125
    assert TrainConfig(images=1001).report_interval == 126  # rounded up: never a ninth report
    assert TrainConfig(images=3).report_interval == 1
    assert TrainConfig(images=1000, eval_every=300).report_interval == 300


def test_help_names_every_field_with_its_value() -> None:
    text = describe_fields(PRESETS["cifar10_vqvae"]())
    for name in ("data.name cifar10", "model.num_codes 512", "train.lr 0.0003", "seed 0"):
        assert f"--{name}\n" in text
    assert "(an integer >= 2)" in text and "(one of gradient, ema, frozen, fsq)" in text


def test_every_preset_is_a_function_of_its_module() -> None:
    for name, preset in PRESETS.items():
        assert getattr(presets, name)() == preset()
    with pytest.raises(AttributeError, match="there is no preset 'mnist_gan'"):
        presets.mnist_gan  # noqa: B018
