"""One trial, without Ray: it saves before it tells, continues where it was, and a failure has a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import files_of_at_most

from sweeps._plan import Plan
from sweeps._trial import ERROR, StopFile, TrialActor, train
from vqvae_core.checkpoint import WEIGHTS
from vqvae_core.data import prepare
from vqvae_core.overrides import flatten


@pytest.fixture
def plan(make: Callable[..., Plan]) -> Plan:
    return make("--images", "270", "--train.batch_size", "10")


def images_of(plan: Plan) -> dict[str, str]:
    dataset = prepare(plan.base.data)
    return {"dataset": str(dataset.folder), "fingerprint": dataset.fingerprint}


def actor_of(plan: Plan, folder: Path, **fields: Any) -> TrialActor:
    actor = TrialActor.__new__(TrialActor)  # without Tune's own start-up
    config = {**flatten(plan.base), **fields}
    actor.setup({"experiment": config, "folder": str(folder), **images_of(plan)})
    return actor


def results(actor: TrialActor) -> list[dict[str, Any]]:
    found = []
    while not found or not found[-1]["done"]:
        found.append(actor.step())
    return found


def figures(result: dict[str, Any]) -> dict[str, float]:
    clock = ("train/images_per_sec", "train/seconds")
    return {name: value for name, value in result["metrics"].items() if name not in clock}


def test_a_trial_leaves_its_last_and_best_checkpoint_and_a_picture(plan: Plan, tmp_path: Path) -> None:
    told = results(actor_of(plan, tmp_path / "000"))
    assert [result["images_seen"] for result in told] == [30 * n for n in range(1, 10)]
    assert told[-1]["objective"] == told[-1]["metrics"]["valid/bits_per_dim"]
    kept = sorted(p.name for p in (tmp_path / "000" / "checkpoints").iterdir())
    assert 1 <= len(kept) <= 2
    assert kept[-1] == "at-000000000270"
    assert (tmp_path / "000" / "reconstructions.png").read_bytes().startswith(b"\x89PNG")


def test_a_continued_trial_tells_its_reports_again_and_then_the_same_numbers(plan: Plan, tmp_path: Path) -> None:
    whole = results(actor_of(plan, tmp_path / "whole"))
    broken = actor_of(plan, tmp_path / "broken")
    for _ in range(4):
        broken.step()
    del broken
    continued = results(actor_of(plan, tmp_path / "broken"))
    assert [r["images_seen"] for r in continued] == [r["images_seen"] for r in whole]
    assert [figures(r) for r in continued] == [figures(r) for r in whole]
    assert [r.get("notes") for r in continued[:2]] == [["continues at 120 images"], None]


def test_an_actor_takes_the_next_trial_and_nothing_of_the_last(plan: Plan, tmp_path: Path) -> None:
    alone = results(actor_of(plan, tmp_path / "alone", seed=5))
    reused = actor_of(plan, tmp_path / "first")
    reused.step()
    reused.reset_config(
        {
            "experiment": {**flatten(plan.base), "seed": 5},
            "folder": str(tmp_path / "second"),
            **images_of(plan),
        }
    )
    assert [figures(r) for r in results(reused)] == [figures(r) for r in alone]


def test_a_trial_that_is_asked_to_stop_saves_at_any_step_and_goes_on_to_the_same_numbers(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = results(actor_of(plan, tmp_path / "sweep" / "trials" / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr("sweeps._trial.StopFile.__call__", lambda self, seen: seen == 80)  # between 60 and 90
        stopped = actor_of(plan, tmp_path / "sweep" / "trials" / "stopped")
        told = [stopped.step() for _ in range(4)]
    del stopped
    assert [result.get("images_seen") for result in told] == [30, 60, 80, None]
    assert all(result["interrupted"] and not result["done"] for result in told[2:])
    continued = results(actor_of(plan, tmp_path / "sweep" / "trials" / "stopped"))
    assert [result["images_seen"] for result in continued] == list(range(30, 271, 30))
    assert continued[0]["notes"] == ["continues at 80 images"]
    assert [figures(r) for r in continued] == [figures(r) for r in whole]


def test_the_stop_file_is_looked_for_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("sweeps._trial.time.monotonic", lambda: now[0])
    watch = StopFile(tmp_path)
    watch.path.touch()
    assert not watch(10)
    now[0] = 1.5
    assert watch(20)
    watch.path.unlink()
    assert not watch(30)
    now[0] = 3.0
    assert not watch(40)


def test_a_loss_that_is_no_number_ends_the_trial_with_its_reason(plan: Plan, tmp_path: Path) -> None:
    actor = actor_of(plan, tmp_path / "000", **{"train.lr": 1e30})
    last = results(actor)[-1]
    assert last["failed"].startswith("Diverged: the loss is no longer finite")
    assert "\n" not in last["failed"]
    assert "Traceback" in (tmp_path / "000" / ERROR).read_text()
    actor.reset_config(
        {
            "experiment": flatten(plan.base),
            "folder": str(tmp_path / "001"),
            **images_of(plan),
        }
    )
    assert results(actor)[-1]["images_seen"] == 270  # the actor is as good as new


def test_running_out_of_memory_is_a_reason_too(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    # A convolution of more bytes than a process has addresses.
    actor = actor_of(plan, tmp_path / "000", **{"model.hidden": 2_500_000})
    last = results(actor)[-1]
    assert last["failed"].startswith("RuntimeError: ") and "allocate" in last["failed"]
    actor.reset_config({"experiment": flatten(plan.base), "folder": str(tmp_path / "001"), **images_of(plan)})
    assert results(actor)[-1]["images_seen"] == 270  # the actor is as good as new

    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("sweeps._trial.fit", out_of_memory)
    assert actor_of(plan, tmp_path / "002").step()["failed"].startswith("OutOfMemoryError: CUDA out of memory")


def test_a_checkpoint_that_was_cut_short_is_named_and_the_one_before_it_used(plan: Plan, tmp_path: Path) -> None:
    whole = results(actor_of(plan, tmp_path / "whole"))
    broken = actor_of(plan, tmp_path / "broken")
    for _ in range(4):
        broken.step()
    del broken
    last = tmp_path / "broken" / "checkpoints" / "at-000000000120"
    with (last / WEIGHTS).open("r+b") as file:
        file.truncate(1000)
    continued = results(actor_of(plan, tmp_path / "broken"))
    notes = continued[0]["notes"]
    assert str(last / WEIGHTS) in notes[0] and notes[1] == "continues at 90 images"
    assert [figures(r) for r in continued] == [figures(r) for r in whole]


def test_a_full_disk_stops_the_sweep_and_leaves_no_half_of_a_checkpoint(plan: Plan, tmp_path: Path) -> None:
    whole = results(actor_of(plan, tmp_path / "whole"))
    actor = actor_of(plan, tmp_path / "full")
    actor.step()
    with files_of_at_most(10_000):  # as a quota: less than the weights have
        told = [actor.step() for _ in range(2)]
    assert told[0]["halt"].startswith("File too large: ") and told[0] == told[1]  # asked again before the sweep stops
    assert told[0]["interrupted"] and not told[0]["done"]
    kept = sorted(path.name for path in (tmp_path / "full" / "checkpoints").iterdir())
    assert kept == ["at-000000000030"]
    del actor
    continued = results(actor_of(plan, tmp_path / "full"))
    assert [figures(r) for r in continued] == [figures(r) for r in whole]


def test_a_node_that_does_not_see_the_folder_makes_the_same_images(plan: Plan, tmp_path: Path) -> None:
    elsewhere = {**images_of(plan), "dataset": str(tmp_path / "not" / "here")}
    actor = TrialActor.__new__(TrialActor)
    config = {**flatten(plan.base), "data.root": str(tmp_path / "own")}
    actor.setup({"experiment": config, "folder": str(tmp_path / "000"), **elsewhere})
    assert actor.step()["images_seen"] == 30
    assert (tmp_path / "own" / "digits" / "dataset.json").exists()


def test_other_images_than_the_drivers_are_a_reason(plan: Plan, tmp_path: Path) -> None:
    actor = TrialActor.__new__(TrialActor)
    other = {**images_of(plan), "fingerprint": "another"}
    actor.setup({"experiment": flatten(plan.base), "folder": str(tmp_path / "000"), **other})
    assert "holds other images than the driver has" in actor.step()["failed"]


def test_workers_that_do_not_write_leave_nothing(plan: Plan, tmp_path: Path) -> None:
    list(train(plan.base, prepare(plan.base.data), tmp_path / "000", writes=False))
    assert not (tmp_path / "000" / "checkpoints").exists() or not any((tmp_path / "000" / "checkpoints").iterdir())
