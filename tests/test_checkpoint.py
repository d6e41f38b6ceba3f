"""Checkpoints are whole or not there, say what is damaged, and give back to the bit what was saved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train import VARIANTS, assert_same_report, assert_same_state

from vqvae_core import checkpoint
from vqvae_core.checkpoint import CONFIG, MANIFEST, TRAINING, WEIGHTS, Damaged, Keeper, read, save
from vqvae_core.config import Experiment
from vqvae_core.data import Dataset
from vqvae_core.likelihood import to_unit
from vqvae_core.overrides import from_json
from vqvae_core.train import Report, fit

TinyOn = Callable[..., Experiment]
FILES = [WEIGHTS, CONFIG, TRAINING, MANIFEST]


@pytest.fixture
def report(tiny_on: TinyOn, made_up: Dataset) -> Report:
    return next(fit(tiny_on(), dataset=made_up))


@pytest.fixture
def saved(report: Report, made_up: Dataset, tmp_path: Path) -> Path:
    save(tmp_path / "saved", report.state, report.metrics, made_up.shape)
    return tmp_path / "saved"


class TestRoundTrip:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_going_on_from_disk_equals_not_stopping(
        self, tiny_on: TinyOn, made_up: Dataset, tmp_path: Path, variant: str
    ) -> None:
        experiment = tiny_on(**VARIANTS[variant])
        first, *rest = fit(experiment, dataset=made_up)
        save(tmp_path / "x", first.state, first.metrics, made_up.shape)
        found = read(tmp_path / "x")
        assert_same_state(first.state, found.state())
        continued = list(fit(found.experiment, found.state(), made_up))
        assert len(continued) == len(rest) > 0
        for ours, theirs in zip(rest, continued, strict=True):
            assert_same_report(ours, theirs)

    def test_says_what_it_is(self, saved: Path, report: Report, tiny_on: TinyOn) -> None:
        found = read(saved)
        assert found.experiment == tiny_on() and found.shape == (8, 8, 1)
        assert found.images_seen == report.images_seen and found.metrics == report.metrics

    def test_gives_the_model_in_evaluation_mode(self, saved: Path, report: Report, made_up: Dataset) -> None:
        model = read(saved).model()
        assert not model.training
        assert_same_state(report.state["model"], dict(model.state_dict()))
        images = to_unit(torch.tensor(made_up.images("valid")).permute(0, 3, 1, 2))
        assert model.decode(model.encode(images)).equal(model(images).mean)

    def test_files_are_readable_without_running_code(self, saved: Path, report: Report, tiny_on: TinyOn) -> None:
        assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)
        assert_same_state(report.state["model"], load_file(saved / WEIGHTS))
        assert from_json((saved / CONFIG).read_text()) == tiny_on()
        rest = torch.load(saved / TRAINING, weights_only=True)
        assert {"optimizer", "images_seen", "seconds", "first_rms", "window", "data"} == set(rest)

    def test_an_infinite_metric_is_kept(self, report: Report, made_up: Dataset, tmp_path: Path) -> None:
        save(tmp_path / "x", report.state, report.metrics | {"valid/psnr": float("inf")}, made_up.shape)
        assert read(tmp_path / "x").metrics["valid/psnr"] == float("inf")


class TestDamage:
    @pytest.mark.parametrize("name", [WEIGHTS, CONFIG, TRAINING])
    def test_of_any_file_is_named(self, saved: Path, name: str) -> None:
        file = saved / name
        content = file.read_bytes()
        os.truncate(file, len(content) // 2)
        with pytest.raises(Damaged, match=rf"saved/{name} is damaged: its content is not what was written$"):
            read(saved)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Damaged, match=rf"saved/{name} is damaged: "):
            read(saved)
        file.unlink()
        with pytest.raises(Damaged, match=rf"saved/{name} is missing$"):
            read(saved)
        file.write_bytes(content)
        read(saved)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, r"saved is no checkpoint: it has no checkpoint\.json$"),
            ("", r"saved/checkpoint\.json is damaged: its content is not what was written$"),
            ('{"images_seen": 16', r"saved/checkpoint\.json is damaged"),
            ("[]", r"saved/checkpoint\.json is damaged"),
            ('{"files": {}}', r"saved/checkpoint\.json is damaged"),
            ('{"shape": 3, "files": {}, "images_seen": 16, "metrics": {}}', r"saved/checkpoint\.json is damaged"),
            (b"\xff\xfe\x00", r"saved/checkpoint\.json is damaged"),
        ],
    )
    def test_of_the_manifest_is_named(self, saved: Path, content: str | bytes | None, message: str) -> None:
        (saved / MANIFEST).unlink()
        if content is not None:
            (saved / MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(Damaged, match=message):
            read(saved)

    def test_a_configuration_of_another_version_names_its_file(self, saved: Path) -> None:
        text = (saved / CONFIG).read_text().replace("model.beta", "model.gamma")
        (saved / CONFIG).write_text(text)
        manifest = json.loads((saved / MANIFEST).read_text())
        manifest["files"][CONFIG] = {"bytes": len(text), "sha256": checkpoint.sha256(saved / CONFIG)}
        (saved / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match=r"saved/experiment\.json: model\.gamma is not a field"):
            read(saved)

    def test_a_save_that_fails_leaves_nothing(
        self, report: Report, made_up: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(checkpoint.torch, "save", full)
        with pytest.raises(OSError, match="no space left"):
            save(tmp_path / "x", report.state, report.metrics, made_up.shape)
        assert not list(tmp_path.iterdir())


class TestKeeper:
    @pytest.fixture
    def keeper(self, tmp_path: Path) -> Keeper:
        return Keeper(tmp_path / "run")

    @pytest.fixture
    def keep(self, keeper: Keeper, report: Report, made_up: Dataset) -> Callable[[int, float], Path]:
        def keep(images: int, bits: float) -> Path:
            state, metrics = report.state | {"images_seen": images}, report.metrics | {"valid/bits_per_dim": bits}
            return keeper.save(state, metrics, made_up.shape)

        return keep

    def kept(self, keeper: Keeper) -> list[int]:
        return [int(path.name.removeprefix("at-")) for path in keeper.found()]

    def test_the_last_two_and_the_best_stay(self, keeper: Keeper, keep: Callable[[int, float], Path]) -> None:
        bits = {16: 5.0, 32: 4.0, 48: 4.5, 64: 4.2, 80: 3.0, 96: 3.5, 1_000_000: 6.0}
        for number, (images, value) in enumerate(bits.items()):
            path = keep(images, value)
            so_far = dict(list(bits.items())[: number + 1])
            assert self.kept(keeper) == sorted({*list(so_far)[-2:], min(so_far, key=so_far.__getitem__)})
            last, best = keeper.last(), keeper.best()
            assert last is not None and last.folder == path and last.images_seen == images
            assert best is not None and best.metrics["valid/bits_per_dim"] == min(so_far.values())

    def test_a_metric_that_is_no_number_is_never_best(self, keeper: Keeper, keep: Callable[[int, float], Path]) -> None:
        for images, value in ((16, float("nan")), (32, 4.0), (48, float("nan")), (64, 5.0)):
            keep(images, value)
        assert self.kept(keeper) == [32, 48, 64]
        best = keeper.best()
        assert best is not None and best.images_seen == 32

    def test_an_interruption_stands_for_no_report(self, keeper: Keeper, tiny_on: Callable[..., Experiment]) -> None:
        experiment = tiny_on(**{"train.images": 96, "train.eval_every": 48})
        for report in fit(experiment, watch=lambda images_seen: images_seen == 64):
            keeper.save(report.state, report.metrics, (8, 8, 1))
        for seen in (80, 90):
            keeper.save({**report.state, "images_seen": seen}, {}, (8, 8, 1))
        last, best = keeper.last(), keeper.best()
        assert last is not None and last.images_seen == 90 and last.metrics == {}
        assert best is not None and best.images_seen == 48
        assert last.reports == best.reports == [(48, best.metrics)]
        assert self.kept(keeper) == [48, 80, 90]

    def test_every_checkpoint_knows_all_reports_before_it(
        self, keeper: Keeper, keep: Callable[[int, float], Path]
    ) -> None:
        bits = {16: 5.0, 32: 4.0, 48: 4.5, 64: 4.2}
        for images, value in bits.items():
            keep(images, value)
        os.truncate(keep(80, 3.0) / MANIFEST, 30)
        last = keeper.last()
        assert last is not None
        assert [(seen, told["valid/bits_per_dim"]) for seen, told in last.reports] == list(bits.items())
        keep(80, 3.5)  # again, after the damage
        last = keeper.last()
        assert last is not None
        assert [seen for seen, _ in last.reports] == [16, 32, 48, 64, 80]

    def test_as_many_of_the_best_as_wanted_stay(self, tmp_path: Path, report: Report, made_up: Dataset) -> None:
        keeper = Keeper(tmp_path / "run", best=2)
        for images, value in {16: 3.0, 32: 5.0, 48: 2.0, 64: 4.0, 80: 6.0, 96: 7.0}.items():
            state, metrics = report.state | {"images_seen": images}, report.metrics | {"valid/bits_per_dim": value}
            keeper.save(state, metrics, made_up.shape)
        assert self.kept(keeper) == [16, 48, 80, 96]

    def test_an_empty_folder_has_none(self, keeper: Keeper) -> None:
        assert keeper.last() is None and keeper.best() is None and not keeper.folder.exists()

    def test_the_same_step_may_be_saved_again(self, keeper: Keeper, keep: Callable[[int, float], Path]) -> None:
        keep(16, 5.0)
        keep(16, 4.0)
        assert self.kept(keeper) == [16]
        best = keeper.best()
        assert best is not None and best.metrics["valid/bits_per_dim"] == 4.0

    def test_a_damaged_last_is_passed_over_and_named(
        self, keeper: Keeper, keep: Callable[[int, float], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        keep(16, 4.0)
        os.truncate(keep(32, 5.0) / WEIGHTS, 10)
        last = keeper.last()
        assert last is not None and last.images_seen == 16
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "at-000000000032/model.safetensors is damaged" in said
        assert "the checkpoint before it is used" in said

    def test_a_damaged_best_is_passed_over_and_named(
        self, keeper: Keeper, keep: Callable[[int, float], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        (keep(16, 4.0) / TRAINING).unlink()
        keep(32, 5.0)
        best = keeper.best()
        assert best is not None and best.images_seen == 32
        assert "at-000000000016/training.pt is missing; the next best is used" in capsys.readouterr().out

    def test_all_damaged_is_as_good_as_none(self, keeper: Keeper, keep: Callable[[int, float], Path]) -> None:
        shutil.rmtree(keep(16, 4.0) / MANIFEST, ignore_errors=True)
        (keeper.folder / "at-000000000016" / MANIFEST).unlink()
        assert keeper.last() is None and keeper.best() is None

    def test_what_a_killed_process_left_is_cleared_away(
        self, keeper: Keeper, keep: Callable[[int, float], Path]
    ) -> None:
        path = keep(16, 4.0)
        shutil.copytree(path, keeper.folder / ".at-000000000032.1a2b3c4d.tmp")
        (keeper.folder / ".at-000000000032.1a2b3c4d.tmp" / MANIFEST).unlink()
        last = keeper.last()
        assert last is not None and last.images_seen == 16
        assert list(keeper.folder.iterdir()) == [path]
