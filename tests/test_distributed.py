"""Two workers with half of each batch are one process with the whole of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import environment, without_times, write_made_up
from stages import KINDS, train_first
from two_workers import PARTS, VARIANTS, everything, trained

from vqvae_core.data import open_dataset

Results = dict[str, Any]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results, Results]:
    """Everything in ``two_workers``, done by one process, and by each of two."""
    folder = tmp_path_factory.mktemp("workers")
    write_made_up(folder / "made_up")
    write_made_up(folder / "lonely", valid=1)
    train_first(open_dataset(folder / "made_up"))
    torch.save(trained(folder, "all", 2)["first state"], folder / "state.pt")
    children = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("two_workers.py")), str(number), str(folder)],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        alone = everything(folder)
        errors = [child.communicate(timeout=300)[1] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], "\n".join(errors)
    first, second = (torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2))
    return alone, first, second


def assert_same_run(one: Results, two: Results, tolerance: float) -> None:
    assert len(one["metrics"]) == len(two["metrics"])
    for ours, theirs in zip(one["metrics"], two["metrics"], strict=True):
        assert without_times(theirs) == pytest.approx(without_times(ours), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_training(both: tuple[Results, Results, Results], variant: str, parts: int) -> None:
    alone, first, second = (results[f"{variant} / {parts}"] for results in both)
    for name, tensor in first["weights"].items():
        assert tensor.equal(second["weights"][name]), name  # the workers do not drift apart, not even by a bit
    assert_same_run(alone, first, 1e-6)
    assert [without_times(m) for m in first["metrics"]] == [without_times(m) for m in second["metrics"]]
    watched = [name for name in alone["weights"] if name.endswith(("codebook", "usage", "table"))]
    assert watched or variant == "vae"
    for name in watched:
        torch.testing.assert_close(first["weights"][name], alone["weights"][name], rtol=1e-6, atol=1e-6)
    for name, tensor in alone["weights"].items():
        if "running" in name:
            torch.testing.assert_close(first["weights"][name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_second_stages(both: tuple[Results, Results, Results], kind: str) -> None:
    """Hidden classes, restarts and shares of the validation maps included; the codes were encoded by one of three."""
    alone, first, second = (results[kind] for results in both)
    for name, tensor in first["weights"].items():
        assert tensor.equal(second["weights"][name]), name
    assert_same_run(alone, first, 1e-5)
    assert [without_times(m) for m in first["metrics"]] == [without_times(m) for m in second["metrics"]]
    assert alone["metrics"][0]["train/loss"] != alone["metrics"][-1]["train/loss"]


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v not in ("batch norm", "all")])
def test_a_step_in_parts_is_the_whole_step(both: tuple[Results, Results, Results], variant: str) -> None:
    # Not with batch normalisation, whose statistics are a part's.
    whole, parts = (both[0][f"{variant} / {n}"] for n in PARTS)
    assert_same_run(whole, parts, 1e-6)
    for name, tensor in whole["weights"].items():
        if name.endswith(("codebook", "table")):
            torch.testing.assert_close(parts["weights"][name], tensor, rtol=1e-6, atol=1e-6)


def test_the_variants_are_what_they_say(both: tuple[Results, Results, Results]) -> None:
    """Otherwise the comparisons above compare nothing."""
    alone = both[0]
    losses = {name: alone[f"{name} / 1"]["metrics"][-1]["train/loss"] for name in VARIANTS}
    assert len(set(losses.values())) == len(losses)
    assert max(alone["restarts"]["restarted"]) > 0


@pytest.mark.parametrize("name", ["normalised", "normalised far from zero"])
def test_batch_normalisation(both: tuple[Results, Results, Results], name: str) -> None:
    alone, first, second = (results[name] for results in both)
    tolerance = 1e-5 if name == "normalised" else 2e-3  # float32 has few digits left there
    for results in (first, second):
        torch.testing.assert_close(results["out"], alone["out"], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(results["x"], alone["x"], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(results["gradients"], alone["gradients"], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(results["running"], alone["running"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(results["eval"], alone["eval"], rtol=1e-5, atol=1e-4)


def test_dead_codes_restart_alike_on_every_worker(both: tuple[Results, Results, Results]) -> None:
    alone, first, second = (results["restarts"] for results in both)
    assert first["restarted"] == second["restarted"] == alone["restarted"]
    assert first["codebook"].equal(second["codebook"])
    torch.testing.assert_close(first["codebook"], alone["codebook"], rtol=1e-6, atol=1e-6)


def test_each_worker_reads_its_share_of_the_validation_images(both: tuple[Results, Results, Results]) -> None:
    alone, first, second = (results["share"]["read"] for results in both)
    assert alone == sorted(first + second) == list(range(21)) and len(first) - len(second) == 1


def test_a_worker_without_a_validation_image(both: tuple[Results, Results, Results]) -> None:
    alone, first, second = (results["lonely"] for results in both)
    assert_same_run(alone, first, 1e-6)
    assert_same_run(alone, second, 1e-6)


def test_two_go_on_with_what_one_began(both: tuple[Results, Results, Results]) -> None:
    alone, first, _ = both
    assert len(first["continued"]["metrics"]) == 2
    assert_same_run(alone["continued"], first["continued"], 1e-6)
    # And alone, going on is what was done in one go.
    assert alone["continued"]["weights"].keys() == alone["all / 2"]["weights"].keys()
    for name, tensor in alone["all / 2"]["weights"].items():
        assert tensor.equal(alone["continued"]["weights"][name])


def test_all_workers_leave_together(both: tuple[Results, Results, Results]) -> None:
    alone, first, second = (results["mistakes"] for results in both)
    assert "the loss is no longer finite" in first["diverged"] and first["diverged"] == second["diverged"]
    assert "odd batch" not in alone
    for said in (first, second):
        assert said["odd batch"] == "train.batch_size is 15; allowed is a multiple of 10 (2 workers x 5 parts)"
