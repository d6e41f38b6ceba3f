"""Data sets on disk: whole or not there, the same for everyone, and every damage named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import environment, made_up_images, png, write_made_up, write_parquet
from PIL import Image

from vqvae_core.config import DataConfig
from vqvae_core.data import Dataset, dataset_writer, open_dataset, prepare
from vqvae_core.data.__main__ import import_folder, main, verify
from vqvae_core.data.folder import carve, prepared
from vqvae_core.data.prepare import make
from vqvae_core.data.sources import decode, image_folder
from vqvae_core.files import write_whole

NINE = list(made_up_images(9, (8, 8, 1)))
WIDE = made_up_images(1, (8, 12, 1))[0]
SIXTEEN = made_up_images(1, (16, 16, 3))[0]


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class TestFolder:
    def test_a_data_set_is_described_by_its_json(self, made_up_rgb: Dataset) -> None:
        assert made_up_rgb.shape == (12, 8, 3) and made_up_rgb.dims == 288
        assert made_up_rgb.splits == {"train": 64, "valid": 21, "test": 5}
        assert made_up_rgb.class_names == ["dark", "light"]
        for name, entry in made_up_rgb.meta["files"].items():
            content = (made_up_rgb.folder / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])
        assert everything_below(made_up_rgb.folder) == {
            "dataset.json",
            *(f"{split}{part}" for split in ("train", "valid", "test") for part in ("", "/images.npy", "/labels.npy")),
        }

    def test_arrays_are_read_only_maps_of_what_was_written(self, made_up_rgb: Dataset) -> None:
        images, labels = made_up_rgb.images("valid"), made_up_rgb.labels("valid")
        assert isinstance(images, np.memmap) and images.dtype == np.uint8 and labels.dtype == np.int64
        np.testing.assert_array_equal(images, made_up_images(21, (12, 8, 3), seed=1))
        assert labels.tolist() == [n % 2 for n in range(21)]
        with pytest.raises(ValueError, match="read-only"):
            images[0] = 0

    def test_a_split_that_is_not_there_is_named_with_those_that_are(self, tmp_path: Path) -> None:
        dataset = write_made_up(tmp_path / "small", test=0)
        with pytest.raises(ValueError, match="data set small has no split 'test'; it has train, valid"):
            dataset.images("test")

    def test_the_fingerprint_knows_the_content_and_nothing_else(self, made_up: Dataset, tmp_path: Path) -> None:
        same = write_made_up(tmp_path / "another_name")
        assert same.fingerprint == made_up.fingerprint
        assert write_made_up(tmp_path / "other", train=63).fingerprint != made_up.fingerprint

    def test_an_exception_while_writing_leaves_nothing(self, tmp_path: Path) -> None:
        with (
            pytest.raises(RuntimeError, match="full"),
            dataset_writer(tmp_path / "x", "x", (4, 4, 1), {"train": 9}, [], {}) as splits,
        ):
            splits["train"].images[0] = 1
            assert len(list(tmp_path.iterdir())) == 1 and not (tmp_path / "x").exists()
            raise RuntimeError("disk full")
        assert not list(tmp_path.iterdir())

    def test_what_is_still_being_written_is_not_a_data_set(self, tmp_path: Path) -> None:
        write_made_up(tmp_path / "ready")
        shutil.copytree(tmp_path / "ready", tmp_path / ".half.12345678.tmp")
        assert prepared(tmp_path) == [tmp_path / "ready"]

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda f: (f / "dataset.json").unlink(), r"x is not a data set: it has no dataset\.json"),
            (lambda f: (f / "dataset.json").write_text('{"form'), r"dataset\.json is damaged: "),
            (lambda f: (f / "dataset.json").write_text("[]"), r"dataset\.json is damaged: it lacks every field"),
            (lambda f: (f / "dataset.json").write_text('{"format": 1}'), r"damaged: it lacks class_names, files, name"),
            (lambda f: edit(f, format=7), r"x has data format 7; this version reads 1"),
            (lambda f: (f / "train/images.npy").unlink(), r"train/images\.npy is damaged: None bytes where \d+ were"),
            (lambda f: os.truncate(f / "valid/labels.npy", 99), r"valid/labels\.npy is damaged: 99 bytes where \d+ "),
        ],
    )
    def test_damage_is_named(self, tmp_path: Path, damage: Any, message: str) -> None:
        folder = write_made_up(tmp_path / "x").folder
        damage(folder)
        with pytest.raises(ValueError, match=message) as refused:
            open_dataset(folder)
        assert "\n" not in str(refused.value)

    def test_a_changed_byte_is_found_by_verifying(self, tmp_path: Path) -> None:
        dataset = write_made_up(tmp_path / "x")
        verify(dataset)
        file = dataset.folder / "train" / "images.npy"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"train/images\.npy does not have the content that was written"):
            verify(open_dataset(dataset.folder))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestCarve:
    @pytest.mark.parametrize(
        ("count", "most", "held"), [(100, 50, 10), (100, 3, 3), (11, 50, 1), (2, 50, 1), (1, 50, 0), (0, 50, 0)]
    )
    def test_how_many_are_held_out(self, count: int, most: int, held: int) -> None:
        assert carve(count, 0.1, most).sum() == held

    def test_always_the_same_ones_whatever_the_version(self) -> None:
        # Written down, so that a release that draws others is noticed: validation scores would not be comparable.
        assert np.flatnonzero(carve(60, 0.1, 99)).tolist() == [2, 11, 26, 28, 35, 59]
        assert np.flatnonzero(carve(60, 0.1, 99, seed=1)).tolist() == [2, 39, 41, 44, 48, 50]


class TestDigits:
    def test_the_splits_share_no_image_and_lose_none(self, digits_root: Path) -> None:
        dataset = open_dataset(digits_root / "digits")
        assert dataset.shape == (8, 8, 1) and dataset.splits == {"train": 1350, "valid": 150, "test": 297}
        from sklearn.datasets import load_digits

        bunch = load_digits()
        expected = sorted(zip(map(bytes, np.rint(bunch.images * 15.9375).astype(np.uint8)), bunch.target, strict=True))
        found = [
            (bytes(image), label)
            for split in dataset.splits
            for image, label in zip(dataset.images(split), dataset.labels(split), strict=True)
        ]
        assert sorted(found) == expected
        np.testing.assert_array_equal(dataset.labels("test"), bunch.target[1500:])
        assert dataset.images("train").max() == 255 and dataset.class_names == list("0123456789")

    def test_a_second_call_touches_nothing(self, digits_root: Path) -> None:
        file = digits_root / "digits" / "dataset.json"
        before = file.stat()
        assert prepare(DataConfig("digits", str(digits_root))).splits["valid"] == 150
        assert file.stat() == before or file.stat().st_mtime_ns == before.st_mtime_ns

    def test_a_size_is_refused_and_not_ignored(self, tmp_path: Path) -> None:
        with pytest.raises(
            ValueError, match=r"data\.size is 32; allowed is 0 for digits, whose images are 8 x 8 pixels"
        ):
            prepare(DataConfig("digits", str(tmp_path), size=32))
        assert not list(tmp_path.iterdir())


class TestParquet:
    def test_validation_is_carved_from_train_and_test_left_alone(self, parquet_root: Path, tmp_path: Path) -> None:
        dataset = prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root)))
        assert dataset.shape == (8, 8, 1) and dataset.splits == {"train": 36, "valid": 4, "test": 8}
        images = made_up_images(48, (8, 8, 1))
        held = carve(40, 0.1, 5000)
        np.testing.assert_array_equal(dataset.images("valid"), images[:40][held])
        np.testing.assert_array_equal(dataset.images("train"), images[:40][~held])
        np.testing.assert_array_equal(dataset.labels("valid"), np.arange(40)[held] % 2)
        np.testing.assert_array_equal(dataset.images("test"), images[40:])
        assert dataset.class_names == ["even", "odd"]
        assert set(dataset.meta["source"]["files"]) == {p.name for p in parquet_root.rglob("*.parquet")}

    @pytest.mark.parametrize("below", ["", "mnist", "mnist/mnist"])
    def test_the_source_may_point_at_any_of_its_levels(self, parquet_root: Path, tmp_path: Path, below: str) -> None:
        dataset = prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root / below)))
        assert dataset.splits == {"train": 36, "valid": 4, "test": 8}

    def test_a_validation_split_of_the_source_is_used_as_it_is(self, tmp_path: Path) -> None:
        images = made_up_images(60, (8, 8, 3))
        write_parquet(tmp_path / "s" / "train-0.parquet", images[:40], [0] * 40)
        write_parquet(tmp_path / "s" / "validation-0.parquet", images[40:], [1] * 20)
        dataset = prepare(DataConfig("mine", str(tmp_path / "data"), str(tmp_path / "s")))
        # Without a test split one is held out of train.
        assert dataset.splits == {"train": 36, "valid": 20, "test": 4}
        np.testing.assert_array_equal(dataset.images("valid"), images[40:])
        np.testing.assert_array_equal(dataset.images("test"), images[:40][carve(40, 0.1, 5000, seed=1)])

    def test_held_out_validation_and_test_do_not_overlap(self, tmp_path: Path) -> None:
        images = made_up_images(200, (8, 8, 1))
        write_parquet(tmp_path / "s" / "train-0.parquet", images, [0] * 200)
        dataset = prepare(DataConfig("mine", str(tmp_path / "data"), str(tmp_path / "s")))
        parts = {split: set(map(bytes, dataset.images(split))) for split in dataset.splits}
        assert len(parts["train"] | parts["valid"] | parts["test"]) == len(set(map(bytes, images))) == 200
        assert sum(map(len, parts.values())) == 200 and len(parts["valid"]) == 20 and 10 < len(parts["test"]) <= 20

    def test_columns_are_found_by_name_and_by_the_hubs_types(self, tmp_path: Path) -> None:
        images = made_up_images(12, (8, 8, 3))
        write_parquet(tmp_path / "a" / "train-0.parquet", images, None, image_column="img", hub_metadata=False)
        write_parquet(tmp_path / "b" / "train-0.parquet", images, [3] * 12, image_column="photograph")
        for name in "ab":
            dataset = prepare(DataConfig(name, str(tmp_path / "data"), str(tmp_path / name)))
            assert dataset.labels("train")[0] == {"a": -1, "b": 3}[name]
            assert dataset.class_names == {"a": [], "b": ["even", "odd"]}[name]

    def test_a_size_makes_a_data_set_of_its_own(self, parquet_root: Path, tmp_path: Path) -> None:
        dataset = prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root), size=4))
        assert dataset.folder.name == "mnist-4" and dataset.shape == (4, 4, 1)
        original = prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root)))
        averaged = original.images("test")[..., 0].reshape(8, 4, 2, 4, 2).mean((2, 4))
        assert np.abs(dataset.images("test")[..., 0] - averaged).max() <= 1  # rounded once per direction

    def test_an_unlabelled_image_has_label_minus_one(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "s" / "train-0.parquet", made_up_images(12, (8, 8, 1)), [None, *[1] * 11])
        dataset = prepare(DataConfig("mine", str(tmp_path / "data"), str(tmp_path / "s")))
        labels = [label for split in dataset.splits for label in dataset.labels(split).tolist()]
        assert sorted(labels) == [-1, *[1] * 11]

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            ([b"no image"], [0], r"image 0 of .*/train-0\.parquet is no readable image: no format that Pillow knows$"),
            ([None], [0], r"image 0 of .*/train-0\.parquet is no readable image: "),
            ([png(SIXTEEN)[:300]], [0], r"image 0 of .*/train-0\.parquet is no readable image: "),
            ([*NINE, b"x"], [0] * 10, r"image 9 of .*/train-0\.parquet is no readable image: "),
            ([*NINE, WIDE], [0] * 10, r"mine: image 9 of train is 12 x 8 pixels, the first one 8 x 8; give data\.size"),
            (NINE, ["a"] * 9, r"column 'label' holds values of type string; allowed are integers$"),
            ([], [], r"/train-0\.parquet has no images$"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, images: Any, labels: Any, message: str) -> None:
        write_parquet(tmp_path / "s" / "train-0.parquet", images, labels)
        with pytest.raises(ValueError, match=message) as refused:
            prepare(DataConfig("mine", str(tmp_path / "data"), str(tmp_path / "s")))
        assert "\n" not in str(refused.value) and " at 0x" not in str(refused.value)
        assert not [p for p in (tmp_path / "data").glob("*") if p.is_dir()]

    def test_a_truncated_file_is_named_and_nothing_is_written(self, parquet_root: Path, tmp_path: Path) -> None:
        victim = next(parquet_root.rglob("train-00001*"))
        os.truncate(victim, victim.stat().st_size // 2)
        with pytest.raises(ValueError, match=rf"{victim.name} is damaged or no parquet file: "):
            prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root)))
        assert not (tmp_path / "data").exists()

    def test_a_file_damaged_inside_is_named_and_nothing_is_left(self, parquet_root: Path, tmp_path: Path) -> None:
        victim = next(parquet_root.rglob("train-00001*"))
        content = bytearray(victim.read_bytes())
        content[4:400] = bytes(396)  # its footer still promises what is no longer there
        victim.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{victim.name} is damaged: "):
            prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root)))
        assert not (tmp_path / "data").exists()

    def test_a_file_with_other_columns_is_named(self, parquet_root: Path, tmp_path: Path) -> None:
        victim = next(parquet_root.rglob("test-*"))
        write_parquet(victim, made_up_images(8, (8, 8, 1)), [0] * 8, image_column="picture")
        with pytest.raises(ValueError, match=rf"{victim.name} has no column 'image'; it has picture, label"):
            prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root)))

    def test_sources_that_are_not_there_are_named(self, parquet_root: Path, tmp_path: Path) -> None:
        root = str(tmp_path / "data")
        with pytest.raises(ValueError, match=r"^data\.source is '.*nowhere', which is not a folder"):
            prepare(DataConfig("mnist", root, str(tmp_path / "nowhere")))
        # The only data set that is there is not passed off as another known one.
        with pytest.raises(ValueError, match=r"^data\.source: .* has no data set 'cifar10'; it has mnist$"):
            prepare(DataConfig("cifar10", root, str(parquet_root)))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"has no data set 'mnist'; it has no parquet files$"):
            prepare(DataConfig("mnist", root, str(tmp_path / "empty")))
        assert not Path(root).exists()

    def test_a_prepared_folder_of_other_files_is_refused(self, parquet_root: Path, tmp_path: Path) -> None:
        root = str(tmp_path / "data")
        first = prepare(DataConfig("mnist", root, str(parquet_root)))
        other = tmp_path / "other"
        shutil.copytree(parquet_root, other)
        write_parquet(other / "mnist" / "mnist" / "unsupervised-0.parquet", [], [])  # a split that nobody reads
        assert prepare(DataConfig("mnist", root, str(other))).fingerprint == first.fingerprint
        write_parquet(other / "mnist" / "mnist" / "test-1.parquet", made_up_images(2, (8, 8, 1)), [0, 1])
        with pytest.raises(ValueError, match=r"data/mnist was prepared from other files than those in .*other"):
            prepare(DataConfig("mnist", root, str(other)))
        # Without a source, what is there is taken.
        assert prepare(DataConfig("mnist", root)).fingerprint == first.fingerprint


class TestHub:
    """The hub itself is stood in for: a test needs no network."""

    def test_a_download_is_one_configuration_of_the_data_sets_own_repository(
        self, parquet_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = pytest.importorskip("huggingface_hub")
        asked: list[Any] = []

        def snapshot_download(repo: str, **options: Any) -> str:
            asked.append((repo, options))
            return str(parquet_root / "mnist")

        monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
        dataset = prepare(DataConfig("mnist", str(tmp_path / "data")))
        assert dataset.splits == {"train": 36, "valid": 4, "test": 8}
        assert asked == [("ylecun/mnist", {"repo_type": "dataset", "allow_patterns": ["mnist/*.parquet"]})]
        assert prepare(DataConfig("mnist", str(tmp_path / "data"))).fingerprint == dataset.fingerprint
        assert len(asked) == 1  # once

    def test_a_download_that_fails_says_so_in_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = pytest.importorskip("huggingface_hub")

        def unreachable(*_: Any, **__: Any) -> str:
            raise OSError("no route to host\nmore about it")

        monkeypatch.setattr(hub, "snapshot_download", unreachable)
        with pytest.raises(
            ValueError, match=r"^cifar10 could not be downloaded from uoft-cs/cifar10 \(no route to host\)"
        ):
            prepare(DataConfig("cifar10", str(tmp_path / "data")))
        assert not (tmp_path / "data").exists()

    @pytest.mark.parametrize(
        ("package", "data", "message"),
        [
            ("huggingface_hub", DataConfig("mnist"), "mnist is downloaded with huggingface_hub: pip install"),
            (
                "pyarrow",
                DataConfig("mnist", source="source"),
                "data.source holds parquet files, which need pyarrow: pip",
            ),
            ("sklearn.datasets", DataConfig("digits"), "data.name is 'digits', which needs scikit-learn: pip install"),
        ],
    )
    def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
        self,
        parquet_root: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        package: str,
        data: DataConfig,
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=message):
            prepare(data)
        assert [path.name for path in tmp_path.iterdir()] == ["source"]


class TestNames:
    def test_an_unknown_name_is_refused_with_those_that_are_known(self, tmp_path: Path) -> None:
        write_made_up(tmp_path / "mine")
        with pytest.raises(
            ValueError,
            match=r"^data\.name is 'mnits' \(did you mean mnist\?\); allowed is one of digits, .*, mine, or what",
        ):
            prepare(DataConfig("mnits", str(tmp_path)))
        with pytest.raises(ValueError, match=r"^data\.size is 16; allowed is 0 for what is prepared already"):
            prepare(DataConfig("mine", str(tmp_path), size=16))

    @pytest.mark.parametrize("name", ["mnist", "boxing", "digits"])
    def test_a_name_that_means_other_images_is_refused(self, name: str, png_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=rf"--name is '{name}'; allowed is a name that no known data set has"):
            import_folder(png_folder, name, tmp_path / "data", 8, grey=False)

    def test_what_is_in_the_way_is_named(self, png_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match=r"file is in the way: it exists and is no folder"):
            import_folder(png_folder, "mine", tmp_path / "file", 8, grey=False)
        (tmp_path / "data" / "digits").mkdir(parents=True)
        (tmp_path / "data" / "digits" / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"digits is in the way: it exists and is no data set"):
            prepare(DataConfig("digits", str(tmp_path / "data")))
        assert everything_below(tmp_path / "data") == {"digits", "digits/notes.txt"}


class TestSeveralProcesses:
    def test_several_at_once_prepare_one_whole_data_set(self, parquet_root: Path, tmp_path: Path) -> None:
        program = f"""
from vqvae_core.config import DataConfig
from vqvae_core.data import prepare
print(prepare(DataConfig("mnist", "data", {str(parquet_root)!r})).fingerprint)
"""
        children = [
            subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
            for _ in range(4)
        ]
        fingerprints = [child.communicate()[0] for child in children]
        assert [child.returncode for child in children] == [0] * 4
        assert len(set(fingerprints)) == 1
        assert [p.name for p in (tmp_path / "data").iterdir() if not p.name.endswith(".lock")] == ["mnist"]

    def test_one_that_was_killed_in_the_middle_leaves_no_half_data_set(
        self, parquet_root: Path, tmp_path: Path
    ) -> None:
        # The process kills itself, with the signal that it cannot catch, when it has read 30 images.
        program = f"""
import os, signal
from vqvae_core.config import DataConfig
from vqvae_core.data import prepare, sources
decoded, decode = [], sources.decode
def deadly(*arguments):
    decoded.append(1)
    if len(decoded) == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(*arguments)
sources.decode = deadly
prepare(DataConfig("mnist", "data", {str(parquet_root)!r}))
"""
        child = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True)
        assert child.returncode == -9
        left = [p.name for p in (tmp_path / "data").iterdir() if p.name.endswith(".tmp")]
        assert len(left) == 1 and not (tmp_path / "data" / "mnist").exists()
        (tmp_path / "data" / ".mnist.v2.12345678.tmp").mkdir()  # another data set's, at work now
        dataset = prepare(DataConfig("mnist", str(tmp_path / "data"), str(parquet_root)))
        assert dataset.splits == {"train": 36, "valid": 4, "test": 8}
        verify(dataset)
        assert [p.name for p in (tmp_path / "data").glob("*.tmp")] == [".mnist.v2.12345678.tmp"]


class TestImageFolder:
    def test_a_folder_of_images_becomes_a_data_set(self, png_folder: Path, tmp_path: Path) -> None:
        (png_folder / "bird" / "._00.png").write_bytes(b"another system's note")
        (png_folder / "notes.txt").write_text("not an image")
        dataset = import_folder(png_folder, "mine", tmp_path / "data", 8, grey=False)
        assert dataset.shape == (8, 8, 3) and dataset.class_names == ["ant", "bird"]
        assert dataset.splits == {"train": 10, "valid": 1, "test": 1}
        labels = np.concatenate([dataset.labels(split) for split in dataset.splits])
        assert np.bincount(labels).tolist() == [6, 6]

    def test_the_order_of_files_on_disk_decides_nothing(
        self, png_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = import_folder(png_folder, "first", tmp_path / "data", 8, grey=True)
        listing = Path.rglob
        monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(listing(self, pattern), reverse=True))
        second = import_folder(png_folder, "second", tmp_path / "data", 8, grey=True)
        assert second.fingerprint == first.fingerprint and first.shape == (8, 8, 1)

    def test_folders_named_like_splits_are_splits(self, png_folder: Path, tmp_path: Path) -> None:
        root = tmp_path / "split"
        for number, path in enumerate(sorted(png_folder.rglob("*.png")) * 2):
            target = root / ("train" if number < 20 else "val") / path.parent.name / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        (root / "test").mkdir()  # empty: as if it were not there
        dataset = import_folder(root, "mine", tmp_path / "data", 8, grey=False)
        assert dataset.splits == {"train": 18, "valid": 4, "test": 2}
        assert dataset.class_names == ["ant", "bird"]

    def test_an_empty_validation_folder_is_as_if_it_were_not_there(self, png_folder: Path, tmp_path: Path) -> None:
        png_folder.rename(tmp_path / "train")
        (tmp_path / "valid").mkdir()
        assert image_folder(tmp_path, 8, False).counts == {"train": 12}

    @pytest.mark.parametrize(
        ("name", "size", "message"),
        [
            ("a/b", 8, "--name is 'a/b'; allowed are letters"),
            ("..", 8, "--name is '..'; allowed are letters"),
            ("mine", 30, "--size is 30; allowed is a multiple of 4"),
            ("mine", 0, "--size is 0; allowed is a multiple of 4"),
            ("there", 8, "there exists; choose another --name or delete it"),
        ],
    )
    def test_wrong_names_and_sizes(self, png_folder: Path, tmp_path: Path, name: str, size: int, message: str) -> None:
        (tmp_path / "data" / "there").mkdir(parents=True)
        with pytest.raises(ValueError, match=message):
            import_folder(png_folder, name, tmp_path / "data", size, grey=False)
        assert everything_below(tmp_path / "data") == {"there"}

    def test_folders_without_enough_images(self, png_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nowhere is not a folder"):
            image_folder(tmp_path / "nowhere", 8, False)
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"empty has no image files \(.*\.png"):
            image_folder(tmp_path / "empty", 8, False)
        for path in list(png_folder.rglob("*.png"))[9:]:
            path.unlink()
        with pytest.raises(ValueError, match="pictures has 9 images; allowed is 10 or more"):
            image_folder(png_folder, 8, False)

    def test_a_damaged_image_is_named_and_nothing_is_left(self, png_folder: Path, tmp_path: Path) -> None:
        victim = png_folder / "ant" / "05.png"
        os.truncate(victim, victim.stat().st_size // 2)
        with pytest.raises(ValueError, match=r"ant/05\.png is no readable image: "):
            import_folder(png_folder, "mine", tmp_path / "data", 8, grey=False)
        assert not (tmp_path / "data").exists()


class TestDecode:
    def test_areas_are_averaged_and_the_middle_is_kept(self) -> None:
        # Twice as wide as needed, and twice as high: left and right quarters are cut off, 2 x 2 pixels averaged.
        pixels = np.zeros((8, 16, 3), np.uint8)
        pixels[:, 4:12] = made_up_images(1, (8, 8, 3))[0]
        small = decode(io.BytesIO(png(pixels)), "x", 3, 4)
        assert np.abs(small - pixels[:, 4:12].reshape(4, 2, 4, 2, 3).mean((1, 3))).max() <= 1

    def test_channels_are_what_the_data_set_has(self) -> None:
        grey, coloured = made_up_images(1, (8, 8, 1))[0], made_up_images(1, (8, 8, 3))[0]
        np.testing.assert_array_equal(decode(io.BytesIO(png(grey)), "x", 3, 0), np.repeat(grey, 3, 2))
        luma = coloured @ np.array([0.299, 0.587, 0.114])
        assert np.abs(decode(io.BytesIO(png(coloured)), "x", 1, 0)[..., 0] - luma).max() <= 1

    def test_sixteen_bits_are_scaled_and_not_cut(self) -> None:
        file = io.BytesIO()
        levels = np.linspace(0, 65535, 64).reshape(8, 8)
        Image.fromarray(levels.astype(np.uint16)).save(file, "PNG")
        assert np.abs(decode(file, "x", 1, 0)[..., 0] - levels / 257).max() <= 0.51

    def test_levels_that_are_no_grey_levels_are_refused(self) -> None:
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(file, "TIFF")
        with pytest.raises(ValueError, match=r"^x has levels of type float32; allowed are 8 or 16 bits$"):
            decode(file, "x", 1, 0)

    def test_no_damage_escapes_without_the_files_name(self) -> None:
        random = np.random.RandomState(0)
        whole = png(made_up_images(1, (16, 16, 3))[0])
        for _ in range(300):
            damaged = bytearray(whole)
            for where in random.randint(0, len(whole), 4):
                damaged[where] = random.randint(256)
            try:
                decode(io.BytesIO(bytes(damaged)), "image 7", 3, 8)
            except ValueError as error:
                assert str(error).startswith("image 7 is no readable image: ") and "\n" not in str(error)


class TestCommands:
    def test_prepare_import_and_list(
        self, png_folder: Path, parquet_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = str(tmp_path / "data")
        main(["prepare", "mnist", "--data-source", str(parquet_root), "--root", root])
        main(["import", str(png_folder), "--name", "mine", "--size", "12", "--grey", "--root", root])
        out = capsys.readouterr().out
        assert "mnist: 8 x 8 x 1, 36 train, 4 valid, 8 test, 2 classes\n" in out
        assert "mine: 12 x 12 x 1, 10 train, 1 valid, 1 test, 2 classes\n" in out
        assert "next: python sweeps/beta_lr.py --dataset mine\n" in out
        main(["list", "--verify", "--root", root])
        assert [line.split(":")[0].rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == [
            "mine",
            "mnist",
        ]

    def test_listing_nothing_says_so(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        main(["list", "--root", str(tmp_path / "data")])
        assert capsys.readouterr().out == f"nothing is prepared in {tmp_path / 'data'}\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["prepare", "mnits"], "error: data.name is 'mnits' (did you mean mnist?); allowed is one of digits"),
            (
                ["prepare", "digits", "--size", "x"],
                "error: python -m vqvae_core.data prepare: argument --size: 'x'; allowed is an integer",
            ),
            (
                ["prepare", "mnist", "--data-source", "nowhere"],
                "error: data.source is 'nowhere', which is not a folder",
            ),
            (["import", "nowhere", "--name", "mine"], "error: nowhere is not a folder"),
            (
                ["import", "nowhere"],
                "error: python -m vqvae_core.data import: the following arguments are required: --name",
            ),
            (["purge"], "error: python -m vqvae_core.data: argument command: invalid choice: 'purge'"),
            ([], "error: python -m vqvae_core.data: the following arguments are required: command"),
        ],
    )
    def test_mistakes_are_one_line_and_status_2(
        self,
        arguments: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(message) and err.count("\n") == 1, err
        assert not list(tmp_path.iterdir())


def test_progress_in_a_terminal_leaves_standard_output_alone(
    digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    prepare(DataConfig("digits", str(tmp_path)))
    said = capsys.readouterr()
    assert said.out == "" and "preparing digits train: 1,500 images" not in said.err


def test_a_text_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "x.json", "old")
    with monkeypatch.context() as broken, pytest.raises(OSError, match="power cut"):
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
        write_whole(tmp_path / "x.json", "new")
    assert (tmp_path / "x.json").read_text() == "old"
    write_whole(tmp_path / "x.json", "new")
    assert (tmp_path / "x.json").read_text() == "new"


def test_a_source_is_written_once_even_if_asked_for_twice(png_folder: Path, tmp_path: Path) -> None:
    source = image_folder(png_folder, 8, False)
    first = make(tmp_path / "mine", "mine", source)
    inode = (tmp_path / "mine" / "dataset.json").stat().st_ino
    assert make(tmp_path / "mine", "mine", source).fingerprint == first.fingerprint
    assert (tmp_path / "mine" / "dataset.json").stat().st_ino == inode
