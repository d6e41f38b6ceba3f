"""Dimensions, known points and derived settings."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution

from sweeps._space import (
    Dimension,
    Sweep,
    choice,
    describe,
    fields_of,
    integer,
    known_points,
    log_uniform,
    only_if,
    suggest,
    uniform,
)


def test_suggest_keeps_to_the_space_and_is_what_optuna_records() -> None:
    space = {"a": uniform(0, 1), "b": log_uniform(1e-3, 1e3), "c": integer(2, 10, 2), "d": choice("x", "y")}
    sweep = Sweep("s", "?", space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        point = suggest(trial, sweep, {})
        assert 0 <= point["a"] <= 1
        assert 1e-3 <= point["b"] <= 1e3
        assert point["c"] in (2, 4, 6, 8, 10)
        assert point["d"] in ("x", "y")
        assert point == trial.params
    assert isinstance(trial.distributions["b"], FloatDistribution)
    assert trial.distributions["b"].log


def test_a_conditional_dimension_is_asked_only_where_it_counts() -> None:
    sweep = Sweep("s", "?", {"kind": choice("ema", "gradient"), "decay": only_if("kind", ["ema"], uniform(0.9, 0.99))})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [suggest(study.ask(), sweep, {}) for _ in range(20)]
    assert {("decay" in point) == (point["kind"] == "ema") for point in points} == {True}
    assert {point["kind"] for point in points} == {"ema", "gradient"}


def test_a_condition_on_a_field_that_is_not_swept_looks_at_the_base() -> None:
    sweep = Sweep("s", "?", {"decay": only_if("model.quantizer", ["ema"], uniform(0.9, 0.99))})
    study = optuna.create_study()
    assert suggest(study.ask(), sweep, {"model.quantizer": "gradient"}) == {}
    assert "decay" in suggest(study.ask(), sweep, {"model.quantizer": "ema"})


def test_what_hangs_on_a_dimension_without_a_meaning_has_none_itself() -> None:
    space = {
        "kind": choice("vq", "fsq"),
        "learns": only_if("kind", ["vq"], choice("ema", "gradient")),
        "decay": only_if("learns", ["ema"], uniform(0.9, 0.99)),
    }
    sweep = Sweep("s", "?", space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    points = [
        suggest(study.ask(), sweep, {"learns": "ema"}) for _ in range(30)
    ]  # the preset's value counts for nothing
    assert {tuple(point) for point in points} == {("kind",), ("kind", "learns"), ("kind", "learns", "decay")}
    assert all(("decay" in point) == (point.get("learns") == "ema") for point in points)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {"decay": only_if("kind", ["ema"], uniform(0, 1)), "kind": choice("ema", "gradient")},
            "decay is varied only if kind has some value; kind must come before it",
        ),
        (
            {"kind": choice("ema", "gradient"), "decay": only_if("kind", ["emma"], uniform(0, 1))},
            "decay is varied only if kind is emma, which ema | gradient never is",
        ),
    ],
)
def test_a_condition_that_cannot_be_met_is_a_mistake(space: dict[str, Dimension], said: str) -> None:
    with pytest.raises(ValueError, match="only if") as caught:
        Sweep("s", "?", space)
    assert str(caught.value) == said


def test_a_known_point_has_only_the_dimensions_that_count_for_it() -> None:
    space = {
        "kind": choice("vq", "fsq"),
        "codes": only_if("kind", ["vq"], choice(64, 512)),
        "lr": log_uniform(1e-5, 1e-1),
    }
    known = {"vq": {"kind": "vq", "codes": 64, "lr": 1e-3}, "fsq": {"kind": "fsq", "codes": 64, "lr": 1e-3}}
    assert known_points(Sweep("s", "?", space, known=known)) == {"vq": known["vq"], "fsq": {"kind": "fsq", "lr": 1e-3}}
    alone = {"codes": only_if("kind", ["vq"], choice(64, 512))}
    sweep = Sweep("s", "?", alone, known={"both": {"codes": 64}})
    assert known_points(sweep, {"kind": "vq"}) == {"both": {"codes": 64}}
    assert known_points(sweep, {"kind": "fsq"}) == {}


def test_a_known_point_outside_of_the_space_is_not_tried() -> None:
    known = {"in": {"lr": 1e-3}, "below": {"lr": 1e-6}, "no choice": {"lr": 1e-3, "kind": "other"}}
    sweep = Sweep("s", "?", {"lr": log_uniform(1e-5, 1e-1), "kind": choice("vq")}, known=known)
    assert known_points(sweep) == {"in": {"lr": 1e-3}}


def test_known_points_are_cut_to_the_space_and_come_once() -> None:
    lr = Sweep("s", "?", {"train.lr": log_uniform(1e-5, 1e-2)})
    assert known_points(lr) == {"the report": {"train.lr": 3e-4}, "the original paper": {"train.lr": 2e-4}}
    codes = Sweep("s", "?", {"model.num_codes": choice(256, 512)})
    assert known_points(codes) == {"the report": {"model.num_codes": 512}}  # the original paper's is the same


@pytest.mark.parametrize(
    ("dimension", "text"),
    [
        (log_uniform(0.05, 5), "0.05 .. 5 (log)"),
        (uniform(0, 1), "0 .. 1"),
        (integer(1, 9, 2), "1 .. 9 by 2"),
        (choice(64, 128), "64 | 128"),
        (only_if("a", ["x", "y"], choice(1)), "1, if a is x or y"),
    ],
)
def test_describe(dimension: object, text: str) -> None:
    assert describe(dimension) == text  # type: ignore[arg-type]


def test_the_batch_size_sweep_scales_the_rate_with_the_root_of_the_batch() -> None:
    from sweeps.batch_size import sweep

    assert fields_of(sweep, {"train.batch_size": 128, "lr_at_32": 1e-4}) == {"train.batch_size": 128, "train.lr": 2e-4}
    for point in known_points(sweep).values():
        assert set(point) == set(sweep.space)
