"""Which images come when is a function of the seed and of the images seen, and of nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from made_up import environment

from vqvae_core.batches import Images, Order, mix
from vqvae_core.data import Dataset


class TestOrder:
    def test_each_image_comes_once_in_each_epoch(self) -> None:
        stream = Order(10, seed=0).take(0, 40).reshape(4, 10)
        for epoch in stream:
            assert sorted(epoch.tolist()) == list(range(10))

    def test_epochs_and_seeds_have_their_own_order(self) -> None:
        stream = Order(50, seed=0).take(0, 100)
        assert stream[:50].tolist() != stream[50:].tolist()
        assert stream[:50].tolist() != sorted(stream[:50].tolist())
        assert stream.tolist() != Order(50, seed=1).take(0, 100).tolist()

    @pytest.mark.parametrize("length", [1, 3, 7, 10, 25])
    def test_any_cut_gives_the_same_stream(self, length: int) -> None:
        whole = Order(10, seed=3).take(0, 100)
        order = Order(10, seed=3)
        pieces = [order.take(start, min(length, 100 - start)) for start in range(0, 100, length)]
        assert np.concatenate(pieces).tolist() == whole.tolist()

    def test_starts_anywhere(self) -> None:
        whole = Order(10, seed=3).take(0, 100)
        order = Order(10, seed=3)
        for start in (95, 0, 33, 9, 10):  # also backwards
            assert order.take(start, 5).tolist() == whole[start : start + 5].tolist()

    def test_is_written_down(self) -> None:
        # A torch release that shuffles otherwise would change every run's numbers: then this says so.
        assert Order(10, seed=0).take(0, 10).tolist() == [2, 0, 5, 7, 9, 6, 4, 1, 8, 3]


class TestMix:
    def test_tells_its_parts_apart(self) -> None:
        seeds = {mix(*parts) for parts in [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), ("a", "1"), ("a1",), ()]}
        assert len(seeds) == 7 and all(0 <= seed < 2**63 for seed in seeds)

    def test_is_the_same_in_every_process(self) -> None:
        program = "from vqvae_core.batches import mix; print(mix('weights', 7))"
        environment_with_another_hash = {**environment(), "PYTHONHASHSEED": "1"}
        child = subprocess.run(
            [sys.executable, "-c", program],
            env=environment_with_another_hash,
            capture_output=True,
            text=True,
            check=True,
        )
        assert child.stdout == f"{mix('weights', 7)}\n"


class TestImages:
    def test_are_channels_first_and_in_the_order_asked_for(self, made_up_rgb: Dataset) -> None:
        images = Images(made_up_rgb, "train", torch.device("cpu"))
        numbers = np.array([5, 63, 0, 5])
        levels = images.levels(numbers)
        assert levels.shape == (4, 3, 12, 8) and levels.dtype == torch.uint8 and len(images) == 64
        for position, number in enumerate(numbers):
            array = made_up_rgb.images("train")[number]
            assert levels[position].permute(1, 2, 0).equal(torch.from_numpy(np.array(array)))

    def test_unit_is_in_minus_one_to_one_whatever_the_channels(self, made_up: Dataset, made_up_rgb: Dataset) -> None:
        for dataset in (made_up, made_up_rgb):
            images = Images(dataset, "valid", torch.device("cpu"))
            unit = images.unit(np.arange(len(images)))
            assert unit.dtype == torch.float32 and -1 <= float(unit.min()) < float(unit.max()) <= 1
            torch.testing.assert_close((unit + 1) * 127.5, images.levels(np.arange(len(images))).float())

    def test_changing_a_batch_leaves_the_file_alone(self, made_up: Dataset) -> None:
        images = Images(made_up, "train", torch.device("cpu"))
        before = np.array(made_up.images("train"))
        images.levels(np.arange(8)).zero_()
        np.testing.assert_array_equal(made_up.images("train"), before)
